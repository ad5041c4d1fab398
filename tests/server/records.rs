//! What a decision leaves behind: the log, the audit lines, the metrics.

use countersign::model::{Digest, predicate};
use serde_json::json;

use super::{NOWHERE, POLICY, Service, image, pod, review};

const GLASS: &str = "[admission.break_glass]\nusers = ['alice']\n[registry]\nattempts = 1\n";

fn annotated(image: &str, reason: &str) -> serde_json::Value {
    let mut object = pod(image);
    object["metadata"]["annotations"] = json!({"countersign.dev/break-glass": reason});
    object
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_glass_is_in_the_log_before_the_object_is_admitted() {
    let service = Service::new(POLICY, GLASS);
    let api = service.api_server();
    let digest = Digest::of(b"never signed");
    let refused = api.ask("/validate", &review(pod(&image(NOWHERE, &digest)))).await;
    assert_eq!(refused["allowed"], false, "{refused}");
    // Mutating, the object is not final yet; a dry run is none.
    let mut dry = review(annotated(&image(NOWHERE, &digest), "incident 7"));
    assert_eq!(api.ask("/mutate?timeout=5s", &dry).await["allowed"], true);
    dry["request"]["dryRun"] = true.into();
    assert_eq!(api.ask("/validate?timeout=5s", &dry).await["allowed"], true);
    assert_eq!(service.logged(predicate::BREAK_GLASS).await, []);

    let admitted = api.ask("/validate", &review(annotated(&image(NOWHERE, &digest), "incident 7"))).await;
    assert_eq!(admitted["allowed"], true, "{admitted}");
    // It is there when the answer is: nothing is waited for here.
    let logged = service.logged(predicate::BREAK_GLASS).await;
    let [statement] = logged.as_slice() else { panic!("{logged:?}") };
    assert!(statement.names(&digest));
    let said = statement.predicate();
    assert_eq!(
        (&said["user"], &said["reason"], &said["namespace"]),
        (&json!("alice"), &json!("incident 7"), &json!("production"))
    );
    assert!(said["expires"].as_str().is_some_and(|at| at.parse::<jiff::Timestamp>().is_ok()), "{said}");
    let annotations = &admitted["auditAnnotations"];
    assert!(annotations["break-glass-entry"].as_str().unwrap().starts_with("countersign.test#"), "{annotations}");
    let told = admitted["warnings"][0].as_str().unwrap();
    assert!(told.contains("BREAK-GLASS by alice: incident 7"), "{told}");
    let lines = service.audit("break-glass", 2);
    assert_eq!(
        (lines[0]["reason"].as_str(), lines[0]["level"].as_str()),
        (Some("incident 7"), Some("WARN")),
        "{lines:?}"
    );
    assert!((service.metric("countersign_break_glass_total{event=\"recorded\"}") - 1.0).abs() < 0.1);
    // Nobody can forge such a record through the build door.
    let path = service.house.path().join("forged.json");
    std::fs::write(&path, said.to_string()).unwrap();
    let arguments =
        ["attest", "--type", predicate::BREAK_GLASS, "--predicate", path.to_str().unwrap(), &digest.to_string()];
    let forged = service.house.cli("builder", &arguments);
    assert_eq!(forged.status.code(), Some(1), "{}", crate::daemon::text(&forged));
    assert_eq!(service.logged(predicate::BREAK_GLASS).await.len(), 1);
}

/// Once for a digest and the policies, also across a restart; another digest gets its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_admission_of_a_digest_is_summarised_in_the_log() {
    let mut service = Service::new(POLICY, GLASS);
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    for digest in [&one, &two] {
        service.sign(digest).await;
    }
    let admit = async |service: &Service, digest: &Digest| {
        let answer = service.api_server().ask("/validate", &review(pod(&image(NOWHERE, digest)))).await;
        assert_eq!(answer["allowed"], true, "{answer}");
    };
    for _ in 0..3 {
        admit(&service, &one).await;
    }
    service.restart();
    admit(&service, &one).await;
    admit(&service, &two).await;
    service.restart();
    let summaries = service.logged(predicate::VSA).await;
    let about: Vec<bool> = summaries.iter().map(|summary| summary.names(&one)).collect();
    assert_eq!(about, [true, false], "{summaries:?}");
    let said = summaries[0].predicate();
    assert_eq!(
        (&said["verificationResult"], &said["verifier"]["id"]),
        (&json!("PASSED"), &json!("https://countersign.test"))
    );
    assert_eq!(said["inputAttestations"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["policy"]["digest"]["sha256"], json!(Digest::of(POLICY.as_bytes()).hex()));
    assert!(said["inputAttestations"][0]["uri"].as_str().unwrap().starts_with("log:countersign.test#"));
}

/// What [`POLICY`] asks, and what another will ask soon.
const AUDITED: &str = r#"
apiVersion: countersign.dev/v1
identities:
  - {name: builder, issuer: "https://countersign.test/clients", subject: "spiffe://countersign.test/builder"}
policies:
  - name: production
    match: {images: ["**"]}
    require:
      signers: {anyOf: [{name: builder}]}
  - name: soon
    mode: audit
    match: {images: ["**"]}
    require:
      predicates: [{signers: [builder], sbom: {formats: [spdx]}}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_decision_is_one_audit_line_with_what_audit_mode_objects_to() {
    let service = Service::new(AUDITED, GLASS);
    let digest = Digest::of(b"one");
    service.sign(&digest).await;
    let api = service.api_server();
    let image = image(NOWHERE, &digest);
    assert_eq!(api.ask("/validate", &review(pod(&image))).await["allowed"], true);
    let lines = service.audit("admission", 1);
    let [line] = lines.as_slice() else { panic!("one line a decision: {lines:?}") };
    let audited = line["audited"].as_str().unwrap_or_default();
    assert!(audited.contains(&image) && audited.contains("PREDICATE_MISSING"), "{line}");
    assert_eq!((&line["allowed"], &line["decision"], &line["user"]), (&json!(true), &json!("allow"), &json!("alice")));
    let unread = api.http.post(format!("{}/validate", api.base)).header("content-type", "application/json").body("{");
    assert_eq!(unread.send().await.unwrap().status(), 400);
    assert_eq!(service.audit("admission", 2).len(), 2, "what could not be read has a line as well");
}

/// Every number of a dashboard, after a day in half a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_metrics_of_the_running_service_count_what_happened() {
    let fake = crate::fake_registry::FakeRegistry::start().await;
    let pushed = fake.push_image("shop/app", "v1", &[b"layer"]);
    let extra = format!("[registry]\nattempts = 1\nplain_http = [{:?}]\n", fake.host());
    let mut service = Service::new(POLICY, &extra);
    let signed = Digest::of(b"signed");
    service.sign(&signed).await;
    let api = service.api_server();
    for _ in 0..2 {
        api.ask("/validate", &review(pod(&image(NOWHERE, &signed)))).await;
    }
    for _ in 0..2 {
        api.ask("/validate", &review(pod(&image(&fake.host(), &pushed)))).await;
    }
    api.ask("/validate", &review(pod(&image(NOWHERE, &pushed)))).await;
    let mut deletion = review(pod(&image(NOWHERE, &pushed)));
    deletion["request"]["operation"] = "DELETE".into();
    api.ask("/validate", &deletion).await;
    let pinned = image(&fake.host(), &pushed);
    let verified = service.house.cli("builder", &["verify", &pinned]);
    assert_eq!(verified.status.code(), Some(1), "{}", crate::daemon::text(&verified));
    let checked = service.house.cli("builder", &["rollback", "check", "shop@production"]);
    assert_ne!(checked.status.code(), Some(0), "{}", crate::daemon::text(&checked));
    service.wait_until("all is recorded", |service| {
        let recorded =
            |what| service.metric(&format!("countersign_records_total{{what=\"{what}\",outcome=\"recorded\"}}"));
        recorded("summary") > 0.5 && recorded("deployment") > 1.5
    });

    let host = fake.host();
    let expected: Vec<(String, f64)> = [
        (r#"decisions_total{door="cluster",decision="allow",reason="SATISFIED",effect="admit"}"#, 2.0),
        (r#"decisions_total{door="cluster",decision="deny",reason="SIGNATURE_MISSING",effect="refuse"}"#, 2.0),
        (r#"decisions_total{door="cluster",decision="unknown",reason="REGISTRY_UNAVAILABLE",effect="refuse"}"#, 1.0),
        (r#"decisions_total{door="cluster",decision="allow",reason="operation",effect="admit"}"#, 1.0),
        (r#"decisions_total{door="verify",decision="deny",reason="SIGNATURE_MISSING",effect="answer"}"#, 1.0),
        (r#"decision_seconds_count{door="cluster"}"#, 6.0),
        (r#"decision_seconds_count{door="operator"}"#, 1.0),
        (r#"registry_requests_total{host="127.0.0.1:1",code="0"}"#, 1.0),
        (r#"records_total{what="summary",outcome="recorded"}"#, 1.0),
        (r#"records_total{what="deployment",outcome="recorded"}"#, 2.0),
        (r#"request_seconds_count{door="webhook",method="/validate",outcome="ok"}"#, 6.0),
    ]
    .map(|(series, count)| (format!("countersign_{series}"), count))
    .to_vec();
    for (series, count) in expected {
        let found = service.metric(&series);
        assert!((found - count).abs() < 0.1, "{series} is {found}, not {count}, in\n{}", service.metrics());
    }
    let page = service.metrics();
    let at_least = [
        (format!("countersign_registry_requests_total{{host=\"{host}\",code=\"200\"}}"), 1.0),
        ("countersign_evidence_lookups_total{what=\"entry\",outcome=\"hit\"}".to_owned(), 1.0),
        ("countersign_evidence_lookups_total{what=\"entry\",outcome=\"miss\"}".to_owned(), 1.0),
        ("countersign_evidence_lookups_total{what=\"listing\",outcome=\"hit\"}".to_owned(), 1.0),
        ("countersign_evidence_lookups_total{what=\"listing\",outcome=\"miss\"}".to_owned(), 1.0),
    ];
    for (series, least) in at_least {
        assert!(service.metric(&series) >= least, "{series} in\n{page}");
    }
    let operator = page.lines().filter(|line| line.starts_with("countersign_decisions_total{door=\"operator\""));
    assert_eq!(operator.count(), 1, "{page}");
}
