//! Backups that cannot fork, erasure that leaves every proof, and a disk that fills up and empties again.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use countersign::{
    log::{
        Draft, Log, LogError, Logs, Options, Position, Skips, View, audit,
        backup::{CatchUp, Directory, restore},
    },
    model::{Digest, Statement, Subject, predicate},
    store::{Room, StoreError, anchor::AnchorError},
};
use serde_json::json;

use crate::log::{attested, check, check_closed, check_log, copy, draft, new_log, open, public, signer};

fn is_copied(opened: &Result<Log, LogError>) -> bool {
    matches!(opened, Err(LogError::Store(StoreError::Anchor(AnchorError::Copied(_)))))
}

/// A log of four entries and, beside it, a copy that was made when it had three.
async fn log_and_older_copy(home: &Path) -> (PathBuf, PathBuf, String) {
    let (dir, copied) = (home.join("log"), home.join("copy"));
    let log = new_log(&dir);
    log.append(vec![draft("a"), draft("b")]).await.unwrap();
    drop(log);
    copy(&dir, &copied);
    let log = open(&dir).unwrap();
    log.append(vec![draft("c")]).await.unwrap();
    let newest = log.head().checkpoint.to_string();
    (dir, copied, newest)
}

#[tokio::test]
async fn a_copy_opens_only_when_it_was_told_how_to_catch_up() {
    let home = tempfile::tempdir().unwrap();
    let (dir, copied, newest) = log_and_older_copy(home.path()).await;
    assert!(is_copied(&open(&copied)));
    // With the guard off it opens, and would sign another entry 3.
    let skips = Skips { home_unsafe: true, ..Skips::default() };
    let fork = Log::open(&copied, public(1), signer(1), Options { skips, ..Options::default() }).unwrap();
    assert_eq!(fork.size(), 3);
    drop(fork);
    assert!(is_copied(&open(&copied)), "opening it that way does not make it the log");
    assert!(check_closed(&copied).is_sound(), "a copy can be audited");

    let behind = restore(&copied, CatchUp::Checkpoint(&newest));
    assert!(matches!(behind, Err(LogError::Behind { size: 3, newest: 4 })));
    assert!(is_copied(&open(&copied)));
    let garbage = restore(&copied, CatchUp::Checkpoint("log.example\n9\n"));
    assert!(matches!(garbage, Err(LogError::Checkpoint(_))));

    let mut source = Directory::open(&dir).unwrap();
    let restored = restore(&copied, CatchUp::Source(&mut source)).unwrap();
    assert_eq!((restored.added, restored.head.size), (1, 4));
    drop(source);
    check_closed(&copied);
    let log = open(&copied).unwrap();
    assert_eq!(log.head().checkpoint.as_ref(), newest);
    assert_eq!(log.entry(3).unwrap().leaf, b"c");
    let receipts = log.append(vec![draft("d")]).await.unwrap();
    check(&receipts[0], b"d", &log);
    check_log(&log);
}

#[tokio::test]
async fn a_copy_that_holds_everything_is_restored_by_the_newest_checkpoint() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    log.append(vec![draft("a")]).await.unwrap();
    let newest = log.head().checkpoint.to_string();
    log.append(vec![draft("b")]).await.unwrap();
    drop(log);
    copy(&dir, &home.path().join("copy"));
    let copied = home.path().join("copy");
    assert!(is_copied(&open(&copied)));
    assert_eq!(restore(&copied, CatchUp::Checkpoint(&newest)).unwrap().head.size, 3);
    assert_eq!(open(&copied).unwrap().size(), 3);
    // Moving within the file system is no copy.
    fs::rename(&copied, home.path().join("moved")).unwrap();
    assert_eq!(open(&home.path().join("moved")).unwrap().size(), 3);
    // Whoever says so is believed.
    copy(&home.path().join("moved"), &copied);
    restore(&copied, CatchUp::NothingNewerUnsafe).unwrap();
    assert_eq!(open(&copied).unwrap().size(), 3);
}

