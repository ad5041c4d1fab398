//! The log: order, duplicates, refusals, faults, and what survives `kill -9`. Every test ends in the full audit.

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use countersign::{
    log::{Draft, Head, Log, LogError, Options, Receipt, Skips, Step, View, audit, views},
    model::{Digest, Identity, Statement, Subject, leaf, predicate, statement},
    store::{StoreError, anchor::AnchorError},
    tlog::{Checkpoint, check_consistency, check_inclusion, leaf_hash, tile},
};
use serde_json::json;

const ORIGIN: &str = "log.example";

pub fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

pub fn public(seed: u8) -> [u8; 32] {
    pair(seed).public_key().as_ref().try_into().unwrap()
}

pub fn signer(seed: u8) -> impl Fn(&[u8]) -> [u8; 64] + Send + Sync + 'static {
    let pair = pair(seed);
    move |message| pair.sign(message).as_ref().try_into().unwrap()
}

pub fn open(dir: &Path) -> Result<Log, LogError> {
    Log::open(dir, public(1), signer(1), Options::default())
}

/// Opens a copy as if it were the log, to see what else is noticed.
fn open_copy(dir: &Path) -> Result<Log, LogError> {
    let skips = Skips { home_unsafe: true, ..Skips::default() };
    Log::open(dir, public(1), signer(1), Options { skips, ..Options::default() })
}

pub fn new_log(dir: &Path) -> Log {
    Log::create(dir, ORIGIN, public(1), signer(1)).unwrap();
    open(dir).unwrap()
}

pub fn draft(text: impl ToString) -> Draft {
    Draft { leaf: text.to_string().into_bytes(), payload: Vec::new() }
}

pub fn check(receipt: &Receipt, leaf: &[u8], log: &Log) {
    let checkpoint = Checkpoint::verify(&receipt.checkpoint, log.key()).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (receipt.tree_size, receipt.root));
    check_inclusion(&leaf_hash(leaf), receipt.index, receipt.tree_size, &receipt.proof, &receipt.root).unwrap();
}

pub fn check_log(log: &Log) {
    let report = log.fsck(|_, _| {}).unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    assert_eq!(report.size, log.size());
}

pub fn check_closed(dir: &Path) -> audit::Report {
    let report = audit::fsck(dir, |_, _| {}).unwrap();
    assert_eq!(report.findings, Vec::<String>::new());
    report
}

/// Copies a directory that no process is changing.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to.join(entry.file_name()));
        } else {
            fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// A key on a token that cannot be used for a while: what came meanwhile is refused and not recorded, and the log goes on.
#[tokio::test]
async fn a_key_that_does_not_sign_for_a_while_breaks_nothing() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let refused = Log::create(&dir, ORIGIN, public(1), |_note| None);
    assert!(matches!(refused, Err(LogError::Unsigned)) && !dir.exists(), "no log is made without its key");
    Log::create(&dir, ORIGIN, public(1), signer(1)).unwrap();
    let unusable = Log::open(&dir, public(1), |_note| None, Options::default());
    assert!(matches!(unusable, Err(LogError::Unsigned)));
    let (gone, signs) = (Arc::new(AtomicBool::new(false)), signer(1));
    let token = Arc::clone(&gone);
    let sign = move |note: &[u8]| (!token.load(Ordering::SeqCst)).then(|| signs(note));
    let log = Log::open(&dir, public(1), sign, Options::default()).unwrap();
    log.append(vec![draft("before")]).await.unwrap();
    gone.store(true, Ordering::SeqCst);
    for _attempt in 0..2 {
        let refused = log.append(vec![draft("meanwhile"), draft("too")]).await.unwrap_err();
        assert!(matches!(refused, LogError::Unsigned) && refused.retry_after().is_some(), "{refused}");
    }
    log.check_writable().unwrap();
    assert_eq!(log.size(), 2);
    check_log(&log);
    gone.store(false, Ordering::SeqCst);
    let receipts = log.append(vec![draft("after"), draft("meanwhile")]).await.unwrap();
    assert_eq!(receipts.iter().map(|receipt| receipt.index).collect::<Vec<_>>(), [2, 3]);
    check(&receipts[1], b"meanwhile", &log);
    check_log(&log);
    drop(log);
    assert_eq!(check_closed(&dir).size, 4);
}

