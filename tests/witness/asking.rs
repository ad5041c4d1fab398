//! The log that asks witnesses: both modes, quorum loss, catch-up, restarts, split views, and bad answers.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, routing::post};
use countersign::{
    log::{
        Draft, Log, LogError, Options, Receipt, Skips,
        witnessing::{Mode, Witnessing},
    },
    telemetry::Metrics,
    tlog::{Checkpoint, Note, Policy, PolicyDenial, check_inclusion, leaf_hash, witness::AddCheckpoint},
    witness::Witness,
};
use jiff::Timestamp;

use super::harness::{Leaves, Mood, Served, cosigner_key, log_key, make, open, pair, sign_with, wait_for};
use crate::log::copy;

const ORIGIN: &str = "log.example";
const SEED: u8 = 1;

/// Witnesses that are served, and the policy over them.
struct Place {
    home: tempfile::TempDir,
    witnesses: Vec<Served>,
    policy: String,
}

fn log_public() -> [u8; 32] {
    *log_key(ORIGIN, SEED).0.public()
}

impl Place {
    /// `count` witnesses, of which `threshold` are needed.
    fn new(count: usize, threshold: usize) -> Self {
        let home = tempfile::tempdir().unwrap();
        let (mut witnesses, mut policy) = (Vec::new(), format!("log {}\n", log_key(ORIGIN, SEED).0.vkey()));
        for n in 0..count {
            let dir = home.path().join(format!("w{n}"));
            make(&dir, &format!("w{n}.example"));
            let witness = open(&dir, vec![Leaves::new(0, 0, "").key()]).unwrap();
            // Either kind of key stands for the witness.
            let vkey = witness.cosigner().keys()[n % 2].vkey();
            let served = Served::witness(Arc::new(witness));
            policy.push_str(&format!("witness w{n} {vkey} {}\n", served.url()));
            witnesses.push(served);
        }
        let names: String = (0..count).map(|n| format!(" w{n}")).collect();
        policy.push_str(&format!("group q {threshold}{names}\nquorum q\n"));
        Self { home, witnesses, policy }
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    fn create(&self, name: &str) -> PathBuf {
        let dir = self.dir(name);
        Log::create(&dir, ORIGIN, log_public(), sign_with(pair(SEED))).unwrap();
        dir
    }

    fn open(&self, dir: &Path, mode: Mode) -> Result<(Log, Witnessing, Metrics), LogError> {
        self.open_within(dir, mode, Duration::from_secs(5))
    }

    fn open_within(&self, dir: &Path, mode: Mode, timeout: Duration) -> Result<(Log, Witnessing, Metrics), LogError> {
        let metrics = Metrics::new();
        let witnessing = witnessing(&self.policy, mode, timeout, &metrics);
        let log = open_log(dir, Some(witnessing.clone()))?;
        Ok((log, witnessing, metrics))
    }

    #[track_caller]
    fn assert_witnessed(&self, checkpoint: &str) {
        self.policy().check(checkpoint).unwrap();
    }

    fn policy(&self) -> Policy {
        Policy::parse(&self.policy).unwrap()
    }
}

fn witnessing(policy: &str, mode: Mode, timeout: Duration, metrics: &Metrics) -> Witnessing {
    Witnessing::new(Policy::parse(policy).unwrap(), &log_public(), mode, timeout, None, metrics.clone()).unwrap()
}

/// Opens a log, also one that is a copy of another.
fn open_log(dir: &Path, witness: Option<Witnessing>) -> Result<Log, LogError> {
    let skips = Skips { home_unsafe: true, ..Skips::default() };
    Log::open(dir, log_public(), sign_with(pair(SEED)), Options { witness, skips, ..Options::default() })
}

fn draft(text: impl ToString) -> Draft {
    Draft { leaf: text.to_string().into_bytes(), payload: Vec::new() }
}

async fn append(log: &Log, text: impl ToString) -> Result<Receipt, LogError> {
    log.append(vec![draft(text)]).await.map(|mut receipts| receipts.remove(0))
}

fn check(receipt: &Receipt, leaf: &str) {
    let checkpoint = Checkpoint::verify(&receipt.checkpoint, &log_key(ORIGIN, SEED).0).unwrap();
    assert_eq!((checkpoint.size, checkpoint.root), (receipt.tree_size, receipt.root));
    let leaf = leaf_hash(leaf.as_bytes());
    check_inclusion(&leaf, receipt.index, receipt.tree_size, &receipt.proof, &receipt.root).unwrap();
}

fn cosignatures(checkpoint: &str) -> usize {
    Note::parse(checkpoint).unwrap().signatures().len() - 1
}

#[track_caller]
fn assert_metric(metrics: &Metrics, line: &str) {
    let page = metrics.encode();
    assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
}

#[tokio::test]
async fn required_witnesses_cosign_before_anybody_is_answered() {
    let place = Place::new(3, 2);
    let dir = place.create("log");
    let (log, witnessing, metrics) = place.open(&dir, Mode::Require).unwrap();
    place.assert_witnessed(&log.head().checkpoint);
    for n in 0..20 {
        let receipt = append(&log, n).await.unwrap();
        assert_eq!(receipt.index, n + 1);
        check(&receipt, &n.to_string());
        place.assert_witnessed(&receipt.checkpoint);
        place.assert_witnessed(&log.head().checkpoint);
        assert_eq!(log.head().size, receipt.tree_size);
        check(&log.receipt(receipt.index).unwrap(), &n.to_string());
    }
    // A leaf that is there already is answered under the newest cosigned head.
    let again = append(&log, 3).await.unwrap();
    assert_eq!((again.index, again.tree_size), (4, 21));
    check(&again, "3");
    place.assert_witnessed(&again.checkpoint);
    // The third witness is not waited for, and attached when it comes.
    wait_for("the third witness", || cosignatures(&log.head().checkpoint) == 3);
    place.assert_witnessed(&log.head().checkpoint);
    assert_eq!(witnessing.latest().unwrap().size, 21);
    assert_metric(&metrics, "countersign_witness_quorum{mode=\"require\"} 1");
    for n in 0..3 {
        assert_metric(&metrics, &format!("countersign_witness_entries{{witness=\"w{n}\"}} 21"));
    }
    assert!(metrics.encode().contains("countersign_witness_seconds_count{witness=\"w0\"}"));
    assert_eq!(log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_round_covers_everything_that_was_committed_meanwhile() {
    let place = Place::new(1, 1);
    let dir = place.create("log");
    let (log, _, _) = place.open(&dir, Mode::Require).unwrap();
    place.witnesses[0].set(Mood::Slow);
    let before = place.witnesses[0].requests();
    let callers: Vec<_> = (0..32)
        .map(|caller| {
            let log = log.clone();
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_millis(caller * 3)).await;
                (caller, append(&log, format!("{caller}")).await.unwrap())
            })
        })
        .collect();
    for caller in callers {
        let (caller, receipt) = caller.await.unwrap();
        check(&receipt, &caller.to_string());
        place.assert_witnessed(&receipt.checkpoint);
    }
    let (commits, rounds) = (log.stats().commits, place.witnesses[0].requests() - before);
    assert!(commits >= 10, "the callers came one after the other: {commits} batches");
    assert!((1..=4).contains(&rounds), "{commits} batches took {rounds} questions of 200 ms");
    assert_eq!(log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
}

#[tokio::test]
async fn without_a_quorum_nothing_is_shown_and_the_entry_keeps_its_index() {
    for mood in [Mood::Down, Mood::Hangs] {
        let place = Place::new(2, 2);
        let dir = place.create("log");
        let timeout = Duration::from_millis(300);
        let (log, witnessing, metrics) = place.open_within(&dir, Mode::Require, timeout).unwrap();
        append(&log, "before").await.unwrap();
        let shown = log.head();
        place.witnesses[1].set(mood);
        let asked = Instant::now();
        let error = append(&log, "during").await.unwrap_err();
        assert!(asked.elapsed() < Duration::from_secs(3), "{:?}", asked.elapsed());
        let text = error.to_string();
        assert!(matches!(error, LogError::Unwitnessed(_)) && error.retry_after().is_some(), "{text}");
        for part in ["recorded", "not witnessed", "same leaf", "w0: cosigned", "w1: "] {
            assert!(text.contains(part), "{part:?} is not in {text:?}");
        }
        assert_eq!((log.head(), log.size()), (shown, 2), "{mood:?}");
        assert!(matches!(log.entry(2), Err(LogError::NotFound)));
        assert!(matches!(log.receipt(2), Err(LogError::NotFound)));
        assert!(matches!(log.tile(0, 0, 3), Err(LogError::NotFound)));
        assert!(log.is_writable());
        assert_metric(&metrics, "countersign_witness_quorum{mode=\"require\"} 0");
        let reason = if mood == Mood::Down { "unavailable" } else { "unreachable" };
        let failures = format!("countersign_witness_failures_total{{witness=\"w1\",reason=\"{reason}\"}}");
        wait_for(&failures, || metrics.encode().contains(&failures));
        // What is published can still be asked for.
        assert_eq!(append(&log, "before").await.unwrap().index, 1);
        place.witnesses[1].set(Mood::Up);
        // Nobody asks again, and it is shown all the same.
        wait_for("the quorum", || log.size() == 3);
        let again = append(&log, "during").await.unwrap();
        assert_eq!((again.index, again.tree_size), (2, 3));
        place.assert_witnessed(&again.checkpoint);
        assert_metric(&metrics, "countersign_witness_quorum{mode=\"require\"} 1");
        assert_eq!(witnessing.latest().unwrap().size, 3);
        check(&append(&log, "after").await.unwrap(), "after");
        assert_eq!(log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_restart_shows_what_was_cosigned_and_no_more() {
    let place = Place::new(1, 1);
    let dir = place.create("log");
    let timeout = Duration::from_millis(300);
    let (log, _, _) = place.open_within(&dir, Mode::Require, timeout).unwrap();
    log.append((0..300).map(draft).collect()).await.unwrap();
    let shown = log.head();
    place.witnesses[0].set(Mood::Down);
    for n in 300..302 {
        let error = append(&log, n).await.unwrap_err();
        assert!(matches!(error, LogError::Unwitnessed(_)), "{error}");
    }
    drop(log);
    let (log, _, _) = place.open_within(&dir, Mode::Require, timeout).unwrap();
    assert_eq!((log.head().size, log.head().root), (shown.size, shown.root));
    place.assert_witnessed(&log.head().checkpoint);
    check(&log.receipt(300).unwrap(), "299");
    assert!(matches!(log.entry(301), Err(LogError::NotFound)));
    assert!(matches!(append(&log, 300).await, Err(LogError::Unwitnessed(_))));
    place.witnesses[0].set(Mood::Up);
    wait_for("what was hidden", || log.size() == 303);
    assert_eq!(append(&log, 300).await.unwrap().index, 301);
    drop(log);
    // Without witnesses everything that is on disk is shown; nothing was lost.
    let log = open_log(&dir, None).unwrap();
    assert_eq!(log.size(), 303);
    assert_eq!(log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
}

#[tokio::test]
async fn the_first_head_needs_a_quorum_too() {
    let place = Place::new(1, 1);
    let dir = place.create("log");
    place.witnesses[0].set(Mood::Down);
    let timeout = Duration::from_millis(200);
    let opened = place.open_within(&dir, Mode::Require, timeout);
    assert!(matches!(&opened, Err(LogError::Unwitnessed(why)) if why.contains("w0: it answered 503")), "{opened:?}");
    // Nothing is left locked or running.
    place.witnesses[0].set(Mood::Up);
    let (log, _, _) = place.open(&dir, Mode::Require).unwrap();
    place.assert_witnessed(&log.head().checkpoint);
    drop(log);
    // A policy that the recorded head does not meet: as if there were none.
    let stranger = Place::new(1, 1);
    let (log, _, _) = stranger.open(&dir, Mode::Require).unwrap();
    stranger.assert_witnessed(&log.head().checkpoint);
    assert!(place.policy().check(&log.head().checkpoint).is_err());
}

#[tokio::test]
async fn cosignatures_are_attached_later() {
    let place = Place::new(2, 2);
    let dir = place.create("log");
    let timeout = Duration::from_millis(500);
    let (log, witnessing, metrics) = place.open_within(&dir, Mode::AttachLater, timeout).unwrap();
    wait_for("the first head", || cosignatures(&log.head().checkpoint) == 2);
    place.assert_witnessed(&log.head().checkpoint);
    place.witnesses[1].set(Mood::Down);
    let receipt = append(&log, "a").await.unwrap();
    assert_eq!((receipt.index, cosignatures(&receipt.checkpoint), log.size()), (1, 0, 2), "at once, without anybody");
    wait_for("the witness that is up", || cosignatures(&log.head().checkpoint) == 1);
    assert!(matches!(place.policy().check(&log.head().checkpoint), Err(PolicyDenial::Quorum { .. })));
    wait_for("the metric", || metrics.encode().contains("countersign_witness_quorum{mode=\"attach_later\"} 0"));
    assert_eq!(witnessing.latest().unwrap().size, 1, "the last one that met the quorum");
    // Nothing new: the same head again, and the cosignature stays.
    assert_eq!(append(&log, "a").await.unwrap().index, 1);
    assert_eq!(cosignatures(&log.head().checkpoint), 1);
    place.witnesses[1].set(Mood::Up);
    wait_for("the other witness", || cosignatures(&log.head().checkpoint) == 2);
    place.assert_witnessed(&log.head().checkpoint);
    check(&log.receipt(1).unwrap(), "a");
    place.assert_witnessed(&log.receipt(1).unwrap().checkpoint);
    assert_metric(&metrics, "countersign_witness_quorum{mode=\"attach_later\"} 1");
    assert_eq!(witnessing.latest().unwrap().size, 2);
    let closing = Instant::now();
    log.close();
    assert!(closing.elapsed() < Duration::from_secs(1));
    assert_eq!(log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
}

#[tokio::test]
async fn a_witness_that_is_behind_is_caught_up() {
    let place = Place::new(1, 1);
    let dir = place.create("log");
    // The log grew to 600 without the witness, which knows it at size 301, from a monitor.
    let log = open_log(&dir, None).unwrap();
    log.append((0..300).map(draft).collect()).await.unwrap();
    let request = AddCheckpoint { old: 0, proof: Vec::new(), checkpoint: log.head().checkpoint.to_string() };
    let url = format!("{}/add-checkpoint", place.witnesses[0].url());
    let answered = reqwest::Client::new().post(&url).body(request.to_string()).send().await.unwrap();
    assert_eq!(answered.status(), 200);
    log.append((300..599).map(draft).collect()).await.unwrap();
    drop(log);
    let before = place.witnesses[0].requests();
    let (log, _, _) = place.open(&dir, Mode::Require).unwrap();
    assert_eq!(
        place.witnesses[0].requests() - before,
        2,
        "one question was answered with the size, the next one with yes"
    );
    place.assert_witnessed(&log.head().checkpoint);
    assert_eq!(log.size(), 600);
    append(&log, "more").await.unwrap();
    assert_eq!(place.witnesses[0].requests() - before, 3, "from then on the size is known");
    // Somebody else shows the witness the same head again: nothing changes.
    let request = AddCheckpoint { old: 601, proof: Vec::new(), checkpoint: log.head().checkpoint.to_string() };
    let again = reqwest::Client::new().post(&url).body(request.to_string()).send().await.unwrap();
    assert_eq!(again.status(), 200);
    append(&log, "still more").await.unwrap();
}

/// A log and its fork with the same key, at the same size, and a witness that knows the honest one.
#[tokio::test]
async fn a_split_view_is_refused() {
    let place = Place::new(1, 1);
    let honest = place.create("honest");
    let (log, _, _) = place.open(&honest, Mode::Require).unwrap();
    log.append((0..40).map(draft).collect()).await.unwrap();
    drop(log);
    // The whole directory is copied, and both copies go on under the same key.
    let forked = place.dir("forked");
    copy(&honest, &forked);
    let (log, _, _) = place.open(&honest, Mode::Require).unwrap();
    log.append((0..10).map(|n| draft(format!("honest {n}"))).collect()).await.unwrap();
    let honest = log.head();
    assert_eq!(honest.size, 51);

    // The fork requires the witness: it gets no cosignature, whatever its size, and shows nothing new.
    let timeout = Duration::from_millis(300);
    // It aims at the newest head that it finds when it opens: 41 + 5, the same again, 51, and 58.
    for (round, (count, status)) in
        [(5, "older copy"), (5, "older copy"), (7, "422"), (1, "422")].into_iter().enumerate()
    {
        let (fork, _, metrics) = place.open_within(&forked, Mode::Require, timeout).unwrap();
        assert_eq!(fork.size(), 41);
        let drafts = (0..count).map(|n| draft(format!("forked {round} {n}"))).collect();
        let error = fork.append(drafts).await.unwrap_err();
        assert!(matches!(&error, LogError::Unwitnessed(why) if why.contains(status)), "{status}: {error}");
        assert_eq!(fork.size(), 41, "nothing of the fork is shown");
        assert!(metrics.encode().contains("countersign_witness_failures_total{witness=\"w0\""));
    }

    // A fork that asks nobody signs what it likes; a verifier with the policy tells them apart.
    let fork = open_log(&forked, None).unwrap();
    assert_eq!(fork.size(), 59);
    let key = log_key(ORIGIN, SEED).0;
    Checkpoint::verify(&fork.head().checkpoint, &key).unwrap();
    let denied = place.policy().check(&fork.head().checkpoint);
    assert!(matches!(denied, Err(PolicyDenial::Quorum { .. })), "{denied:?}");
    let witnessed = place.policy().check(&honest.checkpoint).unwrap();
    assert_eq!((witnessed.checkpoint().size, witnessed.checkpoint().root), (51, honest.root));
    // The honest cosignature does not fit on the fork's checkpoint.
    let mut stolen = Note::parse(&fork.head().checkpoint).unwrap();
    stolen.add(Note::parse(&honest.checkpoint).unwrap().signatures()[1].clone()).unwrap();
    assert!(matches!(place.policy().check(&stolen.to_string()), Err(PolicyDenial::Note(_))));
    // And the honest log goes on.
    append(&log, "honest and on").await.unwrap();
    place.assert_witnessed(&log.head().checkpoint);
}

#[tokio::test]
async fn an_older_copy_of_a_log_is_noticed() {
    let place = Place::new(1, 1);
    let dir = place.create("log");
    let (log, _, _) = place.open(&dir, Mode::Require).unwrap();
    append(&log, "a").await.unwrap();
    drop(log);
    copy(&dir, &place.dir("old"));
    let (log, _, _) = place.open(&dir, Mode::Require).unwrap();
    append(&log, "b").await.unwrap();
    append(&log, "c").await.unwrap();
    drop(log);
    // The backup is whole and opens; its first new entry meets a witness that remembers more.
    let (old, _, metrics) = place.open_within(&place.dir("old"), Mode::Require, Duration::from_millis(300)).unwrap();
    let error = append(&old, "another b").await.unwrap_err();
    assert!(error.to_string().contains("it has cosigned 4 entries"), "{error}");
    assert!(metrics.encode().contains("countersign_witness_failures_total{witness=\"w0\",reason=\"ahead\"}"));
    drop(old);
    // A record that is not of this database.
    fs::copy(dir.join("witnessed"), place.dir("old").join("witnessed")).unwrap();
    let opened = place.open(&place.dir("old"), Mode::Require);
    assert!(matches!(opened, Err(LogError::Lost { found: 3, acknowledged: 4 })), "{opened:?}");
    let log = open_log(&place.dir("old"), None).unwrap();
    log.append(vec![draft("x"), draft("y")]).await.unwrap();
    drop(log);
    let opened = place.open(&place.dir("old"), Mode::Require);
    assert!(matches!(opened, Err(LogError::Forked(4))), "{opened:?}");
    fs::write(place.dir("old").join("witnessed"), "nonsense").unwrap();
    assert!(matches!(place.open(&place.dir("old"), Mode::Require), Err(LogError::Checkpoint(_))));
}

/// A false witness: from a request's body, and a signer of it (body, time, seed), to status, content type and body.
type Answer = fn(&str, &dyn Fn(&str, u64, u8) -> String) -> (u16, &'static str, String);

#[tokio::test]
async fn what_is_no_cosignature_by_the_witness_does_not_count() {
    let (key, _) = cosigner_key("w.example", 7);
    let other = cosigner_key("w.example", 8);
    let sign = |body: &str, time: u64, seed: u8| {
        let request = AddCheckpoint::parse(body).unwrap();
        let note = Note::parse(&request.checkpoint).unwrap();
        let (key, pair) = cosigner_key("w.example", seed);
        let line = key.cosign(note.text_unsafe(), time, |message| Some(pair.sign(message).as_ref().to_vec()));
        format!("{}\n", line.unwrap())
    };
    let table: Vec<(&str, &str, Answer)> = vec![
        ("invalid", "not a signed note", |_, _| (200, "text/plain", "hello\n".to_owned())),
        ("invalid", "not a signed note", |_, _| (200, "text/plain", String::new())),
        ("invalid", "no line is by the key", |body, sign| (200, "text/plain", sign(body, 5, 8))),
        ("invalid", "has no time", |body, sign| (200, "text/plain", sign(body, 0, 7))),
        ("invalid", "does not verify", |body, sign| {
            let line = sign(&body.replace(ORIGIN, "gol.example"), 5, 7);
            (200, "text/plain", line)
        }),
        ("invalid", "longer than", |_, _| (200, "text/plain", "x".repeat(70_000))),
        ("invalid", "without a size", |_, _| (409, "text/x.tlog.size", "01\n".to_owned())),
        ("invalid", "another size each time", |body, _| {
            let old = AddCheckpoint::parse(body).unwrap().old;
            (409, "text/x.tlog.size", format!("{}\n", 1 - old))
        }),
        ("ahead", "older copy", |_, _| (409, "text/x.tlog.size", "18446744073709551615\n".to_owned())),
        ("refused", "409", |_, _| (409, "text/plain", "other root\n".to_owned())),
        ("refused", "404", |_, _| (404, "text/plain", "unknown\n".to_owned())),
        ("refused", "302", |_, _| (302, "text/plain", String::new())),
    ];
    for (reason, problem, answer) in table {
        let router = Router::new().route(
            "/add-checkpoint",
            post(move |body: String| async move {
                let (status, kind, text) = answer(&body, &sign);
                let status = http::StatusCode::from_u16(status).unwrap();
                (status, [("content-type", kind), ("location", "/add-checkpoint")], text)
            }),
        );
        let served = Served::router(router);
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("log");
        Log::create(&dir, ORIGIN, log_public(), sign_with(pair(SEED))).unwrap();
        let policy = format!("witness w {} {}\nquorum w\n", key.vkey(), served.url());
        let metrics = Metrics::new();
        let witness = Some(witnessing(&policy, Mode::Require, Duration::from_millis(150), &metrics));
        let opened = open_log(&dir, witness);
        let Err(LogError::Unwitnessed(why)) = opened else { panic!("{problem}: {opened:?}") };
        assert!(why.contains(problem), "{problem}: {why}");
        let failed = format!("countersign_witness_failures_total{{witness=\"w\",reason=\"{reason}\"}}");
        assert!(metrics.encode().contains(&failed), "{failed} is not in\n{}", metrics.encode());
        assert!(served.requests() <= 8, "{problem}: {} questions in 150 ms", served.requests());
    }
    // The right line counts, among others that are ignored.
    let router =
        Router::new().route(
            "/add-checkpoint",
            post(move |body: String| async move {
                format!("\u{2014} x AAAAAAA=\n{}{}", sign(&body, 5, 8), sign(&body, 6, 7))
            }),
        );
    let served = Served::router(router);
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    Log::create(&dir, ORIGIN, log_public(), sign_with(pair(SEED))).unwrap();
    let policy = format!("witness w {} {}/\nquorum w\n", key.vkey(), served.url());
    let witness = Some(witnessing(&policy, Mode::Require, Duration::from_secs(5), &Metrics::new()));
    let log = open_log(&dir, witness).unwrap();
    let note = Note::parse(&log.head().checkpoint).unwrap();
    assert_eq!((note.signatures().len(), key.verify(&note)), (2, Ok(6)));
    assert!(other.0.verify(&note).is_err());
}

#[test]
fn a_policy_that_cannot_work_is_refused() {
    let (w1, w2) = (cosigner_key("w1", 11).0.vkey(), cosigner_key("w2", 12).0.vkey());
    let other = log_key("log.example", 5).0.vkey();
    let table = [
        (Mode::Require, format!("log {other}\nwitness w {w1} https://w\nquorum w\n"), "not this one"),
        (Mode::Require, format!("witness w {w1}\nquorum w\n"), "no witness a URL"),
        (Mode::AttachLater, "quorum none\n".to_owned(), "no witness a URL"),
        (Mode::Require, format!("witness w {w1} https://w\nquorum none\n"), "requires nobody"),
        (
            Mode::Require,
            format!("witness w {w1} https://w\nwitness v {w2}\ngroup g all w v\nquorum g\n"),
            "cannot meet",
        ),
        (
            Mode::AttachLater,
            format!("witness w {w1} https://w\nwitness v {w2}\ngroup g all w v\nquorum g\n"),
            "cannot meet",
        ),
        (Mode::Require, format!("witness w {w1} w.example\nquorum w\n"), "w: \"w.example\" is not"),
        (Mode::Require, format!("witness w {w1} ftp://w.example\nquorum w\n"), "not a submission prefix"),
        (Mode::Require, format!("witness w {w1} https://w.example?x\nquorum w\n"), "not a submission prefix"),
    ];
    let new = |policy: &str, mode, ca: Option<&[u8]>| {
        let policy = Policy::parse(policy).unwrap();
        Witnessing::new(policy, &log_public(), mode, Duration::from_secs(1), ca, Metrics::new())
    };
    for (mode, policy, problem) in table {
        let error = new(&policy, mode, None).unwrap_err().to_string();
        assert!(error.contains(problem), "{policy}: {error}");
    }
    let fine = format!("witness w {w1} https://w.example/prefix/\nquorum none\n");
    new(&fine, Mode::AttachLater, None).unwrap();
    for ca in [b"nonsense".as_slice(), b""] {
        assert!(new(&fine, Mode::AttachLater, Some(ca)).unwrap_err().to_string().contains("ca_file"));
    }
}

#[tokio::test]
async fn a_witness_that_was_asked_by_nobody_knows_nothing() {
    // A witness may watch several logs; each has its own state.
    let home = tempfile::tempdir().unwrap();
    make(&home.path().join("w"), "w.example");
    let other = Leaves { origin: "other.example".to_owned(), seed: 4, hashes: Leaves::new(9, 9, "").hashes };
    let witness: Witness = open(&home.path().join("w"), vec![Leaves::new(0, 0, "").key(), other.key()]).unwrap();
    witness.add_checkpoint(&other.request(0, 9).to_string(), Timestamp::from_second(5).unwrap()).unwrap();
    assert_eq!(witness.sizes(), [("log.example".to_owned(), 0), ("other.example".to_owned(), 9)]);
}
