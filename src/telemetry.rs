//! Names of metrics, and the request id that goes through every layer.
//!
//! Pure bookkeeping: no exporter, no listener, no clock. Who serves [`Metrics::encode`] and who writes the id into logs
//! and answers is the server's business. All names start with `countersign_`; the unit is the last part of each. Labels
//! take values from small closed sets, so that nobody outside can make the list of series grow without bound. The one
//! that strangers choose is `host` (whoever may create a pod names a registry): the first [`HOSTS`] have series of their
//! own, what is asked after them counts as `other`. `witness` is a name of the configured witness policy.
//!
//! What goes into the log of an error is written here too: [`with_causes`].
//!
//! Two kinds of numbers: what happens is counted when it happens; what a part counts itself (log, registries, caches,
//! recordings) is [set](Metrics::set) to its total when the page is read.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// An error with its causes, outermost first: what a log needs, and a caller is not told.
pub fn with_causes(error: &dyn Error) -> String {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Registries that have series of their own, as a count.
pub const HOSTS: usize = 64;

/// Answers of one door.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    door: &'static str,
    decision: &'static str,
    reason: String,
    effect: &'static str,
}

/// Time to the answer behind one door.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DoorLabels {
    door: &'static str,
}

/// Requests of one method behind one door.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    door: &'static str,
    method: String,
    outcome: &'static str,
}

/// Requests to one registry, by how they ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegistryLabels {
    host: String,
    code: u16,
}

/// Something counted elsewhere: which part of it, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TotalLabels {
    what: &'static str,
    outcome: &'static str,
}

/// One witness of the log, by its name in the policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WitnessLabels {
    witness: String,
}

/// Failures of one witness, by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WitnessFailureLabels {
    witness: String,
    reason: &'static str,
}

/// Something that will expire.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExpiryLabels {
    what: String,
}

/// All metrics of one process. Clones share the same numbers.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    decisions: Family<DecisionLabels, Counter>,
    decision_seconds: Family<DoorLabels, Histogram, fn() -> Histogram>,
    break_glass: Family<[(&'static str, &'static str); 1], Counter>,
    request_seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
    refused_callers: Family<[(&'static str, &'static str); 1], Counter>,
    log_size: Gauge,
    log_commits: Gauge,
    log_fsyncs: Gauge,
    log_queue: Gauge,
    log_broken: Gauge,
    registry_requests: Family<RegistryLabels, Counter>,
    registry_breakers: Gauge,
    /// Registries with series of their own. Owner: [`Metrics::registries`].
    hosts: Arc<Mutex<BTreeSet<String>>>,
    evidence: Family<TotalLabels, Counter>,
    records: Family<TotalLabels, Counter>,
    certificate_failures: Counter,
    tuf_failures: Counter,
    witness_size: Family<WitnessLabels, Gauge>,
    witness_seconds: Family<WitnessLabels, Histogram, fn() -> Histogram>,
    witness_failures: Family<WitnessFailureLabels, Counter>,
    witness_quorum: Family<[(&'static str, &'static str); 1], Gauge>,
    expiry: Family<ExpiryLabels, Gauge>,
}

/// A total that a part of the house counts itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Total {
    /// Look-ups of evidence: `what` is the cache, `outcome` is `hit`, `miss` or `stand-in`.
    Evidence,
    /// What is recorded beside the answers: `what` is the kind, `outcome` is `recorded`, `failed` or `left-out`.
    Records,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

/// From half a millisecond (a warm admission) to the thirty seconds that a webhook may take at most.
fn seconds() -> Histogram {
    Histogram::new([0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0])
}