#[tokio::test]
async fn appended_entries_keep_their_order_and_prove() {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    assert_eq!(log.size(), 1);
    let mut sizes = log.watch();
    let drafts: Vec<_> = (0..600).map(|n| draft(format!("entry {n}"))).collect();
    let receipts = log.append(drafts.clone()).await.unwrap();
    for (n, (receipt, draft)) in receipts.iter().zip(&drafts).enumerate() {
        assert_eq!(receipt.index, n as u64 + 1);
        check(receipt, &draft.leaf, &log);
        check(&log.receipt(receipt.index).unwrap(), &draft.leaf, &log);
        assert_eq!(log.entry(receipt.index).unwrap().leaf, draft.leaf);
    }
    sizes.wait_for(|size| *size == 601).await.unwrap();
    let Head { size, root, .. } = log.head();
    for from in [0, 1, 2, 255, 256, 257, 512, 600, 601] {
        let proof = log.consistency(from, size).unwrap();
        check_consistency(from, &log.root_at(from).unwrap(), size, &root, &proof).unwrap();
    }
    assert!(matches!(log.receipt(601), Err(LogError::NotFound)));
    assert!(matches!(log.entry(601), Err(LogError::NotFound)));
    assert!(matches!(log.consistency(0, 602), Err(LogError::NotFound)));
    check_log(&log);
}

#[tokio::test]
async fn tiles_and_bundles_hold_what_was_appended() {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    log.append((0..599).map(|n| draft(format!("entry {n}"))).collect()).await.unwrap();
    let level0: Vec<u8> = (0..600).flat_map(|index| leaf_hash(&log.entry(index).unwrap().leaf)).collect();
    assert_eq!(log.tile(0, 0, 256).unwrap(), level0[..8192]);
    assert_eq!(log.tile(0, 2, 88).unwrap(), level0[2 * 8192..]);
    assert_eq!(log.tile(0, 2, 5).unwrap(), level0[2 * 8192..][..160]);
    let (hashes, _) = level0[8192..2 * 8192].as_chunks::<32>();
    assert_eq!(log.tile(1, 0, 2).unwrap()[32..], tile::node_in(hashes, 8, 0).unwrap());
    for (level, index, width) in [(0, 2, 89), (0, 3, 1), (1, 0, 3), (2, 0, 1), (0, 0, 0), (63, 0, 1)] {
        assert!(matches!(log.tile(level, index, width), Err(LogError::NotFound)), "{level}/{index}.p/{width}");
    }
    let bundle = log.entry_bundle(2, 88).unwrap();
    let first = log.entry(512).unwrap().leaf;
    assert_eq!(bundle[..2], u16::try_from(first.len()).unwrap().to_be_bytes());
    assert_eq!(bundle[2..2 + first.len()], first);
    assert!(matches!(log.entry_bundle(2, 89), Err(LogError::NotFound)));
}

#[tokio::test]
async fn the_same_leaf_keeps_its_index_and_gets_a_fresh_proof() {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    let first = log.append(vec![draft("a"), draft("b"), draft("a")]).await.unwrap();
    assert_eq!(first.iter().map(|receipt| receipt.index).collect::<Vec<_>>(), [1, 2, 1]);
    log.append(vec![draft("c")]).await.unwrap();
    let commits = log.stats().commits;
    let again = log.append(vec![draft("a")]).await.unwrap();
    assert_eq!((again[0].index, again[0].tree_size), (1, 4));
    check(&again[0], b"a", &log);
    assert_eq!(log.stats().commits, commits, "nothing new, nothing written");
    let mixed = log.append(vec![draft("b"), draft("d")]).await.unwrap();
    assert_eq!(mixed.iter().map(|receipt| receipt.index).collect::<Vec<_>>(), [2, 4]);
    check(&mixed[0], b"b", &log);
    check(&mixed[1], b"d", &log);
    check_log(&log);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_callers_make_the_same_tree_as_one() {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    let leaf = format!("{}", (caller * 17 + n * 5) % 400);
                    let receipts = log.append(vec![draft(&leaf)]).await.unwrap();
                    check(&receipts[0], leaf.as_bytes(), &log);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let stats = log.stats();
    assert_eq!((stats.appended + 1, stats.appended + stats.duplicates), (log.size(), 640));
    check_log(&log);
    let one = new_log(&home.path().join("one"));
    let order: Vec<_> =
        (1..log.size()).map(|index| Draft { leaf: log.entry(index).unwrap().leaf, payload: Vec::new() }).collect();
    one.append(order).await.unwrap();
    assert_eq!(one.head().root, log.head().root);
}

/// A process that is being started or taken down holds the lock for a moment longer than its log is open.
#[test]
fn a_lock_that_is_let_go_soon_is_waited_for() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    drop(new_log(&dir));
    let held = fs::File::open(dir.join("anchor")).unwrap();
    held.lock().unwrap();
    let letting_go = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        drop(held);
    });
    open(&dir).unwrap();
    letting_go.join().unwrap();
}

