//! The release and rollback faces over real gRPC: what they refuse, by field and by `google.rpc` detail, and that refusing
//! leaves nothing in the log.

use std::fs;

use countersign::{
    grpc::v1::{
        self, log_service_client::LogServiceClient, release_service_client::ReleaseServiceClient,
        revoke_request::Target, rollback_service_client::RollbackServiceClient,
    },
    model::{Digest, limits},
};
use tonic::{
    Code, Status,
    transport::{Certificate, Channel, ClientTlsConfig},
};
use tonic_types::StatusExt as _;

use crate::daemon::Daemon;

const SHA512: &str = "sha512:cf83e1357eefb8bdf1542850d66d8007d620e4050b5715dc83f4a921d36ce9ce";

fn digest() -> String {
    Digest::of(b"v1").to_string()
}

fn long(length: usize) -> String {
    "x".repeat(length)
}

/// Refused with `INVALID_ARGUMENT`, `google.rpc.BadRequest` naming the field, and `google.rpc.ErrorInfo`.
#[track_caller]
fn names_field<T: std::fmt::Debug>(what: &str, result: Result<T, Status>, field: &str) {
    let status = result.expect_err(what);
    assert_eq!(status.code(), Code::InvalidArgument, "{what}: {status:?}");
    let request = status.get_details_bad_request().unwrap_or_else(|| panic!("{what}: no BadRequest in {status:?}"));
    let violation = &request.field_violations[0];
    assert_eq!((request.field_violations.len(), violation.field.as_str()), (1, field), "{what}: {status:?}");
    assert!(!violation.description.is_empty() && status.message().starts_with(field), "{what}: {status:?}");
    assert!(status.message().len() < 1_000, "{what}: what was sent is not sent back whole: {}", status.message().len());
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.domain.as_str()), ("INVALID_ARGUMENT", "countersign.dev"), "{what}");
}

/// Refused for want of a role, naming those that would do.
#[track_caller]
fn names_roles<T: std::fmt::Debug>(what: &str, result: Result<T, Status>, wanted: &str) {
    let status = result.expect_err(what);
    assert_eq!(status.code(), Code::PermissionDenied, "{what}: {status:?}");
    let info = status.get_details_error_info().unwrap();
    assert_eq!((info.reason.as_str(), info.metadata["wanted"].as_str()), ("ROLE_MISSING", wanted), "{what}");
}

async fn size(daemon: &Daemon) -> u64 {
    let mut log = LogServiceClient::new(daemon.channel("builder").await);
    log.get_checkpoint(v1::GetCheckpointRequest::default()).await.unwrap().into_inner().size
}

fn deployment() -> v1::RecordDeploymentRequest {
    v1::RecordDeploymentRequest {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest: digest(),
        image: "registry.example.com/shop/app:v1".to_owned(),
        status: "live".to_owned(),
        version: "1.0".to_owned(),
        region: "eu-1".to_owned(),
        workload: Some(v1::Workload {
            namespace: "production".to_owned(),
            kind: "Deployment".to_owned(),
            name: "shop".to_owned(),
            container: "app".to_owned(),
        }),
    }
}

fn health() -> v1::RecordHealthRequest {
    v1::RecordHealthRequest {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest: digest(),
        healthy: true,
        detail: "two lines\n\tof text".to_owned(),
    }
}

fn approval() -> v1::ApproveRequest {
    v1::ApproveRequest {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        digest: digest(),
        comment: "reviewed".to_owned(),
        expires: "2100-01-01T00:00:00Z".to_owned(),
    }
}

fn revocation() -> v1::RevokeRequest {
    v1::RevokeRequest {
        target: Some(Target::Artifact(Digest::of(b"bad").to_string())),
        since: "2026-01-01T00:00:00Z".to_owned(),
        reason: "leaks".to_owned(),
        dry_run: false,
    }
}

fn identity(subject: impl Into<String>, issuer: impl Into<String>) -> Option<Target> {
    Some(Target::Identity(v1::SigningIdentity { subject: subject.into(), issuer: issuer.into() }))
}

