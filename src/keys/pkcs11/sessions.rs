//! Sessions with one token: as many as sign at once, up to a bound, each used by one thread at a time.
//!
//! A session ends when the token is pulled, the connection to it breaks or the module restarts, and says so at its next
//! use. Then it is thrown away and the work is tried once more with a new session, logged in anew. That is harmless: to
//! sign twice is to have two signatures of which one is thrown away. Where no session can be had, or the key is not in
//! it, the module itself begins anew, at most every five seconds and only while nobody else is in it: many find a token
//! again only then. A PIN that was refused is not tried again before the service is restarted: tokens lock themselves
//! after a few.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, OnceLock, PoisonError, RwLock, RwLockReadGuard},
    time::{Duration, Instant},
};

use cryptoki::{
    context::Pkcs11,
    error::{Error, RvError},
    object::ObjectHandle,
    session::{Session, UserType},
    slot::Slot,
    types::AuthPin,
};

use super::{TokenSettings, module};
use crate::keys::KeyError;

/// Sessions that may be open at once: signatures under way on the token.
const MOST: usize = 8;
/// How long a signature waits for a session while all are in use.
const PATIENCE: Duration = Duration::from_secs(2);

/// The least time between two fresh starts of the module.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// Why work on a token failed.
pub(super) enum Trouble {
    /// No session can be had, or the key is not there.
    Gone(KeyError),
    /// What the module said.
    Module(Error),
    /// Something that another session would not mend.
    Final(KeyError),
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self::Module(error)
    }
}

impl From<KeyError> for Trouble {
    fn from(error: KeyError) -> Self {
        Self::Final(error)
    }
}

/// A session, with the handles of the keys that were looked up in it: by id.
pub(super) struct Open {
    pub(super) session: Session,
    pub(super) handles: HashMap<Vec<u8>, ObjectHandle>,
}

/// All sessions with one token.
pub(super) struct Sessions {
    settings: TokenSettings,
    module: Pkcs11,
    pool: Mutex<Pool>,
    returned: Condvar,
    /// Read by whoever uses the module, written by whoever lets it begin anew.
    using: RwLock<()>,
    /// When it last began anew.
    restarted: Mutex<Option<Instant>>,
    /// Why the PIN is not tried again.
    locked_out: OnceLock<String>,
}

#[derive(Default)]
struct Pool {
    idle: Vec<Open>,
    /// Leases under way.
    leased: usize,
}

/// The right to one session; given back when dropped.
struct Lease<'a>(&'a Sessions);

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        let mut pool = self.0.pool.lock().unwrap_or_else(PoisonError::into_inner);
        pool.leased = pool.leased.saturating_sub(1);
        drop(pool);
        self.0.returned.notify_one();
    }
}

impl Sessions {
    /// Loads the module. The token is looked for when it is needed.
    pub(super) fn new(settings: TokenSettings) -> Result<Self, KeyError> {
        let module = module::load(&settings.module)?;
        Ok(Self {
            settings,
            module,
            pool: Mutex::default(),
            returned: Condvar::new(),
            using: RwLock::default(),
            restarted: Mutex::default(),
            locked_out: OnceLock::new(),
        })
    }

    pub(super) fn settings(&self) -> &TokenSettings {
        &self.settings
    }

    pub(super) fn module(&self) -> &Pkcs11 {
        &self.module
    }

    /// The refusal that names the token.
    pub(super) fn refuse(&self, problem: impl Into<String>) -> KeyError {
        KeyError::Token { token: self.settings.token.clone(), problem: problem.into() }
    }

    /// Does `work` in a session, and once more in a new one if the module refuses.
    pub(super) fn with<T>(
        &self,
        what: &'static str,
        work: impl Fn(&mut Open) -> Result<T, Trouble>,
    ) -> Result<T, KeyError> {
        let attempt = || {
            let _using = self.hold();
            self.attempt(&work)
        };
        let first = attempt();
        let done = if matches!(first, Err(Trouble::Gone(_))) && self.restart() { attempt() } else { first };
        done.map_err(|trouble| self.error(what, trouble))
    }