#[tokio::test]
async fn a_log_comes_back_as_it_was() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    let mut heads = Vec::new();
    for count in [1_u32, 255, 256, 300] {
        log.append((0..count).map(|n| draft(format!("{count}/{n}"))).collect()).await.unwrap();
        heads.push(log.head());
    }
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::Anchor(AnchorError::Locked(_))))));
    assert!(matches!(audit::fsck(&dir, |_, _| {}), Err(LogError::Store(StoreError::Anchor(AnchorError::Locked(_))))));
    log.close();
    assert!(matches!(log.append(vec![draft("late")]).await, Err(LogError::Closed)));
    assert!(!log.is_writable());
    drop(log);
    assert_eq!(check_closed(&dir).size, heads[3].size);
    let log = open(&dir).unwrap();
    assert_eq!(log.head(), heads[3]);
    for head in heads {
        assert_eq!(log.root_at(head.size).unwrap(), head.root);
    }
    let receipts = log.append(vec![draft("after")]).await.unwrap();
    check(&receipts[0], b"after", &log);
    check_log(&log);
}

#[tokio::test]
async fn what_is_not_a_whole_log_of_ours_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::Missing(_)))));
    assert!(!dir.exists(), "opening makes nothing");
    fs::create_dir(dir.with_extension("making")).unwrap();
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::HalfMade(_)))));
    let half = Log::create(&dir, ORIGIN, public(1), signer(1));
    assert!(matches!(half, Err(LogError::Store(StoreError::HalfMade(_)))));
    fs::remove_dir(dir.with_extension("making")).unwrap();
    fs::create_dir(&dir).unwrap();
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::Incomplete { .. }))));
    let over = Log::create(&dir, ORIGIN, public(1), signer(1));
    assert!(matches!(over, Err(LogError::Store(StoreError::Exists(_)))));
    fs::remove_dir(&dir).unwrap();
    for origin in ["", "a b", "https://a", "a:8443", "a+b", "log.example - 123"] {
        assert!(matches!(Log::create(&dir, origin, public(1), signer(1)), Err(LogError::Invalid(_))), "{origin}");
    }
    assert!(matches!(Log::create(&dir, ORIGIN, public(2), signer(1)), Err(LogError::WrongKey)));
    Log::create(&dir, ORIGIN, public(1), signer(1)).unwrap();
    let wrong = Log::open(&dir, public(2), signer(2), Options::default());
    assert!(matches!(wrong, Err(LogError::WrongKey)));
    let half_wrong = Log::open(&dir, public(1), signer(2), Options::default());
    assert!(matches!(half_wrong, Err(LogError::WrongKey)));
    assert_eq!(open(&dir).unwrap().size(), 1);
    fs::rename(dir.join("anchor"), home.path().join("anchor")).unwrap();
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::Incomplete { .. }))));
    fs::write(dir.join("anchor"), vec![0; 8192]).unwrap();
    assert!(matches!(open(&dir), Err(LogError::Store(StoreError::Anchor(AnchorError::Unreadable(_))))));
    fs::rename(home.path().join("anchor"), dir.join("anchor")).unwrap();
    open(&dir).unwrap();
}

