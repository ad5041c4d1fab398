//! SIGTERM under load: whoever was answered is in the log, whoever was being answered gets the answer.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use countersign::{
    grpc::v1::{self, log_service_client::LogServiceClient, signing_service_client::SigningServiceClient},
    model::Digest,
};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};

use super::{POLICY, Service, image, pod, review, signing};
use crate::fake_registry::{FakeRegistry, Knob};

const CALLERS: usize = 16;

/// What was acknowledged: digest and index.
type Ledger = Arc<Mutex<Vec<(Digest, u64)>>>;

/// Signs until a call fails; says whether that was before the service was told to stop.
async fn sign_until_refused(
    mut client: SigningServiceClient<tonic::transport::Channel>,
    caller: usize,
    ledger: Ledger,
    told: Arc<AtomicBool>,
) -> Result<(), String> {
    for number in 0_usize.. {
        let digest = Digest::of(format!("{caller}-{number}").as_bytes());
        match client.sign(signing(&digest)).await {
            Ok(answer) => {
                let index = answer.into_inner().bundles[0].entry.clone().unwrap().index;
                ledger.lock().unwrap().push((digest, index));
            }
            Err(_) if told.load(Ordering::SeqCst) => return Ok(()),
            Err(status) => return Err(format!("refused before anybody stopped the service: {status:?}")),
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_under_load_loses_no_answered_request() {
    let fake = FakeRegistry::start().await;
    let pushed = fake.push_image("shop/app", "v1", &[b"layer"]);
    fake.set(Knob::Latency(Duration::from_secs(1)));
    let mut service = Service::new(POLICY, &format!("[registry]\nplain_http = [{:?}]\n", fake.host()));
    let (ledger, told) = (Ledger::default(), Arc::new(AtomicBool::new(false)));
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let client = SigningServiceClient::new(service.house.channel("builder").await);
        callers.spawn(sign_until_refused(client, caller, Arc::clone(&ledger), Arc::clone(&told)));
    }
    let until = Instant::now() + Duration::from_secs(20);
    while ledger.lock().unwrap().len() < 200 {
        assert!(Instant::now() < until, "{} signings", ledger.lock().unwrap().len());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // One question that is being answered when the signal comes: its registry takes its time.
    let (api, question) = (service.api_server(), review(pod(&image(&fake.host(), &pushed))));
    let slow = tokio::spawn(async move { api.ask("/validate?timeout=20s", &question).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!slow.is_finished());
    told.store(true, Ordering::SeqCst);
    service.terminate();
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().unwrap();
    }
    let answered = slow.await.unwrap();
    let message = answered["status"]["message"].as_str().unwrap();
    assert!(message.contains("SIGNATURE_MISSING"), "it was answered as if nothing were: {answered}");
    let (status, output) = service.ended();
    assert!(status.success(), "{output}");
    assert!(output.contains("\"stopped\""), "{output}");

    // All that was acknowledged is there, and nothing that was not: what the service took on it answered. The audit of
    // the whole log finds nothing.
    let data = service.house.data();
    let fsck = crate::daemon::run(&["log", "fsck", "--data", data.to_str().unwrap()]);
    assert!(fsck.status.success(), "{}", crate::daemon::text(&fsck));
    service.house.start();
    let mut log = LogServiceClient::new(service.house.channel("builder").await);
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    let head = log.get_checkpoint(v1::GetCheckpointRequest::default()).await.unwrap().into_inner();
    assert_eq!(head.size, 1 + ledger.len() as u64, "the genesis entry and every answered signing");
    for (digest, index) in ledger {
        let request = v1::GetEntryRequest { index, with_payload: true, ..Default::default() };
        let entry = log.get_entry(request).await.unwrap().into_inner().entry.unwrap();
        let bundle = countersign::model::verify::parse_bundle(&entry.payload).unwrap();
        assert!(countersign::model::verify::unverified_statement(&bundle).unwrap().names(&digest), "entry {index}");
    }
}

/// A client that only watches does not keep the service from stopping, and is told.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_watches_is_told_and_let_go() {
    let mut service = Service::new(POLICY, "");
    let mut health = HealthClient::new(service.house.channel("builder").await);
    let mut watch = health.watch(HealthCheckRequest { service: String::new() }).await.unwrap().into_inner();
    let first = watch.message().await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let began = Instant::now();
    service.terminate();
    let next = watch.message().await.unwrap().unwrap();
    assert_eq!(next.status(), ServingStatus::NotServing);
    assert_eq!(watch.message().await.unwrap(), None, "that was the last");
    let (status, output) = service.ended();
    assert!(status.success(), "{output}");
    assert!(began.elapsed() < Duration::from_secs(10), "the watch held up the drain: {:?}", began.elapsed());
    assert!(!output.contains("were still under way"), "{output}");
    assert!(output.contains("SIGTERM: draining"), "{output}");
}
