//! The side that survives: starts the process, listens to it, kills it, and keeps the ledger.

use std::{
    fs::{self, File},
    io,
    os::unix::{
        net::UnixDatagram,
        process::{CommandExt as _, ExitStatusExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use super::{
    ledger::Ledger,
    worker::{Message, ORDERS, Orders, Work},
};

/// No process is silent for so long unless it hangs.
const PATIENCE: Duration = Duration::from_mins(1);
/// The longest message: an acknowledgement of the largest batch.
const LONGEST: usize = 128 * 1024;
const SIGKILL: i32 = 9;

/// When a process is killed. All waits are in microseconds.
#[derive(Debug, Clone, Copy)]
pub enum Kill {
    Never,
    /// So long after it began to open the log.
    Opening(u64),
    /// So long after so many entries were acknowledged.
    Acknowledged(u64, u64),
    /// So long after it began to close the log.
    Closing(u64),
}

/// How far a process came.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    #[default]
    Starting,
    Opening,
    Open,
    Closing,
    Closed,
}

/// What a process told before it ended.
#[derive(Debug, Default)]
pub struct Story {
    pub phase: Phase,
    /// Entries that were acknowledged.
    pub acknowledged: u64,
    /// The log did not open.
    pub refused: Option<String>,
    /// Appends that failed.
    pub failed: Vec<String>,
    /// What was made to go wrong.
    pub injected: Vec<String>,
    /// Rounds of bit rot: harmless, named.
    pub rotted: (u64, u64),
    /// The round of bit rot that was going on.
    pub rotting: String,
    /// What may never happen.
    pub wrong: Vec<String>,
    /// Whether it died of a signal, or of SIGKILL.
    pub killed: bool,
    pub aborted: bool,
}

impl Story {
    /// Takes in a message, and writes into the ledger what clients were told.
    pub fn take_in(&mut self, message: Message, ledger: &mut Ledger) {
        let told = match message {
            Message::Open(seen) => {
                self.phase = Phase::Open;
                ledger.saw(&seen).map(|_| ())
            }
            Message::Head(seen) => ledger.saw(&seen).map(|_| ()),
            Message::Acknowledged(seen, entries) => {
                self.acknowledged += entries.len() as u64;
                ledger.acknowledged(&seen, &entries)
            }
            Message::Wrong(wrong) => Err(wrong),
            message => {
                self.note(message);
                Ok(())
            }
        };
        self.wrong.extend(told.err());
    }

    fn note(&mut self, message: Message) {
        match message {
            Message::Opening => self.phase = Phase::Opening,
            Message::Closing => self.phase = Phase::Closing,
            Message::Closed => self.phase = Phase::Closed,
            Message::Refused(reason) => self.refused = Some(reason),
            Message::Failed(reason) => self.failed.push(reason),
            Message::Injected(what) => self.injected.push(what),
            Message::Rotting(what) => self.rotting = what,
            Message::Rotted(true) => self.rotted.0 += 1,
            Message::Rotted(false) => self.rotted.1 += 1,
            Message::Open(_) | Message::Head(_) | Message::Acknowledged(..) | Message::Wrong(_) => {}
        }
    }

    /// A process that was not made to fail must not fail.
    pub fn expect_no_failure(&mut self) {
        let failures = self.refused.take().into_iter().chain(self.failed.drain(..));
        self.wrong.extend(failures.map(|failure| format!("I8: refused without cause: {failure}")));
    }
}

/// A running process of [`super::worker`].
pub struct Process {
    child: Child,
    is_traced: bool,
    inbox: UnixDatagram,
    /// Holds the socket and what the process wrote to its standard error. A short path: sockets must have one.
    home: tempfile::TempDir,
    story: Story,
}

impl Process {
    /// Starts a process, under `tracer` (a program and its arguments) if that is not empty.
    pub fn start(work: Work, tracer: &[String]) -> Self {
        let home = tempfile::Builder::new().prefix("crash").tempdir().unwrap();
        let socket = home.path().join("inbox");
        let inbox = UnixDatagram::bind(&socket).unwrap();
        let orders = serde_json::to_string(&Orders { socket, work }).unwrap();
        let mut command = match tracer {
            [] => Command::new(std::env::current_exe().unwrap()),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(std::env::current_exe().unwrap());
                command
            }
        };
        let errors = File::create(home.path().join("errors")).unwrap();
        let child = command
            .args(["crash::worker_process", "--ignored", "--exact", "--quiet", "--nocapture"])
            .env(ORDERS, orders)
            // The loader looks through what cargo puts here, so that it would open more files than `syscalls` lets it.
            .env_remove("LD_LIBRARY_PATH")
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        Self { child, is_traced: !tracer.is_empty(), inbox, home, story: Story::default() }
    }

    /// Listens until the process ends, or until `kill` or `cut` says that it must.
    pub fn listen(mut self, kill: Kill, ledger: &mut Ledger, mut cut: impl FnMut() -> bool) -> Story {
        let mut heard_at = Instant::now();
        let mut moment = None;
        loop {
            let now = Instant::now();
            if moment.is_some_and(|moment| now >= moment) || cut() {
                self.kill();
                break;
            }
            if now > heard_at + PATIENCE {
                self.story.wrong.push(format!("the process hangs; it was {:?}", self.story.phase));
                self.kill();
                break;
            }
            let wait = moment.map_or(Duration::from_millis(1), |moment| moment - now);
            if self.hear(Some(wait), ledger) {
                heard_at = Instant::now();
            } else if self.child.try_wait().unwrap().is_some() {
                break;
            }
            moment = moment.or_else(|| {
                let Story { phase, acknowledged, .. } = &self.story;
                let wait = match kill {
                    Kill::Opening(wait) if *phase >= Phase::Opening => wait,
                    Kill::Acknowledged(enough, wait) if *acknowledged >= enough => wait,
                    Kill::Closing(wait) if *phase >= Phase::Closing => wait,
                    _ => return None,
                };
                Some(Instant::now() + Duration::from_micros(wait))
            });
        }
        let status = self.child.wait().unwrap();
        while self.hear(None, ledger) {}
        self.end(status)
    }

    /// Kills the process, and first what is traced by it: it would outlive its tracer.
    fn kill(&mut self) {
        if self.is_traced {
            let group = format!("-{}", self.child.id());
            // It may have ended by itself.
            let _: io::Result<ExitStatus> = Command::new("kill").args(["-9", "--", &group]).status();
        }
        self.child.kill().unwrap();
    }

    /// Takes in one message. `None` does not wait for one.
    fn hear(&mut self, wait: Option<Duration>, ledger: &mut Ledger) -> bool {
        let mut bytes = vec![0; LONGEST];
        self.inbox.set_nonblocking(wait.is_none()).unwrap();
        // A wait of nothing would be one without end.
        self.inbox.set_read_timeout(wait.map(|wait| wait.max(Duration::from_micros(20)))).unwrap();
        match self.inbox.recv(&mut bytes) {
            Ok(length) => {
                self.story.take_in(serde_json::from_slice(&bytes[..length]).unwrap(), ledger);
                true
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => false,
            Err(error) => panic!("cannot listen: {error}"),
        }
    }

    fn end(mut self, status: ExitStatus) -> Story {
        self.story.killed = status.signal() == Some(SIGKILL);
        self.story.aborted = status.signal().is_some_and(|signal| signal != SIGKILL);
        if status.code().is_some_and(|code| code != 0) {
            let errors = fs::read_to_string(self.home.path().join("errors")).unwrap_or_default();
            let panic: Vec<&str> = errors.lines().skip_while(|line| !line.contains("panicked")).take(3).collect();
            self.story.wrong.push(format!("I8: the process failed ({status}): {}", panic.join(" ")));
        }
        self.story
    }
}
