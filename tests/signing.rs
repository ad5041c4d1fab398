//! The build door over real gRPC: what it refuses, by name, and that refusing leaves nothing in the log.

use countersign::{
    grpc::v1::{self, log_service_client::LogServiceClient, signing_service_client::SigningServiceClient},
    model::{Digest, TrustedRoot, predicate, verify},
};
use tonic::Code;

use crate::daemon::Daemon;

fn subject(name: &str, digest: &str) -> v1::Subject {
    v1::Subject { name: name.to_owned(), digest: digest.to_owned() }
}

fn sign(subjects: Vec<v1::Subject>) -> v1::SignRequest {
    v1::SignRequest { subjects, kind: v1::ArtifactKind::Image.into(), ..Default::default() }
}

fn attest(predicate_type: &str, predicate: &str) -> v1::AttestRequest {
    v1::AttestRequest {
        subjects: vec![subject("", &Digest::of(b"a").to_string())],
        predicate_type: predicate_type.to_owned(),
        predicate: predicate.as_bytes().to_vec().into(),
        ..Default::default()
    }
}

async fn size(daemon: &Daemon) -> u64 {
    let mut log = LogServiceClient::new(daemon.channel("builder").await);
    log.get_checkpoint(v1::GetCheckpointRequest::default()).await.unwrap().into_inner().size
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_signed_is_refused_by_name_and_leaves_no_trace() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    let good = Digest::of(b"a").to_string();
    let other = Digest::of(b"b").to_string();
    let before = size(&daemon).await;

    let signings = [
        (sign(vec![]), "subjects"),
        (sign(vec![subject("", "sha512:00")]), "sha256"),
        (sign(vec![subject("", &good.to_uppercase())]), "sha256"),
        (sign(vec![subject("", &good), subject("", &good)]), "twice"),
        (sign(vec![subject("not an image!", &good)]), "image reference"),
        (sign(vec![subject(&format!("r.test/a@{other}"), &good)]), "must be the same"),
        (v1::SignRequest { kind: 77, ..sign(vec![subject("", &good)]) }, "artifact kind"),
        (
            v1::SignRequest { kind: v1::ArtifactKind::File.into(), attach: true, ..sign(vec![subject("f", &good)]) },
            "no registry",
        ),
    ];
    for (request, word) in signings {
        let refused = client.sign(request).await.expect_err(word);
        assert_eq!(refused.code(), Code::InvalidArgument, "{word}: {refused:?}");
        assert!(refused.message().contains(word), "{word}: {}", refused.message());
    }

    let deep = format!("{{\"a\":{}{}}}", "[".repeat(100), "]".repeat(100));
    let statement = serde_json::json!({"_type": "https://example.test/other", "subject": [],
        "predicateType": predicate::SIGN, "predicate": {}});
    let attestations = [
        (
            attest(predicate::REVOCATION, r#"{"kind":"artifact","since":"2026-01-01T00:00:00Z","reason":"x"}"#),
            "release",
        ),
        (attest("https://example.test/x/v1", &deep), "nested"),
        (attest("https://example.test/x/v1", "[1]"), "object"),
        (attest("https://example.test/x/v1", "{"), "predicate"),
        (attest("no uri", "{}"), "absolute URI"),
        (attest(predicate::SLSA_PROVENANCE, "{}"), "buildDefinition.buildType"),
        (v1::AttestRequest { subjects: vec![], ..attest("https://example.test/x/v1", "{}") }, "no subject"),
        (
            v1::AttestRequest { statement: b"{}".to_vec().into(), ..attest("https://example.test/x/v1", "{}") },
            "either a whole statement",
        ),
        (v1::AttestRequest { statement: statement.to_string().into_bytes().into(), ..Default::default() }, "_type"),
    ];
    for (request, word) in attestations {
        let refused = client.attest(request).await.expect_err(word);
        assert_eq!(refused.code(), Code::InvalidArgument, "{word}: {refused:?}");
        assert!(refused.message().contains(word), "{word}: {}", refused.message());
    }
    assert_eq!(size(&daemon).await, before, "nothing of it was logged");

    // The same requests without their faults are accepted: the refusals above are not for another reason.
    let signed = client.sign(sign(vec![subject("r.test/a:v1", &good)])).await.unwrap().into_inner();
    let root = TrustedRoot::parse(&std::fs::read_to_string(daemon.trusted_root()).unwrap()).unwrap();
    let verified = verify::verify(&signed.bundles[0].bundle, &Digest::of(b"a"), &root).unwrap();
    assert_eq!(verified.statement().predicate_type(), predicate::SIGN);
    client.attest(attest("https://example.test/x/v1", "{}")).await.unwrap();
    assert_eq!(size(&daemon).await, before + 2);
}

/// One bad statement in a batch, and none of it is signed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_is_signed_whole_or_not_at_all() {
    let mut daemon = Daemon::init(None, "");
    daemon.start();
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    let before = size(&daemon).await;
    let good = attest("https://example.test/x/v1", "{}");
    let requests = vec![good.clone(), attest("no uri", "{}")];
    assert!(client.attest_batch(v1::AttestBatchRequest { requests }).await.is_err());
    assert_eq!(size(&daemon).await, before);
    let requests = vec![good.clone(), attest("https://example.test/y/v1", "{}")];
    let bundles = client.attest_batch(v1::AttestBatchRequest { requests }).await.unwrap().into_inner().bundles;
    assert_eq!(bundles.len(), 2);
    assert_eq!(size(&daemon).await, before + 2);
}
