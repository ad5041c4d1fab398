//! Watches: filters, resuming, signs of progress, bounds, and how they end.

use std::time::Duration;

use countersign::{
    grpc::{
        log::LogFace,
        v1::{self, log_service_client::LogServiceClient, log_service_server::LogService as _},
    },
    keys::{Kek, Keyring},
    log::{Draft, Log, Options},
    model::{Role, predicate},
};
use futures_util::StreamExt as _;
use tokio::time::timeout;
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{
    grpc::{auditor, face, from},
    library::{CUSTOM, Library, Said},
};
use crate::daemon::Daemon;

const SOON: Duration = Duration::from_secs(20);

fn said(n: usize) -> Said {
    Said { predicate_type: if n.is_multiple_of(5) { CUSTOM } else { predicate::SIGN }, ..Said::default() }
}

fn custom() -> Option<v1::EntryFilter> {
    Some(v1::EntryFilter { predicate_type: Some(CUSTOM.to_owned()), ..Default::default() })
}

/// The next message, which must come.
macro_rules! next {
    ($stream:expr) => {
        timeout(SOON, $stream.next()).await.unwrap().unwrap().unwrap()
    };
}

#[tokio::test]
async fn a_watch_sends_what_fits_once_and_goes_on_where_another_ended() {
    let mut library = Library::new();
    library.add((0..12).map(said)).await;
    let (face, _stop) = face(&library);
    let request = v1::WatchRequest { filter: custom(), with_payload: true, ..Default::default() };
    let mut stream = face.watch(auditor(request.clone())).await.unwrap().into_inner();
    let mut seen = Vec::new();
    let mut resume = 0;
    for _ in 0..2 {
        let message = next!(stream);
        let entry = message.entry.unwrap();
        assert_eq!(library.log.entry(entry.index).unwrap().payload.unwrap(), entry.payload);
        assert_eq!(message.summary.unwrap().index, entry.index);
        assert!(message.resume_index > entry.index);
        seen.push(entry.index);
        resume = message.resume_index;
    }
    drop(stream);
    library.add((12..30).map(said)).await;
    let request = v1::WatchRequest { from_index: resume, with_payload: false, ..request };
    let mut stream = face.watch(auditor(request)).await.unwrap().into_inner();
    for _ in 0..4 {
        let entry = next!(stream).entry.unwrap();
        assert!(entry.payload.is_empty());
        seen.push(entry.index);
    }
    assert_eq!(seen, [1, 6, 11, 16, 21, 26]);
    // Nothing is there: it waits, and sends what is recorded then.
    assert!(timeout(Duration::from_millis(100), stream.next()).await.is_err());
    let (message, ()) = tokio::join!(timeout(SOON, stream.next()), library.add((30..31).map(said)));
    assert_eq!(message.unwrap().unwrap().unwrap().entry.unwrap().index, 31);
}

#[tokio::test]
async fn a_silent_watch_says_how_far_it_looked() {
    let mut library = Library::new();
    library.add((1..4).map(said)).await;
    library.add([Said { time: None, predicate_type: CUSTOM, ..Said::default() }]).await;
    let (face, _stop) = face(&library);
    let face = face.with_silence(Duration::from_millis(50));
    let since = Some("2030-01-01T00:00:00Z".to_owned());
    let filter = custom().map(|filter| v1::EntryFilter { since, ..filter });
    let request = v1::WatchRequest { filter, ..Default::default() };
    let mut stream = face.watch(auditor(request)).await.unwrap().into_inner();
    let message = next!(stream);
    assert!(message.entry.is_none() && message.summary.is_none());
    assert_eq!((message.resume_index, message.size, message.without_time), (5, 5, 1));
    library.add((6..8).map(said)).await;
    loop {
        let message = next!(stream);
        assert_eq!((message.entry, message.without_time), (None, 0), "counted once");
        if message.resume_index == 7 {
            break;
        }
    }
    // A watch may begin in the future.
    let request = v1::WatchRequest { from_index: 9, ..Default::default() };
    let mut stream = face.watch(auditor(request)).await.unwrap().into_inner();
    assert_eq!(next!(stream).resume_index, 9);
    library.add((8..12).map(said)).await;
    loop {
        if let Some(entry) = next!(stream).entry {
            assert_eq!(entry.index, 9);
            break;
        }
    }
}

