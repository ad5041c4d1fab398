//! The process that is killed: opens a log, appends from many callers, and says what each was told.
//!
//! Its messages go out by `sendto`, and its runtime has no I/O driver, so that no `write` of its own is among those that
//! system-call injection makes fail: all of them are the log's.

use std::{
    collections::HashMap,
    io,
    os::unix::net::UnixDatagram,
    path::PathBuf,
    process,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use countersign::log::{Damage, Fault, Log, LogError, Options, Skips, Step};
use serde::{Deserialize, Serialize};

use super::{
    audit::{self, check_receipt, leaf_hash},
    entry,
    ledger::Ledger,
    rot,
    seed::Seed,
};

/// Where a process finds its orders.
pub const ORDERS: &str = "COUNTERSIGN_CRASH_ORDERS";

/// What a process is started for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Orders {
    /// Where its messages go.
    pub socket: PathBuf,
    pub work: Work,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Work {
    Append(Append),
    Rot(rot::Orders),
}

/// Appends until it is killed, or until enough was acknowledged, and then closes the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Append {
    pub dir: PathBuf,
    pub life: u64,
    pub seed: u64,
    /// Makes the log first.
    pub create: bool,
    /// Callers count up from this number. What was tried before and never acknowledged is tried again.
    pub first: u64,
    pub callers: u64,
    /// Entries to be acknowledged before it closes.
    pub enough: u64,
    /// The log dawdles at its steps for up to so many microseconds.
    pub dawdle_us: u64,
    pub fault: Option<StepFault>,
    pub damage: Option<BatchDamage>,
    pub guards: Guards,
}

impl Append {
    /// What is the same in most runs: many callers, all guards, no faults.
    pub fn new(dir: PathBuf, ledger: &Ledger, seed: &mut Seed) -> Self {
        Self {
            dir,
            life: ledger.life,
            seed: seed.next(),
            create: false,
            first: ledger.next(),
            callers: 1 + seed.below(16),
            enough: 20 + seed.scaled(400),
            dawdle_us: *seed.pick(&[0, 0, 300, 3000]),
            fault: None,
            damage: None,
            guards: Guards::ON,
        }
    }
}

/// Which guards are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each guard is on or off, whatever the others are")]
pub struct Guards {
    pub sync: bool,
    pub anchor: bool,
    pub recompute: bool,
    /// Off where logs are copied about: a copy does not open by itself.
    pub home: bool,
}

impl Guards {
    pub const ON: Self = Self { sync: true, anchor: true, recompute: true, home: true };
    /// For logs that are copied about.
    pub const AWAY: Self = Self { home: false, ..Self::ON };

    pub fn skips(self) -> Skips {
        Skips {
            sync_unsafe: !self.sync,
            anchor_unsafe: !self.anchor,
            recompute_unsafe: !self.recompute,
            home_unsafe: !self.home,
        }
    }
}

/// What happens when the log comes to a step for the `at`th time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StepFault {
    /// The step, as it prints.
    pub step: String,
    pub at: u64,
    pub what: Fails,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fails {
    /// The process dies on the spot.
    Dies,
    /// The step fails, once.
    Once,
    /// The step fails from then on.
    Always,
}

impl Fails {
    const fn name(self) -> &'static str {
        match self {
            Self::Dies => "dies",
            Self::Once => "fails",
            Self::Always => "fails for good",
        }
    }
}

/// So many bits of the `at`th batch flip.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct BatchDamage {
    pub seed: u64,
    pub at: u64,
    pub bits: u64,
}

/// What the process says.
#[derive(Debug, Serialize, Deserialize)]
pub enum Message {
    Opening,
    /// The log did not open.
    Refused(String),
    Open(Seen),
    /// Entries (number, index) were acknowledged.
    Acknowledged(Seen, Vec<(u64, u64)>),
    /// A published head was seen.
    Head(Seen),
    /// An append failed.
    Failed(String),
    /// What was ordered to go wrong goes wrong now.
    Injected(String),
    /// Something happened that never may.
    Wrong(String),
    Closing,
    Closed,
    /// A round of bit rot begins.
    Rotting(String),
    /// It was harmless, or was named.
    Rotted(bool),
}