#[tokio::test]
async fn an_older_copy_of_the_database_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    log.append(vec![draft("a")]).await.unwrap();
    drop(log);
    copy(&dir.join("db"), &home.path().join("old"));
    copy(&dir, &home.path().join("fork"));
    let log = open(&dir).unwrap();
    log.append(vec![draft("b")]).await.unwrap();
    drop(log);
    copy(&dir.join("db"), &home.path().join("new"));
    fs::remove_dir_all(dir.join("db")).unwrap();
    copy(&home.path().join("old"), &dir.join("db"));
    assert!(matches!(open(&dir), Err(LogError::Lost { found: 2, acknowledged: 3 })));
    assert!(!audit::fsck(&dir, |_, _| {}).unwrap().is_sound());
    // The same size with another history.
    let fork = open_copy(&home.path().join("fork")).unwrap();
    fork.append(vec![draft("c")]).await.unwrap();
    drop(fork);
    fs::remove_dir_all(dir.join("db")).unwrap();
    copy(&home.path().join("fork/db"), &dir.join("db"));
    assert!(matches!(open(&dir), Err(LogError::Forked(3))));
    assert!(!audit::fsck(&dir, |_, _| {}).unwrap().is_sound());
    // The right one again.
    fs::remove_dir_all(dir.join("db")).unwrap();
    copy(&home.path().join("new"), &dir.join("db"));
    assert_eq!(open(&dir).unwrap().size(), 3);
    check_closed(&dir);
}

#[tokio::test]
async fn a_truncated_write_ahead_log_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    for n in 0..20 {
        log.append(vec![draft(n)]).await.unwrap();
    }
    // The files as a crash leaves them: whole, and with an end cut off that recovery alone would accept quietly.
    let (whole, cut) = (home.path().join("whole"), home.path().join("cut"));
    copy(&dir, &whole);
    copy(&dir, &cut);
    drop(log);
    let files = fs::read_dir(cut.join("db")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|ending| ending == "log"));
    let wal = logs.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&wal).unwrap();
    file.set_len(fs::metadata(&wal).unwrap().len() - 10).unwrap();
    assert_eq!(open_copy(&whole).unwrap().size(), 21);
    assert!(matches!(open_copy(&cut), Err(LogError::Lost { found: 20, acknowledged: 21 })));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    Log::create(&dir, ORIGIN, public(1), signer(1)).unwrap();
    let options = Options { queue_entries: 0, ..Options::default() };
    let log = Log::open(&dir, public(1), signer(1), options).unwrap();
    let full = log.append(vec![draft("a")]).await.unwrap_err();
    assert!(matches!(full, LogError::Full) && full.retry_after().is_some());
    drop(log);
    let log = open(&dir).unwrap();
    assert!(log.append(Vec::new()).await.unwrap().is_empty());
    for drafts in [
        vec![draft("")],
        vec![Draft { leaf: vec![0; 65_536], payload: Vec::new() }],
        vec![draft("a"); 1_025],
        vec![Draft { leaf: vec![1], payload: vec![0; 16 * 1024 * 1024 + 1] }],
    ] {
        assert!(matches!(log.append(drafts).await, Err(LogError::Invalid(_))));
    }
    assert_eq!(log.size(), 1);
    log.append(vec![Draft { leaf: vec![0; 65_535], payload: Vec::new() }]).await.unwrap();
    check_log(&log);
}

