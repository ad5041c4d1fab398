//! One caller cannot take all there is.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use countersign::{
    grpc::v1::{self, signing_service_client::SigningServiceClient},
    model::Digest,
    sigstore::limits::{Allowance, Limiter, address},
};
use serde_json::json;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::House;

#[test]
fn a_caller_has_a_burst_and_then_its_rate() {
    let limiter = Limiter::new(Allowance { per_second: 10, burst: 5 });
    let start = Instant::now();
    for _ in 0..5 {
        limiter.take("one", start).unwrap();
    }
    assert_eq!(limiter.take("one", start), Err(Duration::from_millis(100)), "the burst is used up");
    limiter.take("other", start).unwrap();
    assert_eq!(limiter.take("one", start + Duration::from_millis(99)), Err(Duration::from_millis(1)));
    limiter.take("one", start + Duration::from_millis(100)).unwrap();
    limiter.take("one", start + Duration::from_millis(100)).expect_err("one request each tenth of a second");
    // In the long run exactly the rate is let through, however often somebody asks; refusals cost nothing.
    let mut taken = 0;
    for millisecond in 0..10_000 {
        let now = start + Duration::from_mins(1) + Duration::from_millis(millisecond);
        taken += u32::from(limiter.take("one", now).is_ok());
    }
    assert_eq!(taken, 5 + 99, "a burst and ten a second");
    let later = start + Duration::from_mins(2);
    limiter.take_all("many", 4, later).unwrap();
    assert_eq!(limiter.take_all("many", 2, later), Err(Duration::from_millis(100)), "all or none");
    limiter.take("many", later).unwrap();
    limiter.take_all("more than a burst", 1_000, later).unwrap();
    limiter.take("more than a burst", later).expect_err("it counts as a burst");
    let unlimited = Limiter::new(Allowance { per_second: 0, burst: 0 });
    assert!((0..10_000).all(|_| unlimited.take("one", start).is_ok()));
}

#[test]
fn callers_are_told_apart_by_address_and_by_network() {
    let of = |text: &str| address(text.parse::<IpAddr>().unwrap());
    assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"), "IPv4 in IPv6");
    assert_eq!(of("2001:db8:1:2:3::4"), of("2001:db8:1:2::5"), "one network");
    assert_ne!(of("2001:db8:1:2::5"), of("2001:db8:1:3::5"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_too_often_is_told_when_to_come_again() {
    let house =
        House::new("[sigstore]\nentries = { per_second = 1, burst = 2 }\ntimestamps = { per_second = 1, burst = 1 }\n");
    let ask = async || house.post("/api/v2/log/entries", "application/json", "{}").await;
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(ask().await);
    }
    let refused = answers.into_iter().find(|answer| answer.status() == 429).expect("a fourth in a second");
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: serde_json::Value = refused.json().await.unwrap();
    assert_eq!((&body["code"], &body["details"][0]["reason"]), (&json!(8), &json!("TOO_MANY_REQUESTS")));
    let stamp = async || house.post("/api/v1/timestamp", "application/timestamp-query", "").await.status();
    let statuses = [stamp().await, stamp().await, stamp().await];
    assert!(statuses.contains(&reqwest::StatusCode::TOO_MANY_REQUESTS), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_identity_has_so_many_signatures_and_no_other_identity_pays_for_it() {
    let house = House::new("[limits]\nsignatures = { per_second = 1, burst = 4 }\n");
    let request = |files: usize| v1::SignRequest {
        subjects: (0..files)
            .map(|file| v1::Subject {
                name: format!("file-{file}"),
                digest: Digest::of(&file.to_be_bytes()).to_string(),
            })
            .collect(),
        kind: v1::ArtifactKind::File.into(),
        ..v1::SignRequest::default()
    };
    let mut greedy = SigningServiceClient::new(house.daemon.channel("builder").await);
    greedy.sign(request(3)).await.unwrap();
    let before = house.size().await;
    let refused = greedy.sign(request(3)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "TOO_MANY_REQUESTS");
    let wait = refused.get_details_retry_info().unwrap().retry_delay.unwrap();
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(2), "{wait:?}");
    assert_eq!(house.size().await, before, "nothing of it was signed");
    let mut modest = SigningServiceClient::new(house.daemon.channel("other").await);
    modest.sign(request(1)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_faces_can_be_switched_off() {
    let house = House::new("[sigstore]\nenabled = false\n");
    for path in ["/api/v2/log/entries", "/api/v1/timestamp"] {
        assert_eq!(house.post(path, "application/json", "{}").await.status(), 404, "{path}");
    }
    assert_eq!(house.http.get(house.url("/api/v2/checkpoint")).send().await.unwrap().status(), 200);
}
