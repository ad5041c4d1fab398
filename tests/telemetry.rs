//! Names and labels of metrics, and request ids.

use countersign::telemetry::{HOSTS, Metrics, RequestId, Total};

#[test]
fn clones_count_together_and_the_page_has_every_name() {
    let metrics = Metrics::new();
    let clone = metrics.clone();
    clone.decided("cluster", "deny", "TAG_MOVED", "refuse");
    metrics.decided("cluster", "deny", "TAG_MOVED", "refuse");
    metrics.took("cluster", 0.003);
    metrics.glass("recorded");
    metrics.requested("build", "Sign", "ok", 0.003);
    metrics.refused("CREDENTIALS_EXPIRED");
    metrics.log(7, 3, 2 * 3, 1, true);
    metrics.registries(&[(("registry.example.com".to_owned(), 429), 1)].into(), 2);
    metrics.set(Total::Evidence, "listing", "stand-in", 4);
    metrics.set(Total::Records, "deployment", "left-out", 5);
    metrics.certificate_failures(6);
    metrics.expires("ca/intermediate", jiff::Timestamp::UNIX_EPOCH);
    metrics.cosigned("w1", 9, 0.004);
    metrics.witness_failed("w2", "unreachable");
    metrics.quorum("require", true);
    let page = clone.encode();
    for line in [
        concat!("countersign_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
        "countersign_decisions_total{door=\"cluster\",decision=\"deny\",reason=\"TAG_MOVED\",effect=\"refuse\"} 2",
        "countersign_decision_seconds_count{door=\"cluster\"} 1",
        "countersign_break_glass_total{event=\"recorded\"} 1",
        "countersign_request_seconds_count{door=\"build\",method=\"Sign\",outcome=\"ok\"} 1",
        "countersign_request_seconds_bucket{le=\"0.005\",door=\"build\",method=\"Sign\",outcome=\"ok\"} 1",
        "countersign_refused_callers_total{reason=\"CREDENTIALS_EXPIRED\"} 1",
        "countersign_log_entries 7",
        "countersign_log_commits 3",
        "countersign_log_queue_entries 1",
        "countersign_log_broken 1",
        "countersign_registry_requests_total{host=\"registry.example.com\",code=\"429\"} 1",
        "countersign_registry_breakers 2",
        "countersign_evidence_lookups_total{what=\"listing\",outcome=\"stand-in\"} 4",
        "countersign_records_total{what=\"deployment\",outcome=\"left-out\"} 5",
        "countersign_certificate_reload_failures_total 6",
        "countersign_expiry_timestamp_seconds{what=\"ca/intermediate\"} 0",
        "countersign_witness_entries{witness=\"w1\"} 9",
        "countersign_witness_seconds_count{witness=\"w1\"} 1",
        "countersign_witness_failures_total{witness=\"w2\",reason=\"unreachable\"} 1",
        "countersign_witness_quorum{mode=\"require\"} 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
    }
}

#[test]
fn strangers_cannot_make_the_list_of_registries_grow() {
    let metrics = Metrics::new();
    let asked = |count: u64, hosts: usize| {
        let requests = (0..hosts).map(|n| ((format!("r{n:05}.example"), 200_u16), count)).collect();
        metrics.registries(&requests, 0);
        let page = metrics.encode();
        let lines = page.lines().filter(|line| line.starts_with("countersign_registry_requests_total"));
        (lines.clone().count(), lines.map(str::to_owned).collect::<Vec<_>>())
    };
    assert_eq!(asked(1, 3).0, 3);
    let (series, lines) = asked(2, 5_000);
    assert_eq!(series, HOSTS + 1);
    let others = format!("countersign_registry_requests_total{{host=\"other\",code=\"200\"}} {}", 2 * (5_000 - HOSTS));
    assert!(lines.contains(&others), "{lines:?}");
    let first = "countersign_registry_requests_total{host=\"r00000.example\",code=\"200\"} 2";
    assert!(lines.iter().any(|line| line == first), "{lines:?}");
}

#[test]
fn request_ids_are_taken_over_or_made() {
    assert_eq!(RequestId::from_header(Some("Abc-1.2_3")).as_str(), "Abc-1.2_3");
    for bad in [None, Some(""), Some("a b"), Some("a\nb"), Some("\u{e4}"), Some("x".repeat(65).as_str())] {
        let made = RequestId::from_header(bad);
        assert_eq!(made.as_str().len(), 16, "{bad:?}");
        assert_ne!(made, RequestId::random());
    }
    "x".repeat(64).parse::<RequestId>().unwrap();
}