#[tokio::test]
async fn after_a_failed_step_the_log_stops_writing_and_restart_decides() {
    for (step, recorded) in [(Step::Commit, 2), (Step::Committed, 3), (Step::Anchor, 3), (Step::Anchored, 3)] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("log");
        Log::create(&dir, ORIGIN, public(1), signer(1)).unwrap();
        let armed = Arc::new(AtomicBool::new(false));
        let trigger = Arc::clone(&armed);
        let fault = move |at: Step| {
            if trigger.load(Ordering::SeqCst) && at == step {
                Err(io::Error::other("the disk is gone"))
            } else {
                Ok(())
            }
        };
        let options = Options { fault: Some(Arc::new(fault)), ..Options::default() };
        let log = Log::open(&dir, public(1), signer(1), options).unwrap();
        log.append(vec![draft("before")]).await.unwrap();
        armed.store(true, Ordering::SeqCst);
        assert!(matches!(log.append(vec![draft("during")]).await, Err(LogError::Broken(_))), "{step:?}");
        armed.store(false, Ordering::SeqCst);
        assert!(matches!(log.append(vec![draft("after")]).await, Err(LogError::Broken(_))), "{step:?}");
        assert!(!log.is_writable());
        assert_eq!(log.size(), 2, "{step:?}: what failed is not published");
        assert_eq!(log.entry(1).unwrap().leaf, b"before");
        assert!(log.find(&View::All, 0, 10).unwrap().len() == 2);
        drop(log);
        let log = open(&dir).unwrap();
        assert_eq!(log.size(), recorded, "{step:?}");
        let again = log.append(vec![draft("during")]).await.unwrap();
        assert_eq!((again[0].index, again[0].tree_size), (2, 3), "{step:?}");
        check_log(&log);
        drop(log);
        check_closed(&dir);
    }
}

fn certificate(subject: &str, issuer: &str) -> Vec<u8> {
    use der::{Decode as _, Encode as _, asn1};
    use x509_cert::{
        Certificate, TbsCertificate,
        ext::{
            Extension,
            pkix::{SubjectAltName, name::GeneralName},
        },
    };
    let oid = |text| const_oid::ObjectIdentifier::new(text).unwrap();
    let algorithm = spki::AlgorithmIdentifierOwned { oid: oid("1.2.840.10045.4.3.2"), parameters: None };
    let name = GeneralName::Rfc822Name(asn1::Ia5String::new(subject).unwrap());
    let extension = |id, value: Vec<u8>| Extension {
        extn_id: oid(id),
        critical: false,
        extn_value: asn1::OctetString::new(value).unwrap(),
    };
    let time = |seconds| {
        x509_cert::time::Time::GeneralTime(
            asn1::GeneralizedTime::from_unix_duration(Duration::from_secs(seconds)).unwrap(),
        )
    };
    let tbs_certificate = TbsCertificate {
        version: x509_cert::Version::V3,
        serial_number: x509_cert::serial_number::SerialNumber::new(&[1]).unwrap(),
        signature: algorithm.clone(),
        issuer: x509_cert::name::RdnSequence::default(),
        validity: x509_cert::time::Validity { not_before: time(0), not_after: time(600) },
        subject: x509_cert::name::RdnSequence::default(),
        subject_public_key_info: spki::SubjectPublicKeyInfoOwned {
            algorithm: algorithm.clone(),
            subject_public_key: asn1::BitString::from_bytes(&[4]).unwrap(),
        },
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(vec![
            extension("2.5.29.17", SubjectAltName(vec![name]).to_der().unwrap()),
            extension("1.3.6.1.4.1.57264.1.8", asn1::Utf8StringRef::new(issuer).unwrap().to_der().unwrap()),
        ]),
    };
    let signature = asn1::BitString::from_bytes(&[0]).unwrap();
    let der = Certificate { tbs_certificate, signature_algorithm: algorithm, signature }.to_der().unwrap();
    Certificate::from_der(&der).unwrap();
    der
}

/// A leaf and its bundle about `subjects`, as signing makes them (the signature itself is not looked at here).
pub fn attested(statement: &Statement, signer: &str) -> Draft {
    let body = statement.to_json();
    let mut pae =
        format!("DSSEv1 {} {} {} ", statement::PAYLOAD_TYPE.len(), statement::PAYLOAD_TYPE, body.len()).into_bytes();
    pae.extend_from_slice(&body);
    let certificate = certificate(signer, "https://issuer.example");
    let payload = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": { "certificate": { "rawBytes": STANDARD.encode(&certificate) } },
        "dsseEnvelope": {
            "payload": STANDARD.encode(&body), "payloadType": statement::PAYLOAD_TYPE, "signatures": [{ "sig": "AA==" }]
        },
    });
    Draft { leaf: leaf::hashedrekord(&Digest::of(&pae), &[0], &certificate), payload: payload.to_string().into_bytes() }
}