#[tokio::test]
async fn another_history_is_no_source() {
    let home = tempfile::tempdir().unwrap();
    let (dir, copied, _) = log_and_older_copy(home.path()).await;
    copy(&copied, &home.path().join("fork"));
    let fork = home.path().join("fork");
    restore(&fork, CatchUp::NothingNewerUnsafe).unwrap();
    let log = open(&fork).unwrap();
    log.append(vec![draft("x"), draft("y")]).await.unwrap();
    let forked = log.head().checkpoint.to_string();
    drop(log);
    // The original, copied whole: the fork's checkpoint is not of its history, nor are the fork's entries.
    let whole = home.path().join("whole");
    copy(&dir, &whole);
    assert!(matches!(restore(&whole, CatchUp::Checkpoint(&forked)), Err(LogError::Behind { .. })));
    let mut source = Directory::open(&fork).unwrap();
    assert!(matches!(restore(&whole, CatchUp::Source(&mut source)), Err(LogError::Forked(5))));
    assert!(is_copied(&open(&whole)));
    // It can still be restored the right way, over what the wrong source left.
    let mut right = Directory::open(&dir).unwrap();
    assert_eq!(restore(&whole, CatchUp::Source(&mut right)).unwrap().head.size, 4);
    check_closed(&whole);
    check_log(&open(&whole).unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_while_the_log_goes_on_is_whole() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    let writers: Vec<_> = (0..8)
        .map(|writer| {
            let log = log.clone();
            tokio::spawn(async move {
                for n in 0..40 {
                    log.append(vec![draft(format!("{writer}-{n}"))]).await.unwrap();
                }
            })
        })
        .collect();
    let mut backups = Vec::new();
    for n in 0..3 {
        let (log, to) = (log.clone(), home.path().join(format!("backup-{n}")));
        let (head, to) = tokio::task::spawn_blocking(move || (log.backup(&to).unwrap(), to)).await.unwrap();
        backups.push((head, to));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert!(matches!(log.backup(&backups[0].1), Err(LogError::Store(StoreError::Exists(_)))));
    for (head, backup) in &backups {
        assert_eq!(check_closed(backup).size, head.size);
        assert!(is_copied(&open(backup)), "a backup is not the log");
        assert_eq!(log.root_at(head.size).unwrap(), head.root);
    }
    let newest = log.head();
    drop(log);
    let mut source = Directory::open(&dir).unwrap();
    let restored = restore(&backups[0].1, CatchUp::Source(&mut source)).unwrap();
    assert_eq!(restored.head, newest);
    assert_eq!(open(&backups[0].1).unwrap().head(), newest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_is_succeeded_while_callers_append_and_loses_nothing() {
    let home = tempfile::tempdir().unwrap();
    let first = new_log(&home.path().join("log"));
    let next_dir = home.path().join("log-2");
    Log::create(&next_dir, "next.example", public(2), signer(2)).unwrap();
    let next = Log::open(&next_dir, public(2), signer(2), Options::default()).unwrap();
    let logs = Logs::new(Vec::new(), first.clone());
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let logs = logs.clone();
            tokio::spawn(async move {
                let mut receipts = Vec::new();
                for n in 0..60 {
                    let leaf = format!("{caller}-{n}");
                    // What a client does: append to the present log, again if it was frozen under its hands.
                    loop {
                        let log = logs.present();
                        match log.append(vec![draft(&leaf)]).await {
                            Ok(mut receipt) => break receipts.push((log, leaf, receipt.remove(0))),
                            Err(LogError::Frozen(_) | LogError::Closed) => tokio::task::yield_now().await,
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
                receipts
            })
        })
        .collect();
    let deadline = std::time::Instant::now() + crate::daemon::PATIENCE;
    while first.size() < 40 {
        assert!(std::time::Instant::now() < deadline, "the callers do not get on");
        tokio::task::yield_now().await;
    }
    let (chain, successor) = (logs.clone(), next.clone());
    let last = tokio::task::spawn_blocking(move || chain.succeed(successor).unwrap()).await.unwrap();
    let mut placed = std::collections::HashSet::new();
    for caller in callers {
        for (log, leaf, receipt) in caller.await.unwrap() {
            check(&receipt, leaf.as_bytes(), &log);
            check(&log.receipt(receipt.index).unwrap(), leaf.as_bytes(), &log);
            assert!(placed.insert((log.origin().to_owned(), receipt.index)));
        }
    }
    assert_eq!(placed.len(), 480);
    assert!(placed.iter().any(|(origin, _)| origin == "next.example"), "some came after the freeze");
    assert_eq!((first.head(), first.successor()), (last.clone(), Some("next.example")));
    assert!(
        matches!(first.append(vec![draft("late")]).await, Err(LogError::Frozen(origin)) if origin == "next.example")
    );
    let mut seen = 0;
    let all = logs.each(&View::All, Position::default(), logs.end(), 100, |_, _| {
        seen += 1;
        Ok::<_, LogError>(())
    });
    all.unwrap();
    assert_eq!(seen, first.size() + next.size());
    check_log(&first);
    check_log(&next);
    drop((logs, first));
    let again = open(&home.path().join("log")).unwrap();
    assert_eq!((again.head(), again.successor()), (last, Some("next.example")), "it stays frozen");
    assert!(matches!(again.append(vec![draft("later")]).await, Err(LogError::Frozen(_))));
    check_log(&again);
}

/// Whether any file below `dir` holds the bytes.
fn on_disk(dir: &Path, wanted: &[u8]) -> bool {
    fs::read_dir(dir).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return on_disk(&path, wanted);
        }
        fs::read(&path).unwrap().windows(wanted.len()).any(|window| window == wanted)
    })
}

#[tokio::test]
async fn an_erased_payload_is_gone_from_every_file_and_every_proof_stays() {
    // Base64 of a name in the payload, at each of the three alignments, as it stands in the stored bundle.
    let person = "Xq7-personal-Zw9";
    let traces = |text: &str| -> Vec<Vec<u8>> {
        use base64::{Engine as _, engine::general_purpose::STANDARD};
        (0..3)
            .map(|shift| {
                let encoded = STANDARD.encode([vec![b'.'; shift], text.as_bytes().to_vec()].concat());
                encoded.as_bytes()[4..encoded.len() - 6].to_vec()
            })
            .chain([text.as_bytes().to_vec()])
            .collect()
    };
    for padding in [0, 20_000] {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("log");
        let log = new_log(&dir);
        let about = |name: &str| {
            let subject = Subject { name: name.to_owned(), digest: Digest::of(name.as_bytes()) };
            // Random enough that compression leaves it as it is, and in a blob file where it is long.
            let noise: String = (0..padding).map(|n| hex::encode(Digest::of(&[n as u8, 7]).as_bytes())).collect();
            let statement = Statement::new(vec![subject], predicate::SIGN, json!({ "noise": noise })).unwrap();
            attested(&statement, "a@x")
        };
        let drafts = vec![about("before"), about(person), about("after")];
        let receipts = log.append(drafts.clone()).await.unwrap();
        assert!(traces(person).iter().any(|trace| on_disk(&dir, trace)), "it is on disk before");
        log.erase(2).unwrap();
        for trace in traces(person) {
            assert!(!on_disk(&dir, &trace), "{:?} is still on disk", String::from_utf8_lossy(&trace));
        }
        assert!(log.entry(2).unwrap().payload.is_none());
        assert!(matches!(log.erase(2), Err(LogError::NoPayload(2))));
        assert!(matches!(log.erase(99), Err(LogError::NotFound)));
        assert!(log.entry(1).unwrap().payload.is_some() && log.entry(3).unwrap().payload.is_some());
        for (receipt, draft) in receipts.iter().zip(&drafts) {
            check(receipt, &draft.leaf, &log);
            check(&log.receipt(receipt.index).unwrap(), &draft.leaf, &log);
        }
        check_log(&log);
        let again = log.append(vec![drafts[1].clone()]).await.unwrap();
        assert_eq!(again[0].index, 2, "the leaf is still known");
        assert!(log.entry(2).unwrap().payload.is_none(), "and does not bring its payload back");
        drop(log);
        check_closed(&dir);
        check_log(&open(&dir).unwrap());
    }
}

#[tokio::test]
async fn a_payload_that_is_lost_and_was_not_erased_is_named() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    log.append(vec![Draft { leaf: b"leaf".to_vec(), payload: b"payload".to_vec() }]).await.unwrap();
    drop(log);
    {
        let families = ["meta", "leaves", "tiles", "payloads", "views", "dedup", "erased"];
        let db = rocksdb::DB::open_cf(&rocksdb::Options::default(), dir.join("db"), families).unwrap();
        db.delete_cf(db.cf_handle("payloads").unwrap(), 1_u64.to_be_bytes()).unwrap();
    }
    let report = audit::fsck(&dir, |_, _| {}).unwrap();
    assert_eq!(report.findings, ["the payload of entry 1 is missing"]);
}

/// A small file system in memory, unmounted at the end. `None` where mounting is not allowed.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    fn mount(mebibytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={mebibytes}m");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).output().ok()?;
        if mounted.status.success() {
            return Some(Self(dir));
        }
        println!("skipped: no file system can be mounted here ({})", String::from_utf8_lossy(&mounted.stderr).trim());
        None
    }

    fn fill(&self) {
        use std::io::Write as _;
        let mut file = fs::File::create(self.0.path().join("filler")).unwrap();
        let block = vec![1; 1024 * 1024];
        while file.write_all(&block).is_ok() {}
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()) || std::thread::panicking());
    }
}

