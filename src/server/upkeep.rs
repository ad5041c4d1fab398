//! What would expire while the service runs is made anew long before, and what cannot be is warned of: at the start, and
//! once a day.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use jiff::{SignedDuration, Timestamp};
use tokio::{sync::watch, time::sleep};

use super::{Clock, ends::Ends};

/// How often the clock is looked at. It costs a few signature checks.
const PAUSE: Duration = Duration::from_secs(2);
/// How often the same warning is logged.
const REPEAT: SignedDuration = SignedDuration::from_hours(24);
/// One that the local authority issues lives 397 days; it is issued anew at half of that.
const TLS_RENEWAL: SignedDuration = SignedDuration::from_hours(12 * 397);

/// Everything that expires, and what it is renewed with.
#[derive(Debug)]
pub(super) struct Upkeep {
    pub(super) ends: Ends,
    /// What an issued TLS certificate is for.
    pub(super) names: Vec<String>,
    pub(super) clock: Clock,
}

impl Upkeep {
    /// What somebody should know of, one sentence each.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.ends.warnings((self.clock)())
    }

    /// Runs until `stop`.
    pub(super) async fn run(self: Arc<Self>, mut stop: watch::Receiver<bool>) {
        let mut warned: Option<Timestamp> = None;
        let mut failed = Vec::new();
        loop {
            let this = Arc::clone(&self);
            let failures = tokio::task::spawn_blocking(move || this.step()).await;
            let failures =
                failures.unwrap_or_else(|_lost| vec!["the upkeep of what expires was interrupted".to_owned()]);
            // Each once, and not every few seconds for as long as it lasts.
            for failure in failures.iter().filter(|failure| !failed.contains(*failure)) {
                tracing::warn!("{failure}");
            }
            failed = failures;
            let now = (self.clock)();
            if warned.is_none_or(|last| now.duration_since(last) >= REPEAT) {
                for warning in self.warnings() {
                    tracing::warn!(warning, "something will expire");
                }
                warned = Some(now);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                () = sleep(PAUSE) => {}
            }
        }
    }

    /// What could not be made anew, one sentence each.
    fn step(&self) -> Vec<String> {
        let now = (self.clock)();
        let mut failures = Vec::new();
        match self.ends.repository.refresh(now) {
            Ok(true) => tracing::info!("TUF metadata signed again"),
            Ok(false) => {}
            Err(error) => failures.push(format!("TUF metadata was not signed again; what is served stays: {error}")),
        }
        if let Err(error) = self.renew_tls(now) {
            failures.push(format!("no new TLS certificate was issued; the old one stays in use: {error:#}"));
        }
        failures
    }

    fn renew_tls(&self, now: Timestamp) -> anyhow::Result<()> {
        let Some(tls) = self.ends.tls.as_ref().filter(|tls| tls.is_issued()) else { return Ok(()) };
        if tls.not_after().is_some_and(|end| end.duration_since(now) >= TLS_RENEWAL) {
            return Ok(());
        }
        let (chain, key) =
            self.ends.keyring.tls_server(&self.names, now).context("the local authority cannot issue")?;
        tls.renew(chain, key)?;
        tracing::info!("TLS certificate issued anew");
        Ok(())
    }
}
