//! Views that are rebuilt: what is there afterwards, what an interruption leaves, and which logs are not opened.

use std::{
    ops::ControlFlow,
    process::{Command, Stdio},
    time::Duration,
};

use countersign::{
    log::{
        LogError, View, audit, rebuild,
        search::{Filter, Finder, Order},
        views,
    },
    model::predicate,
};
use rocksdb::{DB, IteratorMode, Options};

use super::library::{CUSTOM, Library, Said, all, at, pages, range};
use crate::daemon;

/// Opens the database of a closed log past everything that guards it.
fn raw(library: &Library) -> DB {
    let path = library.dir().join("db");
    let names = DB::list_cf(&Options::default(), &path).unwrap();
    DB::open_cf(&Options::default(), &path, names).unwrap()
}

fn rows(db: &DB) -> Vec<Vec<u8>> {
    let rows = db.iterator_cf(db.cf_handle("views").unwrap(), IteratorMode::Start);
    rows.map(|row| row.unwrap().0.to_vec()).collect()
}

fn state(db: &DB) -> String {
    String::from_utf8(db.get_cf(db.cf_handle("meta").unwrap(), "views").unwrap().unwrap()).unwrap()
}

/// A closed log with entries of several kinds.
async fn closed(entries: usize) -> Library {
    let mut library = Library::new();
    let said = |n: usize| Said {
        predicate_type: if n.is_multiple_of(7) { CUSTOM } else { predicate::SIGN },
        time: at(n),
        payload: !n.is_multiple_of(11),
        ..Said::default()
    };
    library.add((0..entries).map(said)).await;
    library.log.close();
    library
}

/// Hands the log over to whoever opens it next: nothing of this process holds it.
fn release(library: Library) -> Library {
    library.released()
}

fn refusal(library: &Library) -> String {
    match library.try_open() {
        Err(LogError::Views(problem)) => problem,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(log) => panic!("opened with {} entries", log.size()),
    }
}

fn run(library: &Library) -> rebuild::Rebuilt {
    rebuild::rebuild(&library.dir(), |_, _| ControlFlow::Continue(())).unwrap()
}

fn check_found(library: &Library) {
    let finder = Finder::new(library.log.clone());
    for filter in [
        Filter { views: vec![View::PredicateType(CUSTOM.to_owned())], times: None },
        Filter {
            views: vec![View::Issuer("https://issuer.test".to_owned())],
            times: range(1_700_000_100, 1_700_001_500),
        },
    ] {
        assert_eq!(all(&pages(&finder, &filter, 100, Order::OldestFirst)), library.expected(&filter), "{filter:?}");
    }
}

#[tokio::test]
async fn rebuilt_views_are_the_ones_that_were_written() {
    let library = release(closed(2_500).await);
    let before = rows(&raw(&library));
    let mut seen = Vec::new();
    let report = rebuild::rebuild(&library.dir(), |done, all| {
        seen.push((done, all));
        ControlFlow::Continue(())
    });
    let report = report.unwrap();
    assert_eq!((report.entries, report.from, report.complete), (2_501, 0, true));
    assert_eq!(seen, [(1_024, 2_501), (2_048, 2_501), (2_501, 2_501)]);
    let db = raw(&library);
    assert_eq!(rows(&db), before);
    assert_eq!(report.rows, before.len() as u64);
    assert_eq!(state(&db), "2 complete");
    drop(db);
    let library = library.reopen();
    check_found(&library);
    library.check();
}

/// What an erased payload said is not found any more, what its leaf says still is; and rebuilding changes nothing.
#[tokio::test]
async fn erasing_takes_the_rows_of_the_payload_and_leaves_those_of_the_leaf() {
    let mut library = Library::new();
    library.add((0..3).map(|_| Said::default())).await;
    library.log.erase(2).unwrap();
    library.said[1].payload = false;
    library.check();
    let finder = Finder::new(library.log.clone());
    let said = Said::default();
    for (view, expected) in [
        (View::Identity(said.signer.clone()), vec![1, 2, 3]),
        (View::Issuer(said.signer.issuer.clone()), vec![1, 2, 3]),
        (View::Digest(said.subject.digest), vec![1, 3]),
        (View::Name(said.subject.name.clone()), vec![1, 3]),
        (View::PredicateType(predicate::SIGN.to_owned()), vec![1, 3]),
    ] {
        let filter = Filter { views: vec![view], times: None };
        assert_eq!(all(&pages(&finder, &filter, 10, Order::OldestFirst)).0, expected, "{filter:?}");
        let timed = Filter { times: range(0, u64::MAX), ..filter };
        assert_eq!(all(&pages(&finder, &timed, 10, Order::OldestFirst)), library.expected(&timed), "{timed:?}");
    }
    drop(finder);
    library.log.close();
    let library = release(library);
    let before = rows(&raw(&library));
    assert_eq!(run(&library).missing, 0, "an erased payload is not missing");
    assert_eq!(rows(&raw(&library)), before);
    let db = raw(&library);
    db.delete_cf(db.cf_handle("payloads").unwrap(), 3_u64.to_be_bytes()).unwrap();
    drop(db);
    assert_eq!(run(&library).missing, 1, "a lost one is");
}