impl Metrics {
    /// Nothing counted yet.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("countersign");
        let build = Info::new([("version", env!("CARGO_PKG_VERSION"))]);
        registry.register("build", "What is running", build);
        let mut metrics = Self {
            registry: Arc::default(),
            decisions: Family::default(),
            decision_seconds: Family::new_with_constructor(seconds),
            break_glass: Family::default(),
            request_seconds: Family::new_with_constructor(seconds),
            refused_callers: Family::default(),
            log_size: Gauge::default(),
            log_commits: Gauge::default(),
            log_fsyncs: Gauge::default(),
            log_queue: Gauge::default(),
            log_broken: Gauge::default(),
            registry_requests: Family::default(),
            registry_breakers: Gauge::default(),
            hosts: Arc::default(),
            evidence: Family::default(),
            records: Family::default(),
            certificate_failures: Counter::default(),
            tuf_failures: Counter::default(),
            witness_size: Family::default(),
            witness_seconds: Family::new_with_constructor(seconds),
            witness_failures: Family::default(),
            witness_quorum: Family::default(),
            expiry: Family::default(),
        };
        metrics.registry = Arc::new(metrics.register_in(registry));
        metrics
    }

    fn register_in(&self, mut registry: Registry) -> Registry {
        registry.register(
            "decisions",
            "Answers, by door, decision, reason (a code of the README, or why nothing was judged) and effect",
            self.decisions.clone(),
        );
        registry.register("decision_seconds", "Time that a decision took, by door", self.decision_seconds.clone());
        registry.register("break_glass", "Objects admitted against the verdict, by event", self.break_glass.clone());
        registry.register("request_seconds", "Time from request to answer", self.request_seconds.clone());
        registry.register("refused_callers", "Callers that were not let in, by reason", self.refused_callers.clone());
        registry.register("log_entries", "Entries in the log", self.log_size.clone());
        registry.register("log_commits", "Commits since start; each is one fsync", self.log_commits.clone());
        registry.register("log_fsyncs", "Syncs to disk since the start", self.log_fsyncs.clone());
        registry.register("log_queue_entries", "Entries waiting to be committed", self.log_queue.clone());
        registry.register(
            "log_broken",
            "1 while the log cannot be written: after a failed commit, or without room on the disk",
            self.log_broken.clone(),
        );
        registry.register(
            "registry_requests",
            "Requests to registries; code 0 is no answer",
            self.registry_requests.clone(),
        );
        registry.register(
            "registry_breakers",
            "Registries that are left alone after failures in a row",
            self.registry_breakers.clone(),
        );
        registry.register("evidence_lookups", "Look-ups of evidence, by cache and outcome", self.evidence.clone());
        registry.register("records", "What is recorded beside the answers, by kind and outcome", self.records.clone());
        registry.register(
            "certificate_reload_failures",
            "Changed certificate files that could not be used",
            self.certificate_failures.clone(),
        );
        registry.register(
            "tuf_failures",
            "How often TUF metadata could not be signed again",
            self.tuf_failures.clone(),
        );
        registry.register("witness_entries", "Entries that a witness cosigned last", self.witness_size.clone());
        registry.register("witness_seconds", "Time until a witness cosigned", self.witness_seconds.clone());
        registry.register("witness_failures", "Questions that a witness did not cosign", self.witness_failures.clone());
        registry.register(
            "witness_quorum",
            "1 if the last head met the quorum of witnesses; by mode, nothing without witnesses",
            self.witness_quorum.clone(),
        );
        registry.register("expiry_timestamp_seconds", "When something will expire, since 1970", self.expiry.clone());
        registry
    }

    /// Counts one answer.
    ///
    /// `door` is `cluster`, `operator` or `verify`; `decision` is `allow`, `deny` or `unknown`; `reason` is the code of
    /// the reason that weighed most, or the name of why nothing was judged; `effect` says what became of it.
    pub fn decided(&self, door: &'static str, decision: &'static str, reason: &str, effect: &'static str) {
        let labels = DecisionLabels { door, decision, reason: reason.to_owned(), effect };
        self.decisions.get_or_create(&labels).inc();
    }

    /// Records how long one decision took.
    pub fn took(&self, door: &'static str, seconds: f64) {
        self.decision_seconds.get_or_create(&DoorLabels { door }).observe(seconds);
    }

    /// Counts a broken glass: `recorded`, `not-recorded`, or `followed` for an object that a glass covers that was
    /// broken before.
    pub fn glass(&self, event: &'static str) {
        self.break_glass.get_or_create(&[("event", event)]).inc();
    }

    /// Records how long one request took. `method` must come from the routes, never from the request; `outcome` is the
    /// name of a status code.
    pub fn requested(&self, door: &'static str, method: &str, outcome: &'static str, seconds: f64) {
        let labels = RequestLabels { door, method: method.to_owned(), outcome };
        self.request_seconds.get_or_create(&labels).observe(seconds);
    }

    /// Counts a caller that was not let in, by the refusal's reason.
    pub fn refused(&self, reason: &'static str) {
        self.refused_callers.get_or_create(&[("reason", reason)]).inc();
    }

    /// Sets what the log says of itself: entries, commits since start, entries waiting, and whether it still writes.
    pub fn log(&self, entries: u64, commits: u64, fsyncs: u64, queued: u64, broken: bool) {
        self.log_size.set(gauge(entries));
        self.log_commits.set(gauge(commits));
        self.log_fsyncs.set(gauge(fsyncs));
        self.log_queue.set(gauge(queued));
        self.log_broken.set(i64::from(broken));
    }

    /// Sets how often each registry gave which answer (code 0: none), and how many registries are left alone.
    pub fn registries(&self, requests: &BTreeMap<(String, u16), u64>, breakers: usize) {
        let mut totals: BTreeMap<(String, u16), u64> = BTreeMap::new();
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        for ((host, code), count) in requests {
            if hosts.len() < HOSTS && !hosts.contains(host) {
                hosts.insert(host.clone());
            }
            let host = if hosts.contains(host) { host.as_str() } else { "other" };
            *totals.entry((host.to_owned(), *code)).or_default() += count;
        }
        drop(hosts);
        for ((host, code), count) in totals {
            let counter = self.registry_requests.get_or_create_owned(&RegistryLabels { host, code });
            counter.inner().store(count, Ordering::Relaxed);
        }
        self.registry_breakers.set(i64::try_from(breakers).unwrap_or(i64::MAX));
    }

    /// Sets a total that is counted elsewhere; `what` and `outcome` come from closed sets.
    pub fn set(&self, total: Total, what: &'static str, outcome: &'static str, count: u64) {
        let family = match total {
            Total::Evidence => &self.evidence,
            Total::Records => &self.records,
        };
        family.get_or_create(&TotalLabels { what, outcome }).inner().store(count, Ordering::Relaxed);
    }

    /// Sets how often changed certificate files could not be used.
    pub fn certificate_failures(&self, count: u64) {
        self.certificate_failures.inner().store(count, Ordering::Relaxed);
    }

    /// Sets how often TUF metadata could not be signed again.
    pub fn tuf_failures(&self, count: u64) {
        self.tuf_failures.inner().store(count, Ordering::Relaxed);
    }

    /// Records that a witness cosigned the log at a size, and how long that took.
    pub fn cosigned(&self, witness: &str, size: u64, seconds: f64) {
        let labels = WitnessLabels { witness: witness.to_owned() };
        self.witness_size.get_or_create(&labels).set(gauge(size));
        self.witness_seconds.get_or_create(&labels).observe(seconds);
    }

    /// Counts a question that a witness did not answer with a cosignature.
    pub fn witness_failed(&self, witness: &str, reason: &'static str) {
        self.witness_failures.get_or_create(&WitnessFailureLabels { witness: witness.to_owned(), reason }).inc();
    }

    /// Sets whether the last head met the quorum of witnesses.
    pub fn quorum(&self, mode: &'static str, met: bool) {
        self.witness_quorum.get_or_create(&[("mode", mode)]).set(i64::from(met));
    }

    /// Sets when something expires: `what` is a name like `ca/intermediate` or `tls/public`.
    pub fn expires(&self, what: &str, at: jiff::Timestamp) {
        self.expiry.get_or_create(&ExpiryLabels { what: what.to_owned() }).set(at.as_second());
    }

    /// All of it in the `OpenMetrics` text format, to be served as [`Self::CONTENT_TYPE`].
    pub fn encode(&self) -> String {
        let mut page = String::new();
        match text::encode(&mut page, &self.registry) {
            Ok(()) => page,
            // Writing into a string cannot fail; an empty page would still be a legal one.
            Err(fmt::Error) => "# EOF\n".to_owned(),
        }
    }

    /// The media type of [`Self::encode`].
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

fn gauge(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// What ties the lines of one request together, in our log and in that of the caller.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct RequestId(String);

/// The header that carries a request id, in and out.
pub const REQUEST_ID_HEADER: &str = "x-request-id";

/// The header is not an id that we take over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a request id has 1 to 64 characters out of a-z, A-Z, 0-9, dot, dash and underscore")]
pub struct InvalidRequestId;

impl RequestId {
    /// A new id: 16 random hex digits.
    pub fn random() -> Self {
        let mut bytes = [0; 8];
        // Without randomness the id would be all zeros: worse to search for, and no reason to fail a request.
        aws_lc_rs::rand::fill(&mut bytes).unwrap_or_default();
        Self(hex::encode(bytes))
    }

    /// The caller's id where it is acceptable, else a new one.
    pub fn from_header(value: Option<&str>) -> Self {
        value.and_then(|text| text.parse().ok()).unwrap_or_else(Self::random)
    }

    /// The id as it stands in headers and logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for RequestId {
    type Err = InvalidRequestId;

    fn from_str(text: &str) -> Result<Self, InvalidRequestId> {
        let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if text.is_empty() || text.len() > 64 || !plain { Err(InvalidRequestId) } else { Ok(Self(text.to_owned())) }
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