/// A fault, the field that the refusal must name.
type Fault<R> = (&'static str, fn(&mut R), &'static str);

/// One table for messages that name a place: service and environment.
macro_rules! place_faults {
    () => {
        [
            ("no service", |r| r.service.clear(), "service"),
            ("service too long", |r| r.service = long(limits::NAME + 1), "service"),
            ("service with a space", |r| r.service = "sh op".to_owned(), "service"),
            ("service with a control character", |r| r.service = "sh\u{0}op".to_owned(), "service"),
            ("service with an at sign", |r| r.service = "shop@production".to_owned(), "service"),
            ("service in other letters", |r| r.service = "sh\u{43e}p".to_owned(), "service"),
            ("no environment", |r| r.environment.clear(), "environment"),
            ("environment too long", |r| r.environment = long(limits::NAME + 1), "environment"),
            ("environment with a line end", |r| r.environment = "prod\n".to_owned(), "environment"),
        ]
    };
}

/// One table for messages with a digest.
macro_rules! digest_faults {
    () => {
        [
            ("no digest", |r| r.digest.clear(), "digest"),
            ("another algorithm", |r| r.digest = SHA512.to_owned(), "digest"),
            ("upper case", |r| r.digest = format!("sha256:{}", digest()[7..].to_uppercase()), "digest"),
            ("too short", |r| r.digest = "sha256:00".to_owned(), "digest"),
            ("too long", |r| r.digest = digest() + "00", "digest"),
        ]
    };
}

