//! Keys from seeds, a log that is only a list of leaves, and a witness that is served on loopback.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use axum::{
    Router,
    extract::Request,
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
};
use countersign::{
    keys::{Cosigner, Kek},
    tlog::{Checkpoint, CosignerKey, Hash, LogKey, VerifierKey, leaf_hash, node_hash, witness::AddCheckpoint},
    witness::{Witness, face},
};
use jiff::Timestamp;
use tokio::sync::oneshot;

pub fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(pair: &Ed25519KeyPair) -> [u8; 32] {
    pair.public_key().as_ref().try_into().unwrap()
}

pub fn log_key(origin: &str, seed: u8) -> (VerifierKey, Ed25519KeyPair) {
    (VerifierKey::new(origin, public(&pair(seed))).unwrap(), pair(seed))
}

pub fn cosigner_key(name: &str, seed: u8) -> (CosignerKey, Ed25519KeyPair) {
    (CosignerKey::ed25519(name, public(&pair(seed))).unwrap(), pair(seed))
}

pub fn sign_with(pair: Ed25519KeyPair) -> impl Fn(&[u8]) -> [u8; 64] + Send + Sync + 'static {
    move |message| pair.sign(message).as_ref().try_into().unwrap()
}

/// A log as the definitions in RFC 6962 have it; `branch` tells forks with the same key apart.
pub struct Leaves {
    pub origin: String,
    pub seed: u8,
    pub hashes: Vec<Hash>,
}

impl Leaves {
    /// `count` leaves; from `fork` on they are those of another branch.
    pub fn new(count: u64, fork: u64, branch: &str) -> Self {
        let leaf = |n: u64| leaf_hash(format!("{}{n}", if n < fork { "" } else { branch }).as_bytes());
        Self { origin: "log.example".to_owned(), seed: 1, hashes: (0..count).map(leaf).collect() }
    }

    pub fn key(&self) -> LogKey {
        LogKey::Ed25519(log_key(&self.origin, self.seed).0)
    }

    pub fn root(&self, size: usize) -> Hash {
        root(&self.hashes[..size])
    }

    pub fn checkpoint(&self, size: usize) -> String {
        let (key, pair) = log_key(&self.origin, self.seed);
        let checkpoint = Checkpoint { origin: self.origin.clone(), size: size as u64, root: self.root(size) };
        checkpoint.sign(&key, sign_with(pair)).unwrap()
    }

    /// The request that takes a witness from `old` to `size`.
    pub fn request(&self, old: usize, size: usize) -> AddCheckpoint {
        let proof = if old == 0 || old == size { Vec::new() } else { subproof(old, &self.hashes[..size], true) };
        AddCheckpoint { old: old as u64, proof, checkpoint: self.checkpoint(size) }
    }
}

fn split(count: usize) -> usize {
    count.next_power_of_two() / 2
}

fn root(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => countersign::tlog::EMPTY_ROOT,
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node_hash(&root(left), &root(right))
        }
    }
}

/// SUBPROOF of RFC 6962 section 2.1.2.
fn subproof(old: usize, leaves: &[Hash], whole: bool) -> Vec<Hash> {
    if old == leaves.len() {
        return if whole { Vec::new() } else { vec![root(leaves)] };
    }
    let (left, right) = leaves.split_at(split(leaves.len()));
    let (mut proof, other) = if old <= left.len() {
        (subproof(old, left, whole), root(right))
    } else {
        (subproof(old - left.len(), right, false), root(left))
    };
    proof.push(other);
    proof
}

pub fn kek() -> Kek {
    Kek::parse(&[0x9c; 32]).unwrap()
}

/// Makes a witness in `dir`.
pub fn make(dir: &Path, name: &str) {
    Cosigner::create(dir, &kek(), name, Timestamp::UNIX_EPOCH).unwrap();
    Witness::create(dir).unwrap();
}

pub fn open(dir: &Path, logs: Vec<LogKey>) -> Result<Witness, countersign::witness::StateError> {
    Witness::open(dir, Cosigner::open(dir, &kek()).unwrap(), logs)
}

/// What a served witness does with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// Answers.
    Up = 0,
    /// Answers 503.
    Down = 1,
    /// Does not answer.
    Hangs = 2,
    /// Answers after 200 ms.
    Slow = 3,
}

#[derive(Default)]
struct Shared {
    mood: AtomicU8,
    requests: AtomicU64,
}

/// A router that is served on loopback, in a thread and runtime of its own, until dropped.
pub struct Served {
    pub port: u16,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Served {
    pub fn witness(witness: Arc<Witness>) -> Self {
        Self::router(face::router(witness, Timestamp::now))
    }

    pub fn router(router: Router) -> Self {
        let shared = Arc::new(Shared::default());
        let moods = Arc::clone(&shared);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = router.layer(middleware::from_fn(move |request: Request, next: Next| {
            let shared = Arc::clone(&moods);
            async move { answer(&shared, request, next).await }
        }));
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let serve = async move { axum::serve(listener, router).await.unwrap() };
                tokio::select! {
                    () = serve => {}
                    _ = stopped => {}
                }
            });
        });
        Self { port, shared, stop: Some(stop), thread: Some(thread) }
    }

    pub fn set(&self, mood: Mood) {
        self.shared.mood.store(mood as u8, Ordering::SeqCst);
    }

    /// Requests that came.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::SeqCst)
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

async fn answer(shared: &Shared, request: Request, next: Next) -> Response {
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let mood = shared.mood.load(Ordering::SeqCst);
    if mood == Mood::Down as u8 {
        return (http::StatusCode::SERVICE_UNAVAILABLE, "down\n").into_response();
    }
    if mood == Mood::Hangs as u8 {
        std::future::pending::<()>().await;
    }
    if mood == Mood::Slow as u8 {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    next.run(request).await
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(stop) = self.stop.take() {
            stop.send(()).unwrap_or_default();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Waits until something is so, for ten seconds.
#[track_caller]
pub fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(std::time::Instant::now() < deadline, "{what}: not within ten seconds");
        std::thread::sleep(Duration::from_millis(5));
    }
}