/// A signed checkpoint.
pub type Seen = String;

/// Where messages go.
#[derive(Debug, Clone)]
pub enum Outbox {
    Socket(Arc<UnixDatagram>, PathBuf),
    /// Within one process.
    Channel(mpsc::Sender<Message>),
}

impl Outbox {
    /// Nobody to talk to means that the programme is gone: so is this process.
    pub fn say(&self, message: Message) {
        match self {
            Self::Socket(socket, path) => {
                if socket.send_to(&serde_json::to_vec(&message).unwrap(), path).is_err() {
                    process::exit(0);
                }
            }
            Self::Channel(channel) => channel.send(message).unwrap(),
        }
    }
}

/// The whole life of the process.
pub fn main(orders: &str) {
    let Orders { socket, work } = serde_json::from_str(orders).unwrap();
    let outbox = Outbox::Socket(Arc::new(UnixDatagram::unbound().unwrap()), socket);
    match work {
        Work::Append(orders) => append(orders, outbox),
        Work::Rot(orders) => rot::work(&orders, &outbox),
    }
    // The test harness around it would still write, and a system call of it might be made to fail.
    process::exit(0);
}

/// Does what was ordered, in this process.
pub fn append(orders: Append, outbox: Outbox) {
    outbox.say(Message::Opening);
    let opened = make_and_open(&orders, &outbox);
    let log = match opened {
        Ok(log) => log,
        Err(error) => return outbox.say(Message::Refused(error.to_string())),
    };
    outbox.say(Message::Open(log.head().checkpoint.to_string()));
    let next = AtomicU64::new(orders.first);
    let clients = Arc::new(Clients { log, orders, outbox, next, acknowledged: AtomicU64::new(0) });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
    runtime.block_on(async {
        let watcher = tokio::spawn(watch(Arc::clone(&clients)));
        let callers = (0..clients.orders.callers).map(|caller| tokio::spawn(call(Arc::clone(&clients), caller)));
        for caller in callers.collect::<Vec<_>>() {
            caller.await.unwrap();
        }
        watcher.abort();
        let _: Result<(), _> = watcher.await;
    });
    clients.outbox.say(Message::Closing);
    clients.log.close();
    drop(runtime);
    let Clients { log, outbox, .. } = Arc::into_inner(clients).unwrap();
    drop(log);
    outbox.say(Message::Closed);
}

fn make_and_open(orders: &Append, outbox: &Outbox) -> Result<Log, LogError> {
    if orders.create {
        audit::create(&orders.dir)?;
    }
    let damage = orders.damage.as_ref().map(|damage| flip(damage, outbox.clone()));
    let (fault, skips) = (Some(fault(orders, outbox.clone())), orders.guards.skips());
    audit::open(&orders.dir, &Options { fault, damage, skips, ..audit::options() })
}

/// The log's steps, with what was ordered to happen at them.
fn fault(orders: &Append, outbox: Outbox) -> Fault {
    let (dawdle_us, ordered) = (orders.dawdle_us, orders.fault.clone());
    let state = Mutex::new((Seed::new(orders.seed), HashMap::<Step, u64>::new()));
    Arc::new(move |step| {
        let (dawdle, count) = {
            let (seed, counts) = &mut *state.lock().unwrap();
            let count = counts.entry(step).or_default();
            *count += 1;
            (seed.scaled(dawdle_us), *count)
        };
        if dawdle > 0 {
            thread::sleep(Duration::from_micros(dawdle));
        }
        let Some(fault) = ordered.as_ref().filter(|fault| fault.step == format!("{step:?}")) else { return Ok(()) };
        if count < fault.at || count > fault.at && fault.what == Fails::Once {
            return Ok(());
        }
        outbox.say(Message::Injected(format!("step {step:?} {}", fault.what.name())));
        match fault.what {
            Fails::Dies => process::abort(),
            Fails::Once | Fails::Always => Err(io::Error::other("ordered")),
        }
    })
}