fn workload(request: &mut v1::RecordDeploymentRequest) -> &mut v1::Workload {
    request.workload.as_mut().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_recorded_is_refused_by_field() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let mut client = ReleaseServiceClient::new(daemon.channel("builder").await);
    let before = size(&daemon).await;

    let own: [Fault<v1::RecordDeploymentRequest>; 17] = [
        ("no image", |r| r.image.clear(), "image"),
        ("not an image", |r| r.image = "not an image!".to_owned(), "image"),
        ("image too long", |r| r.image = format!("r.test/{}", long(limits::NAME)), "image"),
        ("image of another algorithm", |r| r.image = format!("r.test/a@{SHA512}"), "image"),
        ("image pinned to another digest", |r| r.image = format!("r.test/a@{}", Digest::of(b"v2")), "image"),
        ("unknown status", |r| r.status = "running".to_owned(), "status"),
        ("status in capitals", |r| r.status = "LIVE".to_owned(), "status"),
        ("version with a space", |r| r.version = "v 1".to_owned(), "version"),
        ("version too long", |r| r.version = long(limits::NAME + 1), "version"),
        ("region with an escape", |r| r.region = "eu\u{1b}[31m".to_owned(), "region"),
        ("workload without a kind", |r| workload(r).kind.clear(), "workload.kind"),
        ("workload of another kind", |r| workload(r).kind = "Job".to_owned(), "workload.kind"),
        ("workload without a namespace", |r| workload(r).namespace.clear(), "workload.namespace"),
        ("workload with a long namespace", |r| workload(r).namespace = long(64), "workload.namespace"),
        ("workload with a command", |r| workload(r).name = "shop; reboot".to_owned(), "workload.name"),
        ("workload with a long name", |r| workload(r).name = long(254), "workload.name"),
        ("workload without a container", |r| workload(r).container.clear(), "workload.container"),
    ];
    let places: [Fault<v1::RecordDeploymentRequest>; 9] = place_faults!();
    let digests: [Fault<v1::RecordDeploymentRequest>; 5] = digest_faults!();
    for (what, fault, field) in own.into_iter().chain(places).chain(digests) {
        let mut request = deployment();
        fault(&mut request);
        names_field(what, client.record_deployment(request).await, field);
    }

    let own: [Fault<v1::RecordHealthRequest>; 4] = [
        ("detail too long", |r| r.detail = long(limits::TEXT + 1), "detail"),
        ("detail with a control character", |r| r.detail = "ok\u{7}".to_owned(), "detail"),
        ("detail with an escape", |r| r.detail = "\u{1b}[2Jfine".to_owned(), "detail"),
        ("detail that turns around", |r| r.detail = "\u{202e}ylthlaeh".to_owned(), "detail"),
    ];
    let places: [Fault<v1::RecordHealthRequest>; 9] = place_faults!();
    let digests: [Fault<v1::RecordHealthRequest>; 5] = digest_faults!();
    for (what, fault, field) in own.into_iter().chain(places).chain(digests) {
        let mut request = health();
        fault(&mut request);
        names_field(what, client.record_health(request).await, field);
    }

    let own: [Fault<v1::ApproveRequest>; 6] = [
        ("comment too long", |r| r.comment = long(limits::TEXT + 1), "comment"),
        ("comment with a control character", |r| r.comment = "\u{8}".to_owned(), "comment"),
        ("expires is no time", |r| r.expires = "tomorrow".to_owned(), "expires"),
        ("expires is a date alone", |r| r.expires = "2100-01-01".to_owned(), "expires"),
        ("expires is a long text", |r| r.expires = long(100_000), "expires"),
        ("expired already", |r| r.expires = "2020-01-01T00:00:00Z".to_owned(), "expires"),
    ];
    let places: [Fault<v1::ApproveRequest>; 9] = place_faults!();
    let digests: [Fault<v1::ApproveRequest>; 5] = digest_faults!();
    for (what, fault, field) in own.into_iter().chain(places).chain(digests) {
        let mut request = approval();
        fault(&mut request);
        names_field(what, client.approve(request).await, field);
    }
    assert_eq!(size(&daemon).await, before, "nothing of it was logged");

    // Without their faults the same requests are taken: none was refused for another reason.
    client.record_deployment(deployment()).await.unwrap();
    client.record_deployment(v1::RecordDeploymentRequest { workload: None, ..deployment() }).await.unwrap();
    client.record_health(health()).await.unwrap();
    client.approve(approval()).await.unwrap();
    assert_eq!(size(&daemon).await, before + 4);
    let place = v1::ListDeploymentsRequest { service: "shop".to_owned(), environment: "production".to_owned() };
    let listed = client.list_deployments(place).await.unwrap().into_inner();
    assert_eq!(listed.revisions[0].workloads, [deployment().workload.unwrap()]);
    assert_eq!(listed.revisions[0].health_detail, health().detail);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_revoked_or_asked_is_refused_by_field() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let mut client = ReleaseServiceClient::new(daemon.channel("builder").await);
    let before = size(&daemon).await;
    let faults: [Fault<v1::RevokeRequest>; 19] = [
        ("nothing", |r| r.target = None, "target"),
        ("artifact of another algorithm", |r| r.target = Some(Target::Artifact(SHA512.to_owned())), "artifact"),
        ("empty artifact", |r| r.target = Some(Target::Artifact(String::new())), "artifact"),
        ("key that is no digest", |r| r.target = Some(Target::Key("-----BEGIN PUBLIC KEY-----".to_owned())), "key"),
        ("empty key", |r| r.target = Some(Target::Key(String::new())), "key"),
        ("identity without a subject", |r| r.target = identity("", "https://i.test"), "identity.subject"),
        ("identity without an issuer", |r| r.target = identity("ci", ""), "identity.issuer"),
        ("subject too long", |r| r.target = identity(long(limits::URI + 1), "https://i.test"), "identity.subject"),
        ("issuer too long", |r| r.target = identity("ci", long(limits::URI + 1)), "identity.issuer"),
        ("subject with a line end", |r| r.target = identity("ci\n", "https://i.test"), "identity.subject"),
        ("issuer with a control character", |r| r.target = identity("ci", "https://i.test\u{0}"), "identity.issuer"),
        ("since is no time", |r| r.since = "yesterday".to_owned(), "since"),
        ("since is a number", |r| r.since = "1767225600".to_owned(), "since"),
        ("since is far ahead", |r| r.since = "2100-01-01T00:00:00Z".to_owned(), "since"),
        ("no reason", |r| r.reason.clear(), "reason"),
        ("blank reason", |r| r.reason = " \n\t ".to_owned(), "reason"),
        ("reason too long", |r| r.reason = long(limits::TEXT + 1), "reason"),
        ("reason with a control character", |r| r.reason = "leaks\u{1b}[2J".to_owned(), "reason"),
        ("reason that turns around", |r| r.reason = "\u{2066}skael".to_owned(), "reason"),
    ];
    for (what, fault, field) in faults {
        for dry_run in [true, false] {
            let mut request = v1::RevokeRequest { dry_run, ..revocation() };
            fault(&mut request);
            names_field(what, client.revoke(request).await, field);
        }
    }
    // A message beyond what the transport takes does not reach the face.
    let huge = v1::RevokeRequest { reason: long(5 * 1024 * 1024), ..revocation() };
    let refused = client.revoke(huge).await.expect_err("a message of five megabytes");
    assert!([Code::OutOfRange, Code::ResourceExhausted].contains(&refused.code()), "{refused:?}");

    let places: [Fault<v1::ListDeploymentsRequest>; 9] = place_faults!();
    for (what, fault, field) in places {
        let mut request =
            v1::ListDeploymentsRequest { service: "shop".to_owned(), environment: "production".to_owned() };
        fault(&mut request);
        names_field(what, client.list_deployments(request).await, field);
    }

    let mut rollback = RollbackServiceClient::new(daemon.channel("builder").await);
    let question = || v1::CheckRollbackRequest {
        service: "shop".to_owned(),
        environment: "production".to_owned(),
        target: digest(),
        fresh: true,
        dry_run: false,
        timeout_ms: u32::MAX,
    };
    let own: [Fault<v1::CheckRollbackRequest>; 4] = [
        ("target of another algorithm", |r| r.target = SHA512.to_owned(), "target"),
        ("target that is an image", |r| r.target = format!("r.test/a@{}", digest()), "target"),
        ("target in upper case", |r| r.target = r.target.to_uppercase(), "target"),
        ("target with a line end", |r| r.target.push('\n'), "target"),
    ];
    let places: [Fault<v1::CheckRollbackRequest>; 9] = place_faults!();
    for (what, fault, field) in own.into_iter().chain(places) {
        let mut request = question();
        fault(&mut request);
        names_field(what, rollback.check_rollback(request).await, field);
    }
    let places: [Fault<v1::ListRollbackTargetsRequest>; 9] = place_faults!();
    for (what, fault, field) in places {
        let mut request =
            v1::ListRollbackTargetsRequest { service: "shop".to_owned(), environment: "production".to_owned() };
        fault(&mut request);
        names_field(what, rollback.list_rollback_targets(request).await, field);
    }
    assert_eq!(size(&daemon).await, before, "nothing of it was logged");

    let answer = rollback.check_rollback(question()).await.unwrap().into_inner();
    assert_eq!(answer.safety(), v1::Safety::Unknown, "nothing was ever recorded: {answer:?}");
    let dry = client.revoke(v1::RevokeRequest { dry_run: true, ..revocation() }).await.unwrap().into_inner();
    assert_eq!((dry.entry, size(&daemon).await > before), (None, true), "the answer alone was recorded");
    assert!(client.revoke(revocation()).await.unwrap().into_inner().entry.is_some());
    let soon = (jiff::Timestamp::now() + jiff::SignedDuration::from_mins(30)).to_string();
    client.revoke(v1::RevokeRequest { since: soon, ..revocation() }).await.unwrap();
}