#[tokio::test]
async fn entries_are_found_by_what_they_say() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    let subject = |name: &str| Subject { name: name.to_owned(), digest: Digest::of(name.as_bytes()) };
    let sign = Statement::new(vec![subject("reg/app:1"), subject("")], predicate::SIGN, json!({})).unwrap();
    let place = json!({ "service": "shop", "environment": "prod" });
    let deployed = Statement::new(vec![subject("reg/app:1")], predicate::DEPLOYMENT, place.clone()).unwrap();
    let custom = Statement::new(vec![subject("reg/app:2")], "https://example.com/p", place).unwrap();
    let file = json!({ "messageSignature": { "messageDigest": { "algorithm": "SHA2_256",
        "digest": STANDARD.encode(Digest::of(b"file").as_bytes()) }, "signature": "AA==" } });
    let file = Draft { leaf: b"file".to_vec(), payload: file.to_string().into_bytes() };
    let junk = Draft { leaf: b"junk".to_vec(), payload: b"{not a bundle".to_vec() };
    let drafts = vec![attested(&sign, "a@x"), attested(&deployed, "b@x"), attested(&custom, "a@x"), file, junk];
    log.append(drafts).await.unwrap();
    let identity = |subject: &str, issuer: &str| {
        View::Identity(Identity { subject: subject.to_owned(), issuer: issuer.to_owned() })
    };
    let service = |service: &str, environment: &str| View::Service {
        service: service.to_owned(),
        environment: environment.to_owned(),
    };
    let table: Vec<(View, Vec<u64>)> = vec![
        (View::All, vec![0, 1, 2, 3, 4, 5]),
        (View::Digest(Digest::of(b"reg/app:1")), vec![1, 2]),
        (View::Digest(Digest::of(b"")), vec![1]),
        (View::Digest(Digest::of(b"file")), vec![4]),
        (View::Digest(Digest::of(b"unknown")), vec![]),
        (View::Name("reg/app:1".to_owned()), vec![1, 2]),
        (View::Name("reg/app".to_owned()), vec![]),
        (View::Name(String::new()), vec![]),
        (identity("a@x", "https://issuer.example"), vec![1, 3]),
        (identity("a@x", "https://other.example"), vec![]),
        (View::PredicateType(predicate::SIGN.to_owned()), vec![1, 4]),
        (View::PredicateType(predicate::DEPLOYMENT.to_owned()), vec![2]),
        (service("shop", "prod"), vec![2]),
        (service("prod", "shop"), vec![]),
    ];
    for (view, expected) in &table {
        assert_eq!(&log.find(view, 0, 100).unwrap(), expected, "{view:?}");
        let newest: Vec<u64> = expected.iter().rev().copied().collect();
        assert_eq!(log.newest(view, u64::MAX, 100).unwrap(), newest, "{view:?}");
        for split in 0..=6 {
            let after: Vec<u64> = expected.iter().copied().filter(|index| *index >= split).take(1).collect();
            assert_eq!(log.find(view, split, 1).unwrap(), after, "{view:?} from {split}");
            let before: Vec<u64> = newest.iter().copied().filter(|index| *index < split).take(1).collect();
            assert_eq!(log.newest(view, split, 1).unwrap(), before, "{view:?} before {split}");
        }
    }
    assert!(log.entry(5).unwrap().payload.is_some());
    check_log(&log);
    drop(log);
    assert_eq!(check_closed(&dir).payloads, 5);
    let prefixes: Vec<Vec<u8>> = table.iter().filter_map(|(view, _)| views::prefix(view)).collect();
    for one in &prefixes {
        assert_eq!(prefixes.iter().filter(|other| other.starts_with(one)).count(), 1, "no prefix begins another");
    }
}

#[tokio::test]
async fn the_audit_notices_a_payload_that_is_not_the_recorded_one() {
    let home = tempfile::tempdir().unwrap();
    let log = new_log(&home.path().join("log"));
    let about = |text: &str| {
        let subject = Subject { name: String::new(), digest: Digest::of(text.as_bytes()) };
        attested(&Statement::new(vec![subject], predicate::SIGN, json!({})).unwrap(), "a@x")
    };
    log.append(vec![Draft { leaf: about("one").leaf, payload: about("two").payload }]).await.unwrap();
    let report = log.fsck(|_, _| {}).unwrap();
    assert_eq!(report.findings, ["the payload of entry 1 is not the one that its leaf records"]);
}