fn small_room(reserve: u64) -> Options {
    const MIB: u64 = 1024 * 1024;
    Options { room: Room { reserve: reserve * MIB, ballast: reserve.min(8) * MIB }, ..Options::default() }
}

#[tokio::test]
async fn a_full_disk_refuses_writes_loses_nothing_and_needs_no_restart() {
    let Some(disk) = SmallDisk::mount(160) else { return };
    let dir = disk.0.path().join("log");
    Log::create(&dir, "log.example", public(1), signer(1)).unwrap();
    let log = Log::open(&dir, public(1), signer(1), small_room(64)).unwrap();
    let large = |n: u32| Draft { leaf: format!("leaf {n}").into_bytes(), payload: vec![n as u8; 100_000] };
    let mut acknowledged = log.append((0..50).map(large).collect()).await.unwrap();
    assert_eq!(fs::metadata(dir.join("ballast")).unwrap().len(), 8 * 1024 * 1024);
    disk.fill();
    for n in 50..53 {
        let full = log.append(vec![large(n)]).await.unwrap_err();
        assert!(matches!(&full, LogError::DiskFull(_)) && full.retry_after().is_some(), "{full}");
    }
    assert!(matches!(log.check_writable(), Err(LogError::DiskFull(_))));
    assert!(!dir.join("ballast").exists(), "the ballast is given back");
    for receipt in &acknowledged {
        check(&log.receipt(receipt.index).unwrap(), &log.entry(receipt.index).unwrap().leaf, &log);
    }
    disk.empty();
    acknowledged.extend(log.append(vec![large(50)]).await.unwrap());
    assert!(log.is_writable() && dir.join("ballast").exists());
    for receipt in &acknowledged {
        check(&log.receipt(receipt.index).unwrap(), &log.entry(receipt.index).unwrap().leaf, &log);
    }
    check_log(&log);
    drop(log);
    check_closed(&dir);
}