#[tokio::test]
async fn watches_end_with_the_service_and_say_where_to_go_on() {
    let mut library = Library::new();
    library.add((0..6).map(said)).await;
    let (face, stop) = face(&library);
    let open = async |from_index| {
        let request = v1::WatchRequest { from_index, ..Default::default() };
        face.watch(auditor(request)).await.unwrap().into_inner()
    };
    let (mut waiting, mut reading, mut unread) = (open(7).await, open(0).await, open(0).await);
    assert_eq!(next!(reading).entry.unwrap().index, 0);
    let (ended, ()) = tokio::join!(timeout(SOON, waiting.next()), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        stop.send_replace(true);
    });
    let ended = [
        ended.unwrap().unwrap().unwrap_err(),
        reading.next().await.unwrap().unwrap_err(),
        unread.next().await.unwrap().unwrap_err(),
    ];
    for (status, resume) in ended.iter().zip(["7", "1", "0"]) {
        assert_eq!(status.code(), Code::Unavailable);
        assert!(status.message().contains(&format!("from index {resume}")), "{}", status.message());
        let info = status.get_details_error_info().unwrap();
        assert_eq!((info.reason.as_str(), info.metadata["resume_index"].as_str()), ("STOPPING", resume));
        assert!(status.get_details_retry_info().unwrap().retry_delay.is_some());
    }
    assert!(waiting.next().await.is_none() && reading.next().await.is_none() && unread.next().await.is_none());
    assert_eq!(open(0).await.next().await.unwrap().unwrap_err().code(), Code::Unavailable);
}

/// A frozen log is sent to its end, whoever came in time and whoever comes later; then the watch says who goes on.
#[tokio::test]
async fn a_watch_of_a_frozen_log_ends_and_names_its_successor() {
    let mut library = Library::new();
    library.add((0..6).map(said)).await;
    let (logs, stop) = (library.logs(), tokio::sync::watch::Sender::new(false));
    let face = LogFace::new(logs.clone(), stop.subscribe()).with_silence(Duration::from_millis(100));
    let request = |origin: &str| v1::WatchRequest { from_index: 5, origin: origin.to_owned(), ..Default::default() };
    let first = library.log.origin().to_owned();
    let mut early = face.watch(auditor(request(""))).await.unwrap().into_inner();
    assert_eq!(next!(early).entry.unwrap().index, 5);
    library.add((6..8).map(said)).await;
    logs.succeed(library.another("log2.test")).unwrap();
    let late = face.watch(auditor(request(&first))).await.unwrap().into_inner();
    for (mut stream, from) in [(early, 6), (late, 5)] {
        let mut seen = Vec::new();
        let ended = loop {
            match timeout(SOON, stream.next()).await.unwrap().unwrap() {
                Ok(message) => seen.extend(message.entry.map(|entry| entry.index)),
                Err(status) => break status,
            }
        };
        assert_eq!(seen, (from..9).collect::<Vec<_>>());
        let info = ended.get_details_error_info().unwrap();
        assert_eq!((ended.code(), info.reason.as_str()), (Code::OutOfRange, "LOG_FROZEN"));
        assert_eq!((info.metadata["successor"].as_str(), info.metadata["resume_index"].as_str()), ("log2.test", "9"));
        assert!(stream.next().await.is_none());
    }
    let mut present = face.watch(auditor(v1::WatchRequest::default())).await.unwrap().into_inner();
    assert_eq!(next!(present).entry.unwrap().leaf, logs.present().entry(0).unwrap().leaf);
}