fn flip(damage: &BatchDamage, outbox: Outbox) -> Damage {
    let (count, BatchDamage { seed, at, bits }) = (AtomicU64::new(0), damage.clone());
    Arc::new(move |batch| {
        if count.fetch_add(1, Ordering::SeqCst) + 1 == at {
            let mut seed = Seed::new(seed);
            for _ in 0..bits {
                batch[seed.index(batch.len())] ^= 1 << seed.below(8);
            }
            outbox.say(Message::Injected(format!("memory, {bits} bit")));
        }
    })
}

struct Clients {
    log: Log,
    orders: Append,
    outbox: Outbox,
    /// The next number that was never tried.
    next: AtomicU64,
    acknowledged: AtomicU64,
}

impl Clients {
    /// One entry, a few, or more than a tile; now and then some that are there already, or twice in one call.
    fn numbers(&self, seed: &mut Seed) -> Vec<u64> {
        let count = match seed.below(100) {
            0..70 => 1,
            70..97 => 2 + seed.below(15),
            _ => 100 + seed.below(200),
        };
        let number = |_| {
            let next = self.next.load(Ordering::SeqCst);
            if seed.chance(12) { seed.below(next + 1) } else { self.next.fetch_add(1, Ordering::SeqCst) }
        };
        (0..count).map(number).collect()
    }

    /// Appends and says what came of it; the receipts are checked as any client would.
    async fn append(&self, numbers: &[u64]) -> Result<(), LogError> {
        let drafts: Vec<_> = numbers.iter().map(|n| entry::draft(self.orders.life, *n)).collect();
        let hashes: Vec<_> = drafts.iter().map(|draft| leaf_hash(&draft.leaf)).collect();
        let receipts = self.log.append(drafts).await?;
        for (receipt, hash) in receipts.iter().zip(&hashes) {
            if let Err(wrong) = check_receipt(receipt, hash) {
                self.outbox.say(Message::Wrong(wrong));
            }
        }
        let entries = numbers.iter().copied().zip(receipts.iter().map(|receipt| receipt.index)).collect();
        self.outbox.say(Message::Acknowledged(receipts[0].checkpoint.to_string(), entries));
        self.acknowledged.fetch_add(receipts.len() as u64, Ordering::SeqCst);
        Ok(())
    }
}

/// One caller: appends until there is enough, or until the log fails, which is final.
async fn call(clients: Arc<Clients>, caller: u64) {
    let mut seed = Seed::new(clients.orders.seed.wrapping_add(caller << 32));
    while clients.acknowledged.load(Ordering::SeqCst) < clients.orders.enough {
        match clients.append(&clients.numbers(&mut seed)).await {
            Ok(()) => {}
            Err(LogError::Full) => tokio::time::sleep(Duration::from_millis(1)).await,
            Err(error) => {
                clients.outbox.say(Message::Failed(error.to_string()));
                let is_final = matches!(error, LogError::Broken(_));
                let number = clients.next.fetch_add(1, Ordering::SeqCst);
                if is_final && clients.append(&[number]).await.is_ok() {
                    clients.outbox.say(Message::Wrong("I8: the log was broken and went on".to_owned()));
                }
                return;
            }
        }
    }
}

/// Whoever reads heads binds the log to them as much as who appends.
async fn watch(clients: Arc<Clients>) {
    let mut sizes = clients.log.watch();
    while sizes.changed().await.is_ok() {
        clients.outbox.say(Message::Head(clients.log.head().checkpoint.to_string()));
    }
}