/// The same without the reserve: then a write fails half-way, which is final. That is what the reserve is for.
#[tokio::test]
async fn without_the_reserve_a_full_disk_breaks_the_log_until_it_is_opened_again() {
    let Some(disk) = SmallDisk::mount(96) else { return };
    let dir = disk.0.path().join("log");
    Log::create(&dir, "log.example", public(1), signer(1)).unwrap();
    let log = Log::open(&dir, public(1), signer(1), small_room(0)).unwrap();
    log.append(vec![draft("before")]).await.unwrap();
    disk.fill();
    let mut broken = None;
    for n in 0..200_u32 {
        let payload = (0..4_000).flat_map(|k: u32| *Digest::of(&(n * 4_000 + k).to_be_bytes()).as_bytes()).collect();
        if let Err(error) = log.append(vec![Draft { leaf: n.to_be_bytes().to_vec(), payload }]).await {
            broken = Some(error);
            break;
        }
    }
    assert!(matches!(broken, Some(LogError::Broken(_))), "{broken:?}");
    disk.empty();
    assert!(matches!(log.append(vec![draft("after")]).await, Err(LogError::Broken(_))), "that failure is final");
    let acknowledged = log.size();
    drop(log);
    let log = Log::open(&dir, public(1), signer(1), small_room(0)).unwrap();
    assert!(log.size() >= acknowledged);
    log.append(vec![draft("after")]).await.unwrap();
    check_log(&log);
}
