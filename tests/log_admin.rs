//! Backup, restore, erasure and succession through the running service and the commands, as an administrator does it.

use std::{fs, path::Path, sync::atomic::Ordering};

use countersign::{
    grpc::v1::{self, signing_service_client::SigningServiceClient},
    model::{Digest, TrustedRoot, verify},
};

use crate::daemon::{self, Daemon, HOST};

const ADMIN: &str = r#"
[[identity.rules]]
issuer = "https://countersign.test/clients"
subject = "spiffe://countersign.test/root"
roles = ["admin"]
"#;

fn service() -> Daemon {
    let mut daemon = Daemon::init(None, ADMIN);
    daemon.issue("root");
    daemon.start();
    daemon
}

fn request(text: &str) -> v1::SignRequest {
    v1::SignRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: Digest::of(text.as_bytes()).to_string() }],
        kind: v1::ArtifactKind::Image.into(),
        ..v1::SignRequest::default()
    }
}

async fn sign(daemon: &Daemon, text: &str) -> (Digest, v1::LogRef, Vec<u8>) {
    let mut client = SigningServiceClient::new(daemon.channel("builder").await);
    let signed = client.sign(request(text)).await.unwrap().into_inner().bundles.remove(0);
    (Digest::of(text.as_bytes()), signed.entry.unwrap(), signed.bundle.to_vec())
}

fn root_of(daemon: &Daemon) -> TrustedRoot {
    let exported = daemon.cli("builder", &["trust", "export"]);
    assert!(exported.status.success(), "{}", daemon::text(&exported));
    TrustedRoot::parse(&String::from_utf8(exported.stdout).unwrap()).unwrap()
}

fn done(output: &std::process::Output) -> String {
    assert!(output.status.success(), "{}", daemon::text(output));
    daemon::text(output)
}