#[tokio::test]
async fn how_many_may_watch_is_bounded() {
    let mut library = Library::new();
    library.add((0..2).map(said)).await;
    let (face, _stop) = face(&library);
    let open = async |who: &str| {
        face.watch(from(who, &[Role::Auditor], v1::WatchRequest::default())).await.map(tonic::Response::into_inner)
    };
    let mut held = Vec::new();
    for _ in 0..32 {
        held.push(open("greedy@x.test").await.ok().unwrap());
    }
    let refusal = open("greedy@x.test").await.err().unwrap();
    assert_eq!(refusal.code(), Code::ResourceExhausted);
    assert!(refusal.message().contains("greedy@x.test") && refusal.message().contains("32"), "{}", refusal.message());
    assert_eq!(refusal.get_details_error_info().unwrap().reason, "TOO_MANY_WATCHES");
    // One that ends makes room for one, also when it was being read.
    let mut one = held.pop().unwrap();
    assert_eq!(next!(one).entry.unwrap().index, 0);
    drop(one);
    held.push(open("greedy@x.test").await.ok().unwrap());
    assert!(open("greedy@x.test").await.is_err());
    for n in 0..7 {
        for _ in 0..32 {
            held.push(open(&format!("{n}@x.test")).await.ok().unwrap());
        }
    }
    assert_eq!(held.len(), 256);
    let refusal = open("modest@x.test").await.err().unwrap();
    assert!(refusal.message().contains("256 watches"), "{}", refusal.message());
    held.truncate(200);
    assert!(open("modest@x.test").await.is_ok());
}

/// Resident memory of a process, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Watchers that do not read, over a real connection: the service holds little for them, and stops in time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_costs_little_and_delays_nothing() {
    const PAYLOAD: usize = 6 * 1024 * 1024;
    let mut daemon = Daemon::init(None, "[limits]\ndrain_timeout_s = 10\n");
    let kek = Kek::parse(&std::fs::read(daemon.path().join("kek")).unwrap()).unwrap();
    let key = Keyring::open(&daemon.data(), &kek).unwrap().log_key();
    let log = Log::open(&daemon.data().join("log"), key.public_key(), move |note| key.sign(note), Options::default());
    let log = log.unwrap();
    for n in 0..40_u8 {
        log.append(vec![Draft { leaf: vec![n + 1], payload: vec![n; PAYLOAD] }]).await.unwrap();
    }
    log.close();
    drop(log);
    daemon.start();
    let before = resident(daemon.pid());
    let mut streams = Vec::new();
    for _ in 0..4 {
        let client = LogServiceClient::new(daemon.channel("builder").await);
        let mut client = client.max_decoding_message_size(32 * 1024 * 1024);
        let request = v1::WatchRequest { with_payload: true, ..Default::default() };
        let mut stream = client.watch(request).await.unwrap().into_inner();
        assert!(stream.message().await.unwrap().unwrap().entry.is_some());
        streams.push((client, stream));
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident(daemon.pid()).saturating_sub(before);
    println!("4 watchers that do not read: {} MiB more", grown / 1024 / 1024);
    assert!(grown < 200 * 1024 * 1024, "{grown} bytes more for 4 watchers; all payloads are {}", 40 * PAYLOAD);
    // One that reads gets everything, meanwhile.
    let (_client, stream) = &mut streams[0];
    for index in 1..41 {
        let entry = timeout(SOON, stream.message()).await.unwrap().unwrap().unwrap().entry.unwrap();
        assert_eq!((entry.index, entry.payload.len()), (index, PAYLOAD));
    }
    // A watch that waits for news does not hold up the end of the service.
    streams.truncate(1);
    let started = std::time::Instant::now();
    let stopped = tokio::task::spawn_blocking(move || (daemon.stop().unwrap().success(), daemon));
    let ended = timeout(SOON, streams[0].1.message()).await.unwrap().unwrap_err();
    assert_eq!(ended.get_details_error_info().unwrap().metadata["resume_index"], "41");
    let (in_order, daemon) = stopped.await.unwrap();
    assert!(in_order, "{}", daemon.log());
    assert!(started.elapsed() < Duration::from_secs(8), "{:?}: it waited for the watch", started.elapsed());
}