    fn attempt<T>(&self, work: impl Fn(&mut Open) -> Result<T, Trouble>) -> Result<T, Trouble> {
        let (_lease, idle) = self.lease()?;
        if let Some(mut open) = idle {
            match work(&mut open) {
                // A session may outlive its token, and show nothing of the one that is there now.
                Err(Trouble::Gone(_)) => {}
                Err(Trouble::Module(error)) => {
                    let token = &self.settings.token;
                    tracing::warn!(%error, token, "a session with the token ended; another one is opened");
                }
                answer => {
                    self.give_back(open);
                    return answer;
                }
            }
        }
        let mut open = Open { session: self.open(false)?, handles: HashMap::new() };
        let answer = work(&mut open);
        if answer.is_ok() {
            self.give_back(open);
        }
        answer
    }

    fn error(&self, what: &str, trouble: Trouble) -> KeyError {
        match trouble {
            Trouble::Gone(error) | Trouble::Final(error) => error,
            Trouble::Module(error) => self.refuse(format!("cannot {what}: {error}")),
        }
    }

    /// Lets the module begin anew, unless somebody is in it or it did a moment ago; whether it did.
    fn restart(&self) -> bool {
        let Ok(_alone) = self.using.try_write() else { return false };
        let mut last = self.restarted.lock().unwrap_or_else(PoisonError::into_inner);
        if last.is_some_and(|at| at.elapsed() < RESTART_PAUSE) {
            return false;
        }
        *last = Some(Instant::now());
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).idle.clear();
        let restarted = module::restart(&self.module);
        let token = &self.settings.token;
        match &restarted {
            Ok(()) => tracing::info!(token, "the module of the token began anew"),
            Err(error) => tracing::warn!(%error, token, "the module of the token cannot begin anew"),
        }
        restarted.is_ok()
    }

    /// Keeps the module from beginning anew meanwhile.
    pub(super) fn hold(&self) -> RwLockReadGuard<'_, ()> {
        self.using.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// A session of its own that may write, for making keys.
    pub(super) fn writing(&self) -> Result<Session, KeyError> {
        self.open(true).map_err(|trouble| self.error("open a session", trouble))
    }

    /// The slot that the token is in now: it may have moved.
    pub(super) fn slot(&self) -> Result<Slot, KeyError> {
        let label = &self.settings.token;
        let failed = |error: Error| self.refuse(format!("cannot be looked for: {error}"));
        let mut found = Vec::new();
        for slot in self.module.get_slots_with_token().map_err(failed)? {
            // A slot whose token was pulled meanwhile is none of ours.
            let Ok(info) = self.module.get_token_info(slot) else { continue };
            if info.label().trim_end() == label {
                found.push(slot);
            }
        }
        match found.as_slice() {
            [slot] => Ok(*slot),
            [] => Err(self.refuse(format!(
                "is not there: {} shows no token of that label; connect it, or correct [pkcs11] token",
                self.settings.module.display()
            ))),
            _ => Err(self.refuse("is there more than once; give each token a label of its own")),
        }
    }

    fn open(&self, writing: bool) -> Result<Session, Trouble> {
        let slot = self.slot().map_err(Trouble::Gone)?;
        let failed = |error: Error| Trouble::Gone(self.refuse(format!("opens no session: {error}")));
        let session = if writing { self.module.open_rw_session(slot) } else { self.module.open_ro_session(slot) };
        let session = session.map_err(failed)?;
        if let Some(why) = self.locked_out.get() {
            return Err(self.refuse(why.clone()).into());
        }
        let pin = self.settings.pin.load()?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.as_str().into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
            Err(Error::Pkcs11(RvError::PinIncorrect | RvError::PinLocked | RvError::PinExpired, _)) => {
                let why = format!(
                    "refuses the PIN from {}; correct it, and restart (it is not tried again: tokens lock themselves)",
                    self.settings.pin
                );
                Err(self.refuse(self.locked_out.get_or_init(|| why).clone()).into())
            }
            Err(error) => Err(Trouble::Gone(self.refuse(format!("lets nobody in: {error}")))),
        }
    }

    /// Waits for a free place, and takes the session that lies there, if one does.
    fn lease(&self) -> Result<(Lease<'_>, Option<Open>), KeyError> {
        let deadline = Instant::now() + PATIENCE;
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        while pool.leased >= MOST {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(self.refuse(format!("is busy: no session was free for {} seconds", PATIENCE.as_secs())));
            }
            pool = self.returned.wait_timeout(pool, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        pool.leased += 1;
        let idle = pool.idle.pop();
        Ok((Lease(self), idle))
    }

    fn give_back(&self, open: Open) {
        let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
        if pool.idle.len() < MOST {
            pool.idle.push(open);
        }
    }
}
