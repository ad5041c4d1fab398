//! Rotation through the running service and the commands, as an administrator does it.

use std::{
    fs,
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use countersign::{
    config::Config,
    grpc::{
        auth::Authenticated,
        trust::Trust,
        v1::{
            self, KeyKind, RotateRequest, signing_service_client::SigningServiceClient,
            trust_service_server::TrustService as _,
        },
    },
    model::{Caller, Digest, Extensions, Role, TrustedRoot, verify},
    server::Server,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tonic::{Code, Request};

use crate::{
    daemon::{self, Daemon},
    keys::{builder, keyring, now},
};

pub const ADMIN: &str = r#"
[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/root"
roles = ["admin"]
"#;

pub fn service() -> Daemon {
    let mut daemon = Daemon::init(None, ADMIN);
    daemon.issue("root");
    daemon.start();
    daemon
}

pub fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", daemon::text(output));
    daemon::text(output)
}

async fn sign(daemon: &Daemon, text: &str) -> (Digest, Vec<u8>) {
    let digest = Digest::of(text.as_bytes());
    let subjects = vec![v1::Subject { name: String::new(), digest: digest.to_string() }];
    let request = v1::SignRequest { subjects, kind: v1::ArtifactKind::Image.into(), attach: false, key: String::new() };
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    (digest, client.sign(request).await.unwrap().into_inner().bundles.remove(0).bundle.to_vec())
}

fn root_of(daemon: &Daemon) -> TrustedRoot {
    TrustedRoot::parse(&done(&daemon.cli("builder", &["trust", "export"]))).unwrap()
}

fn status(daemon: &Daemon) -> Value {
    serde_json::from_str(&done(&daemon.cli("builder", &["trust", "status", "-o", "json"]))).unwrap()
}

/// What HTTP answers: status, caching, body.
async fn get(daemon: &Daemon, path: &str) -> (u16, String, Vec<u8>) {
    let authority = reqwest::Certificate::from_pem(&fs::read(daemon.ca()).unwrap()).unwrap();
    let http = reqwest::Client::builder().tls_certs_only([authority]).build().unwrap();
    let answer = http.get(format!("https://localhost:{}/tuf/{path}", daemon.public)).send().await.unwrap();
    let cache = answer.headers()["cache-control"].to_str().unwrap().to_owned();
    (answer.status().as_u16(), cache, answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_key_rotates_while_callers_sign() {
    let mut daemon = service();
    let mut all = vec![sign(&daemon, "before").await];
    let rotations: [&[&str]; 7] = [
        &["tuf"],
        &["tsa"],
        &["sct"],
        &["ca"],
        &["tsa", "--new-root"],
        &["ca", "--new-root"],
        &["log", "--successor", "log2.test"],
    ];
    for rotation in rotations {
        let early = root_of(&daemon);
        let refused = daemon.cli("builder", &[&["trust", "rotate"], rotation].concat());
        assert!(
            !refused.status.success() && daemon::text(&refused).contains("ROLE_MISSING"),
            "{}",
            daemon::text(&refused)
        );
        let (_, _, served) = get(&daemon, "timestamp.json").await;
        done(&daemon.cli("root", &[&["trust", "rotate"], rotation].concat()));
        assert_ne!(get(&daemon, "timestamp.json").await.2, served, "clients by TUF know at once: {rotation:?}");
        all.push(sign(&daemon, &format!("after {rotation:?}")).await);
        let (root, (_, bundle)) = (root_of(&daemon), all.last().unwrap());
        for (digest, bundle) in &all {
            verify::verify(bundle, digest, &root).unwrap();
            // What the service itself knows of it, from its log and under its own root.
            let by = ["--certificate-identity", "spiffe://countersign.test/builder"];
            let issuer = ["--certificate-oidc-issuer", "https://countersign.test/clients"];
            done(&daemon.cli("builder", &[&["verify"], &by[..], &issuer[..], &[&digest.to_string()]].concat()));
        }
        let old = verify::verify(bundle, &all.last().unwrap().0, &early);
        assert_eq!(old.is_ok(), rotation == ["tuf"], "{rotation:?} was used: {old:?}");
        assert_eq!(
            fs::read_to_string(daemon.trusted_root()).unwrap(),
            done(&daemon.cli("builder", &["trust", "export"]))
        );
    }
    let shown = status(&daemon);
    let of = |kind: &str| {
        let all = shown["generations"].as_array().unwrap();
        all.iter().filter(|one| one["kind"] == kind).cloned().collect::<Vec<_>>()
    };
    for (kind, count) in [("ca", 3), ("sct", 2), ("tsa", 3), ("log", 2)] {
        let generations = of(kind);
        assert_eq!(generations.len(), count, "{kind}");
        assert!(generations.iter().rev().skip(1).all(|one| one["validUntil"].is_string()), "{generations:?}");
        assert!(generations.last().unwrap()["validUntil"].is_null(), "{generations:?}");
    }
    assert_eq!(of("ca")[2]["root"], 3);
    assert_eq!(of("log")[1]["origin"], "log2.test");
    assert_eq!(shown["tuf"]["documents"][0]["version"], 2, "the online key was rotated once");
    assert_eq!(shown["warnings"], serde_json::json!([]));
    let text = done(&daemon.cli("builder", &["trust", "status"]));
    for wanted in
        ["ca 3", "signs, under root 3", "trusted for what it signed until", "TUF repository; its root key is in the"]
    {
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
    let metrics = daemon::http_get(daemon.operations, "/metrics").unwrap();
    for what in ["ca", "tsa-root", "tls-ca", "tuf-root", "tuf-targets", "tuf-snapshot", "tuf-timestamp"] {
        assert!(metrics.contains(&format!("expiry_timestamp_seconds{{what=\"{what}\"}}")), "{what}: {metrics}");
    }
    assert!(metrics.contains("tuf_failures_total 0"), "{metrics}");

    assert!(daemon.stop().unwrap().success());
    daemon.start();
    all.push(sign(&daemon, "after a restart").await);
    let root = root_of(&daemon);
    for (digest, bundle) in &all {
        verify::verify(bundle, digest, &root).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rotation_that_is_announced_is_not_used_yet() {
    let daemon = service();
    done(&daemon.cli("root", &["trust", "rotate", "ca", "--activate-in", "1d"]));
    let (digest, bundle) = sign(&daemon, "meanwhile").await;
    verify::verify(&bundle, &digest, &root_of(&daemon)).unwrap();
    let text = done(&daemon.cli("builder", &["trust", "status"]));
    assert!(text.contains("signs from") && text.contains("ca 2"), "{text}");
    for (arguments, because) in [
        (&["ca"][..], "number 2 is made already"),
        (&["sct", "--new-root"][..], "leave out --new-root"),
        (&["tsa", "--activate-in", "91d"][..], "90 days"),
        (&["tsa", "--activate-in=-1s"][..], "in the past"),
        (&["tuf", "--activate-in", "1d"][..], "leave out --activate-in"),
        (&["tsa", "--activate-in", "soon"][..], "is not a time such as"),
        (&["tsa", "--successor", "x.test"][..], "--successor is for a log alone"),
        (&["log"][..], "--successor"),
        (&["log", "--successor", "x.test", "--new-root"][..], "leave out --new-root"),
        (&["cat"][..], "possible values"),
    ] {
        let refused = daemon.cli("root", &[&["trust", "rotate"], arguments].concat());
        let said = daemon::text(&refused);
        assert!(!refused.status.success() && said.contains(because), "{arguments:?}: {said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_repository_is_served_and_says_what_may_be_kept() {
    let daemon = service();
    let (status, cache, root) = get(&daemon, "1.root.json").await;
    assert_eq!((status, cache.contains("immutable")), (200, true));
    assert_eq!(get(&daemon, "root.json").await, (200, "no-store".to_owned(), root));
    let (status, cache, timestamp) = get(&daemon, "timestamp.json").await;
    assert_eq!((status, cache.as_str()), (200, "no-store"));
    let timestamp: Value = serde_json::from_slice(&timestamp).unwrap();
    let version = &timestamp["signed"]["meta"]["snapshot.json"]["version"];
    assert!(get(&daemon, &format!("{version}.snapshot.json")).await.1.contains("immutable"));
    let (_, cache, plain) = get(&daemon, "targets/trusted_root.json").await;
    assert_eq!((cache.as_str(), plain), ("no-store", fs::read(daemon.trusted_root()).unwrap()));
    for nowhere in ["2.root.json", "targets/x", "targets/..%2f..%2fkeys%2fmanifest.json", "x"] {
        let (status, cache, _) = get(&daemon, nowhere).await;
        assert_eq!((status, cache.as_str()), (404, "no-store"), "{nowhere}");
    }
}

/// How far the clock of the next test is ahead, in seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::SeqCst))
}

/// The service runs for 400 days without a restart: TUF metadata and its own TLS certificate are made anew meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_hundred_days_without_a_restart() {
    let house = Daemon::init(None, "");
    let config = Config::load(Some(&house.config()), None, []).unwrap();
    let running = Server::start(config, clock).await.unwrap();
    // A certificate that outlives the test, for a connection that does: the tests' own TLS goes by the wall clock.
    let (clients, data, kek) = (house.path().join("clients"), house.data(), house.path().join("kek"));
    let place =
        ["--data", data.to_str().unwrap(), "--kek-file", kek.to_str().unwrap(), "--out", clients.to_str().unwrap()];
    let issue = ["trust", "issue-client", "spiffe://countersign.test/patient", "--days", "500"];
    done(&daemon::run(&[&issue[..], &place].concat()));
    let channel = house.channel("patient").await;
    let sign = async |text: &str| {
        let digest = Digest::of(text.as_bytes());
        let subjects = vec![v1::Subject { name: String::new(), digest: digest.to_string() }];
        let request =
            v1::SignRequest { subjects, kind: v1::ArtifactKind::Image.into(), attach: false, key: String::new() };
        let mut client = SigningServiceClient::new(channel.clone());
        (digest, client.sign(request).await.unwrap().into_inner().bundles.remove(0).bundle)
    };
    let old = sign("old").await;
    let port = running.operations_addr.port();
    let ends = |what: &str| {
        let page = tokio::task::block_in_place(|| daemon::http_get(port, "/metrics").unwrap());
        let series = format!("countersign_expiry_timestamp_seconds{{what=\"{what}\"}} ");
        page.lines().find_map(|line| line.strip_prefix(&series)?.parse::<i64>().ok()).unwrap()
    };
    AHEAD.store(400 * 86_400, Ordering::SeqCst);
    let deadline = std::time::Instant::now() + daemon::PATIENCE;
    let due = |what: &str| ends(what) <= clock().as_second() + 7 * 86_400;
    while ["tuf-timestamp", "tuf-snapshot", "tuf-targets", "tls certificate"].into_iter().any(due) {
        assert!(std::time::Instant::now() < deadline, "not signed again: {}", ends("tuf-timestamp"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ready = tokio::task::block_in_place(|| daemon::http_get(port, "/readyz").unwrap());
    assert!(ready.starts_with("HTTP/1.1 200") && !ready.contains("note:"), "{ready}");
    let new = sign("new").await;
    let root = TrustedRoot::parse(&fs::read_to_string(house.trusted_root()).unwrap()).unwrap();
    for (digest, bundle) in [old, new] {
        verify::verify(&bundle, &digest, &root).unwrap();
    }
    // Half a year before an authority ends, whoever asks how the service is hears of it; it is ready all the same.
    AHEAD.store(3_500 * 86_400, Ordering::SeqCst);
    let ready = tokio::task::block_in_place(|| daemon::http_get(port, "/readyz").unwrap());
    assert!(ready.starts_with("HTTP/1.1 200") && ready.contains("note: ca expires at"), "{ready}");
    running.shutdown().await;
}

/// The commands around the offline key, with the service running all the while.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_root_key_goes_offline_and_signs_there() {
    let daemon = service();
    let (data, kek) = (daemon.data(), daemon.path().join("kek"));
    let (stick, current, next) =
        (daemon.path().join("stick.json"), daemon.path().join("root.json"), daemon.path().join("next.json"));
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (data, kek, stick, current, next) = (path(&data), path(&kek), path(&stick), path(&current), path(&next));
    let at_home = ["--data", &data, "--kek-file", &kek];
    let take = [&["trust", "tuf", "take-root-offline"], &at_home[..], &["--out", &stick]].concat();
    assert!(done(&daemon::run(&take)).contains("no longer in"));
    assert!(done(&daemon.cli("builder", &["trust", "status"])).contains("its root key is kept offline"));
    let refused = daemon.cli("root", &["trust", "rotate", "tuf"]);
    let said = daemon::text(&refused);
    assert!(!refused.status.success() && said.contains("TUF_ROOT_KEY_OFFLINE") && said.contains("sign-root"), "{said}");
    done(&daemon.cli("root", &["trust", "rotate", "tsa"]));

    let with_key = ["trust", "tuf", "sign-root", "--key", &stick, "--kek-file", &kek];
    // Both roots have the same end if they are signed within one second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    assert!(daemon::text(&daemon.cli("builder", &with_key)).contains("ROLE_MISSING"));
    let signed = done(&daemon.cli("root", &with_key));
    assert!(signed.contains("Root 2 is served"), "{signed}");
    fs::write(&current, get(&daemon, "root.json").await.2).unwrap();
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    // Where nothing can be reached.
    done(&daemon::run(&[&with_key[..], &["--root", &current, "--out", &next]].concat()));
    let published = done(&daemon.cli("root", &["trust", "tuf", "publish-root", &next]));
    assert!(published.contains("Root 3 is served"), "{published}");
    let twice = daemon.cli("root", &["trust", "tuf", "publish-root", &next]);
    assert!(daemon::text(&twice).contains("sign the present root once more"), "{}", daemon::text(&twice));
    assert_eq!(get(&daemon, "3.root.json").await.2, fs::read(&next).unwrap());

    done(&daemon::run(&[&["trust", "tuf", "bring-root-back"], &at_home[..], &["--key", &stick]].concat()));
    done(&daemon.cli("root", &["trust", "rotate", "tuf", "--new-root"]));
    assert_eq!(get(&daemon, "4.root.json").await.0, 200);
}

/// The face alone: roles, and requests that no command makes.
#[tokio::test]
async fn the_face_asks_for_the_role_and_for_whole_requests() {
    use std::sync::Arc;
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(keyring(dir.path(), now()));
    let repository = Arc::new(super::repository(dir.path(), &keys));
    let rotate = {
        let (keys, dir) = (keys.clone(), dir.path().to_owned());
        Arc::new(move |rotation| keys.rotate(&dir, &crate::keys::kek(), rotation, now(), |_public| ()))
    };
    let face = Trust::new(keys, repository, rotate, super::URL.to_owned(), now);
    let ask = |role, message| {
        let mut request = Request::new(message);
        let roles = std::iter::once(role).collect();
        let caller = Caller { identity: builder(), roles, extensions: Extensions::default(), keys: [].into() };
        request.extensions_mut().insert(Authenticated(Ok(caller)));
        request
    };
    let whole = RotateRequest { kind: KeyKind::Sct.into(), new_root: false, activate_in: None };
    for role in Role::ALL.into_iter().filter(|role| *role != Role::Admin) {
        assert_eq!(face.rotate(ask(role, whole)).await.unwrap_err().code(), Code::PermissionDenied);
        let mut request = Request::new(v1::PublishTufRootRequest::default());
        let caller = Caller {
            identity: builder(),
            roles: std::iter::once(role).collect(),
            extensions: Extensions::default(),
            keys: [].into(),
        };
        request.extensions_mut().insert(Authenticated(Ok(caller)));
        assert_eq!(face.publish_tuf_root(request).await.unwrap_err().code(), Code::PermissionDenied);
    }
    let seconds = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
    for (refused, code) in [
        (RotateRequest { kind: 0, ..whole }, Code::InvalidArgument),
        (RotateRequest { kind: 77, ..whole }, Code::InvalidArgument),
        (RotateRequest { activate_in: seconds(0, i32::MIN), ..whole }, Code::InvalidArgument),
        (RotateRequest { activate_in: seconds(0, -1), ..whole }, Code::FailedPrecondition),
        (RotateRequest { activate_in: seconds(i64::MAX, 999_999_999), ..whole }, Code::FailedPrecondition),
        (RotateRequest { activate_in: seconds(i64::MIN, -999_999_999), ..whole }, Code::FailedPrecondition),
    ] {
        let error = face.rotate(ask(Role::Admin, refused)).await.unwrap_err();
        assert_eq!(error.code(), code, "{error:?}");
    }
    let made = face.rotate(ask(Role::Admin, whole)).await.unwrap().into_inner();
    assert_eq!(made.number, 2);
}
