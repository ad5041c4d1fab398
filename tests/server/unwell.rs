//! A service that should not be asked: its disk is full, its keys have expired. Everyone who asks how it is hears so.

use std::sync::atomic::{AtomicI64, Ordering};

use countersign::{
    config::Config, grpc::v1::signing_service_client::SigningServiceClient, model::Digest, server::Server,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tonic::{Code, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_types::StatusExt as _;

use super::{NOWHERE, POLICY, Service, image, pod, review, signing};
use crate::daemon::{Daemon, http_get};

async fn health(channel: Channel, service: &str) -> Result<ServingStatus, Code> {
    let mut client = HealthClient::new(channel);
    let answer = client.check(HealthCheckRequest { service: service.to_owned() }).await;
    answer.map(|answer| answer.into_inner().status()).map_err(|status| status.code())
}

/// A log that cannot write: nothing is signed, nobody is sent here, and the glass still breaks, loudly.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_fails_readiness_and_health_but_locks_nobody_out() {
    let service = Service::new(POLICY, "[admission.break_glass]\nusers = ['alice']\n[registry]\nattempts = 1\n");
    let channel = service.house.channel("builder").await;
    for name in ["", "countersign.v1.SigningService", "countersign.v1.AdmissionService"] {
        assert_eq!(health(channel.clone(), name).await, Ok(ServingStatus::Serving), "{name:?}");
    }
    assert_eq!(health(channel.clone(), "countersign.v1.NoSuchService").await, Err(Code::NotFound));
    let signed = Digest::of(b"signed before");
    service.sign(&signed).await;

    service.fill_disk();
    let mut client = SigningServiceClient::new(channel.clone());
    client.sign(signing(&Digest::of(b"x"))).await.expect_err("a signing that cannot be written");
    let refused = client.sign(signing(&Digest::of(b"y"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "LOG_READ_ONLY");
    let ready = service.ready();
    assert!(ready.starts_with("HTTP/1.1 503") && ready.contains("log: log is broken"), "{ready}");
    for name in ["", "countersign.v1.SigningService"] {
        assert_eq!(health(channel.clone(), name).await, Ok(ServingStatus::NotServing), "{name:?}");
    }
    assert!((service.metric("countersign_log_broken") - 1.0).abs() < 0.1);

    // What is in the log still admits; the glass still breaks, and everyone hears that the log does not have it.
    let api = service.api_server();
    assert_eq!(api.ask("/validate", &review(pod(&image(NOWHERE, &signed)))).await["allowed"], true);
    let unsigned = image(NOWHERE, &Digest::of(b"never signed"));
    assert_eq!(api.ask("/validate", &review(pod(&unsigned))).await["allowed"], false);
    let mut object = pod(&unsigned);
    object["metadata"]["annotations"] = json!({"countersign.dev/break-glass": "the disk is full"});
    let admitted = api.ask("/validate", &review(object)).await;
    assert_eq!(admitted["allowed"], true, "{admitted}");
    assert!(admitted["warnings"].to_string().contains("NOT in the log"), "{admitted}");
    assert!(admitted["auditAnnotations"]["break-glass-entry"].as_str().unwrap().starts_with("none: "), "{admitted}");
    let lines = service.audit("break-glass", 2);
    let levels: Vec<_> = lines.iter().map(|line| line["level"].as_str().unwrap()).collect();
    assert_eq!(levels, ["WARN", "ERROR"], "{lines:?}");
    assert_eq!(lines[0]["reason"], "the disk is full");
    assert!((service.metric("countersign_break_glass_total{event=\"not-recorded\"}") - 1.0).abs() < 0.1);
}

/// How far the clock of this test is ahead, in seconds.
static AHEAD: AtomicI64 = AtomicI64::new(0);

fn clock() -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(AHEAD.load(Ordering::SeqCst))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn expired_keys_fail_readiness_and_health() {
    let house = Daemon::init(Some(POLICY), "");
    let config = Config::load(Some(&house.config()), None, []).unwrap();
    let running = Server::start(config, clock).await.unwrap();
    let channel = house.channel("builder").await;
    let ready = || http_get(running.operations_addr.port(), "/readyz").unwrap();
    assert_eq!(health(channel.clone(), "").await, Ok(ServingStatus::Serving));
    assert!(tokio::task::block_in_place(ready).starts_with("HTTP/1.1 200"));
    AHEAD.store(100 * 365 * 24 * 3_600, Ordering::SeqCst);
    assert_eq!(health(channel, "").await, Ok(ServingStatus::NotServing));
    let answer = tokio::task::block_in_place(ready);
    assert!(
        answer.starts_with("HTTP/1.1 503") && answer.contains("keys: ") && answer.contains("expired at"),
        "{answer}"
    );
    running.shutdown().await;
}