#[test]
fn leaves_are_the_canonical_bytes() {
    let digest = Digest::of(b"x");
    let expected = format!(
        "{{\"apiVersion\":\"0.0.2\",\"kind\":\"hashedrekord\",\"spec\":{{\"hashedRekordV002\":{{\"data\":{{\"algorithm\":\
         \"SHA2_256\",\"digest\":\"{}\"}},\"signature\":{{\"content\":\"c2ln\",\"verifier\":{{\"keyDetails\":\
         \"PKIX_ECDSA_P256_SHA_256\",\"x509Certificate\":{{\"rawBytes\":\"Y2VydA==\"}}}}}}}}}}}}",
        STANDARD.encode(digest.as_bytes())
    );
    let bytes = leaf::hashedrekord(&digest, b"sig", b"cert");
    assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expected);
    serde_json::from_slice::<serde_json::Value>(&bytes).unwrap();
    let keyed = String::from_utf8(leaf::hashedrekord_with_key(&digest, b"sig", b"cert")).unwrap();
    assert_eq!(keyed, expected.replace("x509Certificate", "publicKey"));
}

/// Not a test of its own: the process that the next test kills. Writes each acknowledgement to a synced ledger.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "run by what_was_acknowledged_survives_kill_9"]
async fn crash_writer() {
    let Ok(dir) = std::env::var("COUNTERSIGN_TEST_CRASH_DIR") else { return };
    let round = std::env::var("COUNTERSIGN_TEST_CRASH_ROUND").unwrap();
    let dir = Path::new(&dir);
    let log = open(&dir.join("log")).unwrap();
    let ledger = fs::OpenOptions::new().create(true).append(true).open(dir.join("ledger")).unwrap();
    let ledger = Arc::new(ledger);
    let writers = (0..16).map(|writer| {
        let (log, ledger, round) = (log.clone(), Arc::clone(&ledger), round.clone());
        tokio::spawn(async move {
            for n in 0_u64.. {
                let leaf = format!("{round}-{writer}-{n}");
                let receipt = log.append(vec![draft(&leaf)]).await.unwrap().remove(0);
                let line = format!("{} {} {leaf}\n", receipt.index, receipt.tree_size);
                (&*ledger).write_all(line.as_bytes()).unwrap();
                ledger.sync_data().unwrap();
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
}

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let (dir, ledger) = (home.path().join("log"), home.path().join("ledger"));
    Log::create(&dir, ORIGIN, public(1), signer(1)).unwrap();
    let lines = || fs::read(&ledger).map_or(0, |bytes| bytes.lines().count());
    let mut seen = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["log::crash_writer", "--ignored", "--exact", "--quiet"])
            .env("COUNTERSIGN_TEST_CRASH_DIR", home.path())
            .env("COUNTERSIGN_TEST_CRASH_ROUND", round.to_string())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // A moment that differs by round and by what the machine does; after at least one acknowledgement.
        let deadline = Instant::now() + Duration::from_secs(30);
        while lines() < seen + 1 + (round as usize * 37) % 101 && Instant::now() < deadline {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let report = check_closed(&dir);
        let log = open(&dir).unwrap();
        let text = fs::read_to_string(&ledger).unwrap();
        let acknowledged: Vec<&str> = text.split_inclusive('\n').filter(|line| line.ends_with('\n')).collect();
        assert!(acknowledged.len() > seen, "round {round} acknowledged something");
        for line in &acknowledged {
            let mut parts = line.trim_end().split(' ');
            let index: u64 = parts.next().unwrap().parse().unwrap();
            let size: u64 = parts.next().unwrap().parse().unwrap();
            let leaf = parts.next().unwrap().as_bytes();
            assert!(size <= report.size);
            assert_eq!(log.entry(index).unwrap().leaf, leaf);
            check(&log.receipt(index).unwrap(), leaf, &log);
        }
        seen = lines();
    }
}