/// `log status`, from standard output alone: a hint about the key goes to standard error.
fn status(daemon: &Daemon) -> serde_json::Value {
    let output = daemon.cli("builder", &["log", "status", "-o", "json"]);
    assert!(output.status.success(), "{}", daemon::text(&output));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_is_sent_audited_and_restored_and_does_not_fork() {
    let mut daemon = service();
    let (digest, entry, bundle) = sign(&daemon, "one").await;
    let backup = daemon.path().join("backup");
    let refused = daemon.cli("builder", &["log", "backup", "--out", path(&daemon.path().join("no"))]);
    assert!(!refused.status.success() && daemon::text(&refused).contains("ROLE_MISSING"), "{}", daemon::text(&refused));
    let said = done(&daemon.cli("root", &["log", "backup", "--out", path(&backup)]));
    assert!(said.contains("2 entries") && said.contains("audited"), "{said}");
    let again = daemon.cli("root", &["log", "backup", "--out", path(&backup)]);
    assert!(daemon::text(&again).contains("cannot make"), "a backup is never written over another");
    let checkpoint = daemon.path().join("checkpoint");
    let status = status(&daemon);
    fs::write(&checkpoint, status["checkpoint"].as_str().unwrap()).unwrap();
    let (later, later_entry, later_bundle) = sign(&daemon, "two").await;
    let lost = daemon.path().join("lost");
    daemon.stop();
    fs::rename(daemon.data().join("log"), &lost).unwrap();

    let data = daemon.data();
    let restore = |arguments: &[&str]| {
        daemon::run(&[&["log", "restore", "--data", path(&data), "--backup", path(&backup)], arguments].concat())
    };
    let how = restore(&[]);
    assert!(!how.status.success() && daemon::text(&how).contains("--nothing-newer-unsafe"), "{}", daemon::text(&how));
    assert!(!data.join("log").exists(), "nothing was done before it was known how");
    let said = done(&restore(&["--from", path(&lost)]));
    assert!(said.contains("3 entries, 1 of them caught up with"), "{said}");
    let over = restore(&["--from", path(&lost)]);
    assert!(daemon::text(&over).contains("exists already"), "{}", daemon::text(&over));
    daemon.start();
    let root = root_of(&daemon);
    for (digest, bundle, entry) in [(digest, bundle, entry), (later, later_bundle, later_entry)] {
        assert_eq!(verify::verify(&bundle, &digest, &root).unwrap().log().unwrap().index, entry.index);
        let found = done(&daemon.cli("builder", &["log", "search", "--digest", &digest.to_string(), "-o", "json"]));
        assert!(found.contains(&format!("{}", entry.index)), "{found}");
    }
    sign(&daemon, "three").await;
    daemon.stop();
    done(&daemon::run(&["log", "fsck", "--data", path(&data)]));

    // A copy of the data directory does not serve, and says what to do; told that nothing is newer, it does.
    fs::rename(data.join("log"), backup.with_extension("moved")).unwrap();
    crate::log::copy(&backup.with_extension("moved"), &data.join("log"));
    let refused = daemon::run(&["serve", "--config", path(&daemon.config())]);
    assert!(daemon::text(&refused).contains("countersign log restore"), "{}", daemon::text(&refused));
    let behind = daemon::run(&["log", "restore", "--data", path(&data), "--checkpoint", path(&checkpoint)]);
    done(&behind);
    daemon.start();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_backup_catches_up_from_a_mirror_of_the_tiles() {
    let daemon = service();
    sign(&daemon, "one").await;
    let backup = daemon.path().join("backup");
    done(&daemon.cli("root", &["log", "backup", "--quick", "--out", path(&backup)]));
    let mut last = None;
    for n in 0..300 {
        last = Some(sign(&daemon, &format!("later {n}")).await);
    }
    // The running service is the mirror; another data directory takes the backup.
    let other = daemon.path().join("other");
    fs::create_dir(&other).unwrap();
    let url = format!("https://localhost:{}", daemon.public);
    let said = done(
        &daemon.cli("root", &["log", "restore", "--data", path(&other), "--backup", path(&backup), "--from", &url]),
    );
    assert!(said.contains("302 entries, 300 of them"), "{said}");
    let audited = done(&daemon::run(&["log", "fsck", "--data", path(&other)]));
    let head = status(&daemon);
    assert!(audited.contains(head["root"].as_str().unwrap()), "{audited}");
    assert_eq!(last.unwrap().1.index, 301);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_is_recorded_with_its_reason_and_leaves_the_proof() {
    let daemon = service();
    let (digest, entry, bundle) = sign(&daemon, "personal").await;
    let index = entry.index.to_string();
    let refused = daemon.cli("builder", &["log", "erase", &index, "--reason", "why not"]);
    assert!(daemon::text(&refused).contains("ROLE_MISSING"));
    let empty = daemon.cli("root", &["log", "erase", &index, "--reason", ""]);
    assert!(daemon::text(&empty).contains("reason"), "{}", daemon::text(&empty));
    let missing = daemon.cli("root", &["log", "erase", "77", "--reason", "a request"]);
    assert!(daemon::text(&missing).contains("no such entry"), "{}", daemon::text(&missing));
    let said = done(&daemon.cli("root", &["log", "erase", &index, "--reason", "request 88"]));
    assert!(said.contains(&format!("{HOST}#2")), "{said}");
    let twice = daemon.cli("root", &["log", "erase", &index, "--reason", "request 88"]);
    assert!(daemon::text(&twice).contains("erased"), "{}", daemon::text(&twice));
    // The bundle that was handed out, and the log's own proof, are as before; the record says who and why.
    verify::verify(&bundle, &digest, &root_of(&daemon)).unwrap();
    let mut log = v1::log_service_client::LogServiceClient::new(daemon.channel("builder").await);
    let answer = log.get_entry(v1::GetEntryRequest { index: entry.index, with_payload: true, ..Default::default() });
    let answer = answer.await.unwrap().into_inner();
    assert!(answer.entry.unwrap().payload.is_empty() && answer.receipt.is_some());
    let answer = log.get_entry(v1::GetEntryRequest { index: 2, with_payload: true, ..Default::default() });
    let record = verify::parse_bundle(&answer.await.unwrap().into_inner().entry.unwrap().payload).unwrap();
    let statement = verify::unverified_statement(&record).unwrap();
    assert_eq!(
        (statement.predicate()["reason"].as_str(), statement.predicate()["index"].as_u64()),
        (Some("request 88"), Some(1))
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_log_takes_over_without_a_pause_and_both_stay_trusted() {
    let mut daemon = service();
    let before = sign(&daemon, "before").await;
    let counter = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut callers = Vec::new();
    for caller in 0..4 {
        let mut client = SigningServiceClient::new(daemon.channel("builder").await);
        let (counter, stop) = (counter.clone(), stop.clone());
        callers.push(tokio::spawn(async move {
            let mut signed = Vec::new();
            while !stop.load(Ordering::SeqCst) {
                let text = format!("{caller}-{}", signed.len());
                // Every call succeeds: there is no pause.
                let answer = client.sign(request(&text)).await.unwrap().into_inner().bundles.remove(0);
                signed.push((Digest::of(text.as_bytes()), answer.entry.unwrap(), answer.bundle.to_vec()));
                counter.fetch_add(1, Ordering::SeqCst);
            }
            signed
        }));
    }
    let wait_for = |wanted: usize| {
        let counter = counter.clone();
        async move {
            let deadline = std::time::Instant::now() + daemon::PATIENCE;
            while counter.load(Ordering::SeqCst) < wanted {
                assert!(std::time::Instant::now() < deadline, "the callers do not get on");
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        }
    };
    wait_for(20).await;
    for bad in ["", "Log2.Example", HOST, "https://log2.example", "a b"] {
        let refused = daemon.cli("root", &["log", "freeze", "--successor", bad]);
        assert!(daemon::text(&refused).contains("successor"), "{bad}: {}", daemon::text(&refused));
    }
    let frozen = tokio::task::block_in_place(|| daemon.cli("root", &["log", "freeze", "--successor", "log2.test"]));
    assert!(done(&frozen).contains("log2.test"));
    wait_for(counter.load(Ordering::SeqCst) + 20).await;
    stop.store(true, Ordering::SeqCst);
    let mut signed = vec![before];
    for caller in callers {
        signed.extend(caller.await.unwrap());
    }
    let origins: std::collections::BTreeSet<_> = signed.iter().map(|(_, entry, _)| entry.origin.clone()).collect();
    assert_eq!(origins.into_iter().collect::<Vec<_>>(), [HOST, "log2.test"]);
    let places: std::collections::HashSet<_> =
        signed.iter().map(|(_, entry, _)| (entry.origin.clone(), entry.index)).collect();
    assert_eq!(places.len(), signed.len(), "every one has a place of its own");
    let check = |daemon: &Daemon| {
        let root = root_of(daemon);
        for (digest, entry, bundle) in &signed {
            let verified = verify::verify(bundle, digest, &root).unwrap();
            assert_eq!((&verified.log().unwrap().origin, verified.log().unwrap().index), (&entry.origin, entry.index));
        }
        // The service's own evidence comes from both logs.
        for (digest, ..) in [signed.first().unwrap(), signed.last().unwrap()] {
            let by = ["--certificate-identity", "spiffe://countersign.test/builder"];
            let issuer = ["--certificate-oidc-issuer", "https://countersign.test/clients"];
            done(&daemon.cli("builder", &[&["verify"], &by[..], &issuer[..], &[&digest.to_string()]].concat()));
        }
    };
    check(&daemon);
    assert!(daemon.stop().unwrap().success());
    let audited = done(&daemon::run(&["log", "fsck", "--data", path(&daemon.data())]));
    assert!(audited.matches("SOUND").count() == 2 && !audited.contains("NOT SOUND"), "{audited}");
    daemon.start();
    check(&daemon);
    assert_eq!(sign(&daemon, "after a restart").await.1.origin, "log2.test");
}