/// Rows that are gone, and rows that nobody wrote: the audit names them, a rebuild heals them.
#[tokio::test]
async fn wrong_views_are_named_and_healed() {
    for damage in ["lost", "forged", "lost time"] {
        let library = release(closed(300).await);
        let db = raw(&library);
        let (family, before) = (db.cf_handle("views").unwrap(), rows(&db));
        match damage {
            "lost" => db.delete_cf(family, &before[10]).unwrap(),
            "forged" => {
                let term = views::prefix(&View::Name("nobody said this".to_owned())).unwrap();
                db.put_cf(family, [term.as_slice(), &77_u64.to_be_bytes()].concat(), []).unwrap();
            }
            _ => db.delete_cf(family, before.iter().find(|row| row[0] == 0x80).unwrap()).unwrap(),
        }
        assert_ne!(rows(&db), before, "{damage}");
        drop(db);
        let report = audit::fsck(&library.dir(), |_, _| {}).unwrap();
        assert!(report.findings.len() == 1 && report.findings[0].contains("views hold"), "{damage}: {report:?}");
        run(&library);
        assert_eq!(rows(&raw(&library)), before, "{damage}");
        assert!(audit::fsck(&library.dir(), |_, _| {}).unwrap().is_sound(), "{damage}");
    }
}

#[tokio::test]
async fn a_half_rebuilt_view_is_refused_and_the_next_run_goes_on() {
    let library = release(closed(2_500).await);
    let before = rows(&raw(&library));
    let stopped =
        rebuild::rebuild(
            &library.dir(),
            |done, _| {
                if done < 2_048 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            },
        );
    let stopped = stopped.unwrap();
    assert_eq!((stopped.entries, stopped.complete), (2_048, false));
    assert!(refusal(&library).contains("half rebuilt (up to entry 2048)"));
    let findings = audit::fsck(&library.dir(), |_, _| {}).unwrap().findings;
    assert!(findings.iter().any(|finding| finding.contains("half rebuilt")), "{findings:?}");
    let report = run(&library);
    assert_eq!((report.from, report.entries, report.complete), (2_048, 453, true));
    assert_eq!(rows(&raw(&library)), before);
    let library = library.reopen();
    check_found(&library);
    library.check();
}

/// What the first format left behind, a format of the future, and a state that is no state.
#[tokio::test]
async fn views_of_another_format_are_refused_until_they_are_rebuilt() {
    for (state, says) in [
        (None, "of format 1, and this version needs format 2"),
        (Some("3 complete"), "of format 3, and this version needs format 2"),
        (Some("1 rebuilding 7"), "half rebuilt"),
        (Some("2 rebuilding 99999"), "half rebuilt"),
        (Some("nonsense"), "which this version does not know"),
    ] {
        let library = release(closed(20).await);
        let db = raw(&library);
        let (meta, before) = (db.cf_handle("meta").unwrap(), rows(&db));
        match state {
            Some(state) => db.put_cf(meta, "views", state).unwrap(),
            None => db.delete_cf(meta, "views").unwrap(),
        }
        drop(db);
        let problem = refusal(&library);
        assert!(problem.contains(says), "{state:?}: {problem}");
        assert!(LogError::Views(problem).to_string().contains("countersign log rebuild-views"));
        assert_eq!(run(&library).from, 0, "{state:?}: rows of another format are not kept");
        assert_eq!(rows(&raw(&library)), before);
        library.reopen().check();
    }
}

/// Nothing is rebuilt over a log that is not whole, or that a service has open.
#[tokio::test]
async fn a_log_that_must_not_be_touched_is_not_touched() {
    let library = closed(20).await;
    let locked = rebuild::rebuild(&library.dir(), |_, _| ControlFlow::Continue(())).unwrap_err();
    assert!(locked.to_string().contains("another process"), "{locked}");
    let library = release(library);
    let db = raw(&library);
    db.delete_cf(db.cf_handle("leaves").unwrap(), 20_u64.to_be_bytes()).unwrap();
    let before = (rows(&db), state(&db));
    drop(db);
    assert!(matches!(rebuild::rebuild(&library.dir(), |_, _| ControlFlow::Continue(())), Err(LogError::Damaged(_))));
    let db = raw(&library);
    assert_eq!((rows(&db), state(&db)), before);
}

/// `kill -9` at moments that differ by round: the log is refused or whole, and some run finishes.
#[tokio::test]
async fn a_killed_rebuild_leaves_the_old_views_or_is_finished_later() {
    let library = release(closed(6_000).await);
    let before = rows(&raw(&library));
    let data = library.home.path().to_str().unwrap().to_owned();
    let mut refused = 0;
    for round in 0..12_u64 {
        let mut child = Command::new(daemon::binary())
            .args(["log", "rebuild-views", "--data", &data])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(40 * (round + 1)));
        child.kill().unwrap();
        child.wait().unwrap();
        match library.try_open() {
            Err(LogError::Views(_)) => refused += 1,
            Err(other) => panic!("round {round}: {other}"),
            Ok(log) => assert!(log.fsck(|_, _| {}).unwrap().is_sound(), "round {round}"),
        }
    }
    assert!(refused > 0, "some kill came in the middle");
    let done = daemon::run(&["log", "rebuild-views", "--data", &data, "-o", "json"]);
    assert!(done.status.success(), "{}", daemon::text(&done));
    let report: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["logs"][0]["complete"], true);
    assert_eq!(rows(&raw(&library)), before);
    library.reopen().check();
}
