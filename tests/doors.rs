//! The three doors together, as their users meet them: the real binary, real TLS, the registry that Debian ships.

use std::process::Output;

use countersign::model::Digest;
use serde_json::{Value, json};

use crate::{
    daemon::{Daemon, HOST, text},
    fake_registry::DockerRegistry,
};

const POLICY: &str = r#"
apiVersion: countersign.dev/v1
noMatch: deny
policies:
  - name: production
    match:
      images: ["**"]
    require:
      signers:
        anyOf:
          - name: builder
            issuer: https://countersign.test/clients
            subject: spiffe://countersign.test/builder
"#;

struct House {
    daemon: Daemon,
    registry: DockerRegistry,
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap_or(-1)
}

impl House {
    async fn build() -> Option<Self> {
        let Some(registry) = DockerRegistry::start().await else {
            assert!(std::env::var_os("CI_REQUIRE_REGISTRY").is_none(), "docker-registry is not installed");
            return None;
        };
        let extra = format!("[registry]\nplain_http = [{:?}]\nattempts = 2\n", registry.host());
        let mut daemon = Daemon::init(Some(POLICY), &extra);
        daemon.start();
        Some(Self { daemon, registry })
    }

    fn image(&self, tag: &str, digest: Option<&Digest>) -> String {
        let digest = digest.map_or(String::new(), |digest| format!("@{digest}"));
        format!("{}/shop/app:{tag}{digest}", self.registry.host())
    }

    fn sign(&self, who: &str, tag: &str, digest: &Digest) {
        let output = self.daemon.cli(who, &["sign", "--attach", &self.image(tag, Some(digest))]);
        assert_eq!(code(&output), 0, "sign: {}", text(&output));
    }

    fn admit(&self, image: &str) -> Output {
        let manifest = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "shop", "namespace": "production"},
            "spec": {"containers": [{"name": "app", "image": image}]}});
        let path = self.daemon.path().join("pod.json");
        std::fs::write(&path, manifest.to_string()).unwrap();
        self.daemon.cli("builder", &["admit", "-f", path.to_str().unwrap()])
    }

    #[track_caller]
    fn assert_admit(&self, image: &str, exit: i32, word: &str) {
        let output = self.admit(image);
        assert_eq!(code(&output), exit, "admit {image}: {}", text(&output));
        assert!(text(&output).contains(word), "{word} in: {}", text(&output));
    }

    /// Attests a fresh scan without findings.
    fn scan(&self, tag: &str, digest: &Digest) {
        let now = jiff::Timestamp::now();
        let scan = json!({
            "scanner": {"uri": "https://scanner.test", "version": "1", "result": [],
                "db": {"uri": "https://db.test", "version": "1", "lastUpdate": now}},
            "metadata": {"scanStartedOn": now, "scanFinishedOn": now}});
        let path = self.daemon.path().join("scan.json");
        std::fs::write(&path, scan.to_string()).unwrap();
        let image = self.image(tag, Some(digest));
        let attest = ["attest", "--type", "vuln", "--predicate", path.to_str().unwrap(), &image];
        let output = self.daemon.cli("builder", &attest);
        assert_eq!(code(&output), 0, "attest: {}", text(&output));
    }

    fn deployed(&self, tag: &str, digest: &Digest, healthy: bool) {
        let image = self.image(tag, Some(digest));
        let record = [
            "deployment",
            "record",
            "--service",
            "shop",
            "--environment",
            "production",
            "--image",
            &image,
            "--status",
            "live",
            "--namespace",
            "production",
            "--workload",
            "deployment/shop",
            "--container",
            "app",
        ];
        let output = self.daemon.cli("builder", &record);
        assert_eq!(code(&output), 0, "deployment: {}", text(&output));
        let flag = if healthy { "--healthy" } else { "--unhealthy" };
        let digest = digest.to_string();
        let report =
            ["health", "report", "--service", "shop", "--environment", "production", "--digest", &digest, flag];
        let output = self.daemon.cli("builder", &report);
        assert_eq!(code(&output), 0, "health: {}", text(&output));
    }

    #[track_caller]
    fn assert_rollback(&self, exit: i32, verdict: &str, word: &str) -> Value {
        let output = self.daemon.cli("builder", &["rollback", "check", "shop@production", "--fresh", "-o", "json"]);
        assert_eq!(code(&output), exit, "rollback: {}", text(&output));
        let readiness: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(readiness["verdict"], verdict, "{readiness:#}");
        assert!(readiness.to_string().contains(word), "{word} in {readiness:#}");
        readiness
    }
}

