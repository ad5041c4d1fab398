//! A bare HTTP/1.1 client that shows every byte, and a server around a log.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use countersign::{
    log::{Draft, Log, Logs, Options},
    server::{Bounds, Listener, tiles},
};
use tokio::sync::watch;

pub const ORIGIN: &str = "tiles.test";

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[5; 32]).unwrap()
}

fn sign(message: &[u8]) -> [u8; 64] {
    pair().sign(message).as_ref().try_into().unwrap()
}

fn public() -> [u8; 32] {
    pair().public_key().as_ref().try_into().unwrap()
}

pub fn open(dir: &Path) -> Log {
    Log::open(dir, public(), sign, Options::default()).unwrap()
}

pub fn new_log(dir: &Path) -> Log {
    new_log_of(dir, ORIGIN)
}

pub fn new_log_of(dir: &Path, origin: &str) -> Log {
    Log::create(dir, origin, public(), sign).unwrap();
    open(dir)
}

/// Appends `entry N` for each index until the log has `size` entries.
pub async fn fill(log: &Log, size: u64) {
    while log.size() < size {
        let next = log.size();
        let drafts = (next..size.min(next + 1_024))
            .map(|n| Draft { leaf: format!("entry {n}").into_bytes(), payload: Vec::new() })
            .collect();
        log.append(drafts).await.unwrap();
    }
}

/// A served log; it stops when dropped.
pub struct Served {
    pub log: Log,
    pub address: SocketAddr,
    pub dir: PathBuf,
    _stop: watch::Sender<bool>,
}

pub async fn serve(log: Log, dir: PathBuf, compressing: usize) -> Served {
    serve_all(log.clone().into(), log, dir, compressing).await
}

pub async fn serve_all(logs: Logs, log: Log, dir: PathBuf, compressing: usize) -> Served {
    let bounds =
        Bounds { connections: 64, header_timeout: Duration::from_secs(10), drain_timeout: Duration::from_secs(1) };
    let listener = Listener::bind("public", "127.0.0.1:0".parse().unwrap(), None, bounds).await.unwrap();
    let (address, stop) = (listener.address(), watch::Sender::new(false));
    tokio::spawn(listener.serve(tiles::router_with(logs, compressing), stop.subscribe()));
    Served { log, address, dir, _stop: stop }
}

/// An answer, as it came.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// A connection that is kept.
pub struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub fn to(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: BufReader::new(stream) }
    }

    /// Sends a request for the log by its name, and reads the answer. `path` goes out as it is.
    pub fn send(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send_to(ORIGIN, method, path, headers)
    }

    /// Sends a request to `host`.
    pub fn send_to(&mut self, host: &str, method: &str, path: &str, headers: &[(&str, &str)]) -> Answer {
        let more: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\n{more}\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let mut line = || {
            let mut line = String::new();
            self.stream.read_line(&mut line).unwrap();
            line.trim_end().to_owned()
        };
        let status = line().split(' ').nth(1).unwrap_or_else(|| panic!("no answer to {path}")).parse().unwrap();
        let mut headers = BTreeMap::new();
        loop {
            let line = line();
            let Some((name, value)) = line.split_once(':') else { break };
            let old = headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            assert_eq!(old, None, "{name} twice");
        }
        let announced = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        assert!(!headers.contains_key("transfer-encoding"), "every answer says how long it is");
        let mut body = vec![0; if method == "HEAD" || status == 304 { 0 } else { announced }];
        self.stream.read_exact(&mut body).unwrap();
        Answer { status, headers, body }
    }

    pub fn get(&mut self, path: &str) -> Answer {
        self.send("GET", path, &[])
    }
}
