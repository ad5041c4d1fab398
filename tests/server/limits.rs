//! Slow, large and many: what strangers may take of the listeners, and how they are told that it is enough.

use std::time::{Duration, Instant};

use countersign::{
    grpc::v1::{self, admission_service_client::AdmissionServiceClient, signing_service_client::SigningServiceClient},
    model::{Digest, limits},
};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::Code;
use tonic_types::StatusExt as _;

use super::{POLICY, Service, connect, exchange, pod, review, signing};
use crate::{
    daemon::Daemon,
    fake_registry::{FakeRegistry, Knob},
};

/// The time for headers in these tests.
const HEADER_TIME: Duration = Duration::from_secs(1);
/// By then a slow client is gone: its time, and what a busy machine adds.
const BY_THEN: Duration = Duration::from_secs(4);

/// How long the other end lets us send one byte after another.
async fn drip(stream: &mut (impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin), bytes: &[u8]) -> Duration {
    let began = Instant::now();
    for byte in bytes.iter().cycle() {
        let mut answer = [0; 1];
        let closed = tokio::time::timeout(Duration::from_millis(50), stream.read(&mut answer)).await;
        let is_closed = matches!(closed, Ok(Ok(0) | Err(_)));
        if is_closed || stream.write_all(&[*byte]).await.is_err() || began.elapsed() > BY_THEN {
            break;
        }
    }
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_sends_headers_slowly_is_cut_off() {
    let mut house = Daemon::init(Some(POLICY), "[limits]\nheader_timeout_s = 1\n");
    house.start();
    let header = b"x-slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n";
    for port in [house.public, house.webhook] {
        let mut stream = connect(port, &house.ca()).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        let lasted = drip(&mut stream, header).await;
        assert!(lasted < BY_THEN, "slow headers lasted {lasted:?}");
        assert!(lasted > HEADER_TIME / 2, "cut off after {lasted:?}, before its time");
        // The second request of a connection has no more time than the first.
        let mut stream = connect(port, &house.ca()).await;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        let mut rest = vec![0; 4_096];
        tokio::time::timeout(Duration::from_millis(200), stream.read(&mut rest)).await.unwrap().unwrap();
        let lasted = drip(&mut stream, header).await;
        assert!(lasted < BY_THEN, "slow headers of a second request lasted {lasted:?}");
        // No handshake at all, and a handshake without a request.
        let mut silent = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let mut idle = connect(port, &house.ca()).await;
        for ended in [silent.read(&mut [0; 1]).await, idle.read(&mut [0; 1]).await] {
            assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
        }
    }
    // A prompt client is served all the while.
    let mut stream = connect(house.public, &house.ca()).await;
    let request = b"GET /checkpoint HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    assert!(exchange(&mut stream, request, BY_THEN).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_over_the_limit_are_refused() {
    let mut house = Daemon::init(Some(POLICY), "");
    house.start();
    let mut stream = connect(house.public, &house.ca()).await;
    let length = limits::ENTRY_REQUEST + 1;
    let head = format!("POST /checkpoint HTTP/1.1\r\nhost: localhost\r\ncontent-length: {length}\r\n\r\n");
    let answer = exchange(&mut stream, head.as_bytes(), BY_THEN).await;
    assert!(answer.starts_with("HTTP/1.1 413") && answer.contains("larger than 4194304 bytes"), "{answer}");
    let mut client = SigningServiceClient::new(house.channel("builder").await);
    let digest = Digest::of(b"x");
    let attest = |bytes: usize| v1::AttestRequest {
        subjects: vec![v1::Subject { name: String::new(), digest: digest.to_string() }],
        predicate_type: "https://example.test/x/v1".to_owned(),
        predicate: json!({ "x": "x".repeat(bytes) }).to_string().into_bytes().into(),
        ..Default::default()
    };
    let refused = client.attest(attest(limits::STATEMENT)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("the limit is"), "{refused:?}");
    let refused = client.attest(attest(limits::GRPC_MESSAGE)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    client.attest(attest(limits::DOCUMENT + 1)).await.unwrap();
}

/// With one request under way and no more allowed, the next is told so, in the form that it understands.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_many_requests_under_way_are_refused_clearly() {
    let fake = FakeRegistry::start().await;
    fake.set(Knob::Silent(true));
    let extra = format!("[limits]\nrequests = 1\n[registry]\nplain_http = [{:?}]\n", fake.host());
    let service = Service::new(POLICY, &extra);
    let api = service.api_server();
    let question = review(pod(&format!("{}/shop/app:v1", fake.host())));
    let waiting = {
        let (api, question) = (api.clone(), question.clone());
        tokio::spawn(async move { api.ask("/validate?timeout=3s", &question).await })
    };
    until_asked(&fake, 1).await;
    let refused = api.ask("/validate?timeout=3s", &question).await;
    assert_eq!(refused["status"]["code"], 503, "{refused}");
    assert!(refused["status"]["message"].as_str().unwrap().contains("too many"), "{refused}");
    assert_eq!(waiting.await.unwrap()["status"]["code"], 504, "the first got its own answer");
    // And again, now that there is room.
    assert_eq!(api.ask("/validate?timeout=1s", &question).await["status"]["code"], 504);

    let channel = service.house.channel("builder").await;
    let asked = fake.requests().len();
    let mut admit = AdmissionServiceClient::new(channel.clone());
    let manifest = pod(&format!("{}/shop/app:v2", fake.host())).to_string().into_bytes().into();
    let waiting = tokio::spawn(async move { admit.admit(v1::AdmitRequest { manifest, ..Default::default() }).await });
    until_asked(&fake, asked + 1).await;
    let refused = SigningServiceClient::new(channel.clone()).sign(signing(&Digest::of(b"x"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    assert_eq!(refused.get_details_error_info().unwrap().reason, "OVERLOADED");
    assert!(refused.get_details_retry_info().unwrap().retry_delay.is_some());
    let mut stream = connect(service.house.public, &service.house.ca()).await;
    let request = b"GET /checkpoint HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
    let answer = exchange(&mut stream, request, BY_THEN).await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1"), "{answer}");
    // Whoever gives up makes room.
    waiting.abort();
    let until = Instant::now() + BY_THEN;
    while SigningServiceClient::new(channel.clone()).sign(signing(&Digest::of(b"x"))).await.is_err() {
        assert!(Instant::now() < until, "the place of a caller who gave up is not free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn until_asked(fake: &FakeRegistry, count: usize) {
    let until = Instant::now() + BY_THEN;
    while fake.requests().len() < count {
        assert!(Instant::now() < until, "the registry was not asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_over_the_limit_are_closed_at_once() {
    let mut house = Daemon::init(Some(POLICY), "[limits]\nconnections = 2\n");
    house.start();
    let request = b"GET /checkpoint HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = connect(house.public, &house.ca()).await;
        stream.write_all(request).await.unwrap();
        let mut some = [0; 12];
        stream.read_exact(&mut some).await.unwrap();
        open.push(stream);
    }
    let mut third = TcpStream::connect(("127.0.0.1", house.public)).await.unwrap();
    let ended = tokio::time::timeout(BY_THEN, third.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    open.pop();
    let until = Instant::now() + BY_THEN;
    while super::try_connect(house.public, &house.ca(), rustls::ALL_VERSIONS).await.is_err() {
        assert!(Instant::now() < until, "the place of a closed connection is not free");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