/// Every call wants its role, and says which; nobody known gets in at all.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_wants_its_role() {
    const ROLES: [&str; 6] = ["builder", "verifier", "deployer", "approver", "operator", "auditor"];
    let mut daemon = Daemon::init(None, "");
    let mut config = fs::read_to_string(daemon.config()).unwrap();
    config = config.replace("spiffe://countersign.test/*", "spiffe://countersign.test/builder");
    for role in ROLES {
        daemon.issue(&format!("only-{role}"));
        config += &format!(
            "[[identity.rules]]\nissuer = 'https://countersign.test/clients'\nsubject = \
             'spiffe://countersign.test/only-{role}'\nroles = ['{role}']\n"
        );
    }
    fs::write(daemon.config(), config).unwrap();
    daemon.start();
    let before = size(&daemon).await;

    let place = || ("shop".to_owned(), "production".to_owned());
    for role in ROLES {
        let channel = daemon.channel(&format!("only-{role}")).await;
        let mut release = ReleaseServiceClient::new(channel.clone());
        let mut rollback = RollbackServiceClient::new(channel);
        let may = |roles: &[&str]| roles.contains(&role);
        let expect = |what: &str, result: Result<(), Status>, roles: &[&str]| match result {
            Ok(()) => assert!(may(roles), "{what} as {role}"),
            refused => {
                assert!(!may(roles), "{what} as {role}: {refused:?}");
                names_roles(what, refused, &roles.join(","));
            }
        };
        let (service, environment) = place();
        let readers = ["deployer", "approver", "operator", "auditor"];
        let askers = ["operator", "deployer", "auditor"];
        expect("deployment", release.record_deployment(deployment()).await.map(drop), &["deployer"]);
        expect("health", release.record_health(health()).await.map(drop), &["deployer"]);
        expect("approve", release.approve(approval()).await.map(drop), &["approver"]);
        let dry = v1::RevokeRequest { dry_run: true, ..revocation() };
        expect("revoke, dry", release.revoke(dry).await.map(drop), &["operator"]);
        expect("revoke", release.revoke(revocation()).await.map(drop), &["operator"]);
        let list = v1::ListDeploymentsRequest { service: service.clone(), environment: environment.clone() };
        expect("list deployments", release.list_deployments(list).await.map(drop), &readers);
        expect("list services", release.list_services(v1::ListServicesRequest {}).await.map(drop), &readers);
        let revocations = release.list_revocations(v1::ListRevocationsRequest {}).await;
        expect("list revocations", revocations.map(drop), &["verifier", "operator", "auditor"]);
        let targets = v1::ListRollbackTargetsRequest { service: service.clone(), environment: environment.clone() };
        expect("targets", rollback.list_rollback_targets(targets).await.map(drop), &askers);
        let question = v1::CheckRollbackRequest { service, environment, timeout_ms: 300, ..Default::default() };
        let held = size(&daemon).await;
        expect("check", rollback.check_rollback(question).await.map(drop), &askers);
        assert!(role != "auditor" || size(&daemon).await == held, "an auditor's question changes nothing");
    }
    assert!(size(&daemon).await > before);

    let tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(fs::read(daemon.ca()).unwrap()));
    let nobody = Channel::from_shared(format!("https://127.0.0.1:{}", daemon.public)).unwrap().tls_config(tls).unwrap();
    let nobody = nobody.connect().await.unwrap();
    let held = size(&daemon).await;
    let mut release = ReleaseServiceClient::new(nobody.clone());
    let mut rollback = RollbackServiceClient::new(nobody);
    let (service, environment) = place();
    let refusals = [
        release.record_deployment(deployment()).await.map(drop),
        release.record_health(health()).await.map(drop),
        release.approve(approval()).await.map(drop),
        release.revoke(revocation()).await.map(drop),
        release.list_services(v1::ListServicesRequest {}).await.map(drop),
        release.list_revocations(v1::ListRevocationsRequest {}).await.map(drop),
        rollback
            .check_rollback(v1::CheckRollbackRequest { service, environment, ..Default::default() })
            .await
            .map(drop),
    ];
    for refused in refusals {
        let status = refused.expect_err("nobody known is calling");
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
        assert_eq!(status.get_details_error_info().unwrap().reason, "CREDENTIALS_MISSING");
    }
    assert_eq!(size(&daemon).await, held);
}