/// Signed is admitted by digest and by tag; unsigned, signed by another, and a moved tag are each denied for their own
/// reason; with the registry stopped, the signed digest is still admitted from the log.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gate_admits_what_was_signed_and_says_why_not() {
    let Some(mut house) = House::build().await else { return };
    let signed = house.registry.push_image("shop/app", "v1", &[b"one"]).await;
    let unsigned = house.registry.push_image("shop/app", "dev", &[b"two"]).await;
    house.registry.push_image("shop/app", "stranger", &[b"three"]).await;
    house.sign("builder", "v1", &signed);

    house.assert_admit(&house.image("v1", Some(&signed)), 0, &signed.to_string());
    house.assert_admit(&house.image("v1", None), 0, &signed.to_string());
    house.assert_admit(&house.image("dev", None), 1, "SIGNATURE_MISSING");
    let stranger = house.registry.push_image("shop/app", "stranger", &[b"three"]).await;
    house.sign("other", "stranger", &stranger);
    house.assert_admit(&house.image("stranger", None), 1, "IDENTITY_NOT_ALLOWED");
    let moved = house.registry.push_image("shop/app", "v1", &[b"four"]).await;
    assert_ne!(moved, signed);
    house.assert_admit(&house.image("v1", None), 1, "TAG_MOVED");
    house.assert_admit(&house.image("gone", None), 1, "IMAGE_NOT_FOUND");

    house.registry.stop();
    house.assert_admit(&house.image("v1", Some(&signed)), 0, &signed.to_string());
    house.assert_admit(&house.image("v1", None), 2, "REGISTRY_UNAVAILABLE");
    // Known to nobody, and the registry might know: could not tell, not a no.
    let unseen = Digest::of(b"nobody looked at it before");
    assert_ne!(unseen, unsigned);
    house.assert_admit(&house.image("dev", Some(&unseen)), 2, "REGISTRY_UNAVAILABLE");
}

/// SAFE for a healthy earlier revision, UNSAFE when a layer is gone or it was revoked, UNKNOWN when the registry is down.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rollback_question_has_three_answers() {
    let Some(house) = House::build().await else { return };
    let layer = b"the layer of v1".as_slice();
    let v1 = house.registry.push_image("shop/app", "v1", &[layer]).await;
    let v2 = house.registry.push_image("shop/app", "v2", &[b"the layer of v2"]).await;
    for (tag, digest, healthy) in [("v1", &v1, true), ("v2", &v2, false)] {
        house.sign("builder", tag, digest);
        house.scan(tag, digest);
        house.deployed(tag, digest, healthy);
    }
    let safe = house.assert_rollback(0, "SAFE", &v1.to_string());
    assert!(safe["command"].as_str().is_some_and(|command| command.contains(&v1.to_string())), "{safe:#}");

    house.registry.delete_blob("shop/app", &layer_digest(&house, &v1).await).await;
    house.assert_rollback(1, "UNSAFE", "BLOB_MISSING");
    house.registry.push_image("shop/app", "v1", &[layer]).await;
    house.assert_rollback(0, "SAFE", &v1.to_string());

    let v1_text = v1.to_string();
    let revoked = house.daemon.cli("builder", &["revoke", "artifact", &v1_text, "--reason", "leaks"]);
    assert_eq!(code(&revoked), 0, "{}", text(&revoked));
    let no = house.assert_rollback(1, "UNSAFE", "ARTIFACT_REVOKED");
    assert!(no["command"].as_str().unwrap_or_default().is_empty(), "no command unless it is safe: {no:#}");
    house.assert_admit(&house.image("v1", Some(&v1)), 1, "ARTIFACT_REVOKED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_registry_is_unknown_not_unsafe() {
    let Some(mut house) = House::build().await else { return };
    let v1 = house.registry.push_image("shop/app", "v1", &[b"one"]).await;
    let v2 = house.registry.push_image("shop/app", "v2", &[b"two"]).await;
    for (tag, digest) in [("v1", &v1), ("v2", &v2)] {
        house.sign("builder", tag, digest);
        house.deployed(tag, digest, true);
    }
    house.registry.stop();
    house.assert_rollback(2, "UNKNOWN", "REGISTRY_UNAVAILABLE");
}

/// Nobody without an identity gets in, and the refusal says what is missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_role_no_entry() {
    let mut daemon = Daemon::init(None, "");
    daemon.issue("nobody");
    let config = std::fs::read_to_string(daemon.config()).unwrap();
    std::fs::write(daemon.config(), config.replace("spiffe://countersign.test/*", "spiffe://countersign.test/builder"))
        .unwrap();
    daemon.start();
    let digest = Digest::of(b"x").to_string();
    let refused = daemon.cli("nobody", &["sign", &digest]);
    assert_eq!(code(&refused), 1, "{}", text(&refused));
    assert!(text(&refused).contains("role"), "{}", text(&refused));
    assert!(text(&refused).contains(HOST), "the identity is named: {}", text(&refused));
    assert_eq!(code(&daemon.cli("builder", &["sign", &digest])), 0);
    assert!(daemon.stop().unwrap().success(), "SIGTERM drains: {}", daemon.log());
}

async fn layer_digest(house: &House, manifest: &Digest) -> Digest {
    let url = format!("http://{}/v2/shop/app/manifests/{manifest}", house.registry.host());
    let accept = "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json";
    let answer = reqwest::Client::new().get(url).header("accept", accept).send().await.unwrap();
    let manifest: Value = answer.json().await.unwrap();
    manifest["layers"][0]["digest"].as_str().unwrap().parse().unwrap()
}
