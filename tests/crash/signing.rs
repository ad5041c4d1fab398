//! `kill -9` in the middle of signing: whatever was acknowledged is there and proves; nothing half.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use countersign::{
    grpc::v1::{self, signing_service_client::SigningServiceClient},
    model::{Digest, TrustedRoot, verify},
};

use crate::daemon::{self, Daemon};

const CALLERS: usize = 16;
const SIGNINGS: usize = 1_000;
const KILLS: usize = 10;

type Ledger = Arc<Mutex<Vec<(Digest, u64, Vec<u8>)>>>;

fn request(digest: &Digest) -> v1::SignRequest {
    v1::SignRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: digest.to_string() }],
        kind: v1::ArtifactKind::Image.into(),
        ..v1::SignRequest::default()
    }
}

/// Signs until the service is killed; every acknowledgement goes into the ledger.
async fn call_until_killed(daemon: &Daemon, ledger: &Ledger, next: &AtomicUsize, stop: &AtomicBool) {
    while !stop.load(Ordering::SeqCst) {
        if let Ok(channel) = daemon.try_channel("builder").await {
            call(SigningServiceClient::new(channel), ledger, next, stop).await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Signs over one connection until it fails.
async fn call(
    mut client: SigningServiceClient<tonic::transport::Channel>,
    ledger: &Ledger,
    next: &AtomicUsize,
    stop: &AtomicBool,
) {
    while !stop.load(Ordering::SeqCst) {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let digest = Digest::of(&number.to_be_bytes());
        let Ok(answer) = client.sign(request(&digest)).await else { return };
        let signed = answer.into_inner().bundles.pop().expect("one bundle for one subject");
        let index = signed.entry.expect("an entry").index;
        ledger.lock().unwrap().push((digest, index, signed.bundle.to_vec()));
    }
}

/// Done when: 1,000 signings from 16 callers, ten kills at random moments, no acknowledged bundle missing or invalid.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_bundles_survive_kill_nine() {
    let mut daemon = Daemon::init(None, "");
    let ledger = Ledger::default();
    let next = AtomicUsize::new(0);
    let mut rounds = 0;
    while rounds < KILLS || ledger.lock().unwrap().len() < SIGNINGS {
        daemon.start();
        let stop = AtomicBool::new(false);
        let before = ledger.lock().unwrap().len();
        let wanted = before + 20 + usize::from(Digest::of(&rounds.to_be_bytes()).as_bytes()[0]);
        let pid = daemon.pid();
        let killer = async {
            // The moment of the kill is wherever the callers are when this many answers have come.
            let deadline = Instant::now() + daemon::PATIENCE;
            while ledger.lock().unwrap().len() < wanted {
                assert!(Instant::now() < deadline, "the callers do not get on: {}", daemon.log());
                tokio::task::yield_now().await;
                tokio::time::sleep(Duration::from_micros(300)).await;
            }
            daemon::kill_nine(pid);
            stop.store(true, Ordering::SeqCst);
        };
        let callers =
            futures_util::future::join_all((0..CALLERS).map(|_| call_until_killed(&daemon, &ledger, &next, &stop)));
        tokio::join!(killer, callers);
        daemon.kill();
        rounds += 1;
    }
    let fsck = daemon::run(&["log", "fsck", "--data", daemon.data().to_str().unwrap()]);
    assert!(fsck.status.success(), "{}", daemon::text(&fsck));

    daemon.start();
    let root = TrustedRoot::parse(&std::fs::read_to_string(daemon.trusted_root()).unwrap()).unwrap();
    let mut log = v1::log_service_client::LogServiceClient::new(daemon.channel("builder").await);
    let ledger = std::mem::take(&mut *ledger.lock().unwrap());
    println!("{rounds} kills, {} acknowledged bundles", ledger.len());
    assert!(rounds >= KILLS && ledger.len() >= SIGNINGS);
    for (digest, index, bundle) in ledger {
        let verified = verify::verify(&bundle, &digest, &root).unwrap();
        assert_eq!(verified.log().unwrap().index, index);
        let logged = log.get_entry(v1::GetEntryRequest { index, ..Default::default() }).await.unwrap().into_inner();
        let parsed = verify::parse_bundle(&bundle).unwrap();
        let body = parsed.verification_material.tlog_entries[0].canonicalized_body.as_bytes().to_vec();
        assert_eq!(logged.entry.unwrap().leaf, body, "entry {index} is what was acknowledged");
    }
}
