//! Names of metrics, and the request id that goes through every layer.
//!
//! Pure bookkeeping: no exporter, no listener, no clock. Who serves [`Metrics::encode`] and who writes the id into logs
//! and answers is the server's business. All names start with `countersign_`; the unit is the last part of each. Labels
//! take values from small closed sets, except `host` (registries that were asked) and `witness` (those of the witness
//! policy), so that nobody outside can make the list of series grow without bound.

use std::{fmt, str::FromStr, sync::Arc};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::Registry,
};

/// Answers of one door.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    door: &'static str,
    decision: &'static str,
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
    request_seconds: Family<RequestLabels, Histogram, fn() -> Histogram>,
    refused_callers: Family<[(&'static str, &'static str); 1], Counter>,
    log_size: Gauge,
    log_commits: Gauge,
    log_fsyncs: Gauge,
    log_queue: Gauge,
    log_broken: Gauge,
    registry_requests: Family<RegistryLabels, Counter>,
    witness_size: Family<WitnessLabels, Gauge>,
    witness_seconds: Family<WitnessLabels, Histogram, fn() -> Histogram>,
    witness_failures: Family<WitnessFailureLabels, Counter>,
    witness_quorum: Family<[(&'static str, &'static str); 1], Gauge>,
    expiry: Family<ExpiryLabels, Gauge>,
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
            request_seconds: Family::new_with_constructor(seconds),
            refused_callers: Family::default(),
            log_size: Gauge::default(),
            log_commits: Gauge::default(),
            log_fsyncs: Gauge::default(),
            log_queue: Gauge::default(),
            log_broken: Gauge::default(),
            registry_requests: Family::default(),
            witness_size: Family::default(),
            witness_seconds: Family::new_with_constructor(seconds),
            witness_failures: Family::default(),
            witness_quorum: Family::default(),
            expiry: Family::default(),
        };
        let m = &metrics;
        registry.register("decisions", "Answers of the judge, by door and decision", m.decisions.clone());
        registry.register("request_seconds", "Time from request to answer", m.request_seconds.clone());
        registry.register("refused_callers", "Callers that were not let in, by reason", m.refused_callers.clone());
        registry.register("log_entries", "Entries in the log", m.log_size.clone());
        registry.register("log_commits", "Commits since start; each is one fsync", m.log_commits.clone());
        registry.register("log_fsyncs", "Syncs to disk since the start", m.log_fsyncs.clone());
        registry.register("log_queue_entries", "Entries waiting to be committed", m.log_queue.clone());
        registry.register("log_broken", "1 after a failed commit: the log has stopped writing", m.log_broken.clone());
        registry.register(
            "registry_requests",
            "Requests to registries; code 0 is no answer",
            m.registry_requests.clone(),
        );
        registry.register("witness_entries", "Entries that a witness cosigned last", m.witness_size.clone());
        registry.register("witness_seconds", "Time until a witness cosigned", m.witness_seconds.clone());
        registry.register("witness_failures", "Questions that a witness did not cosign", m.witness_failures.clone());
        registry.register(
            "witness_quorum",
            "1 if the last head met the quorum of witnesses; by mode, nothing without witnesses",
            m.witness_quorum.clone(),
        );
        registry.register("expiry_timestamp_seconds", "When something will expire, since 1970", m.expiry.clone());
        metrics.registry = Arc::new(registry);
        metrics
    }

    /// Counts one answer: the door (`build`, `cluster`, `operator`) and the decision (`allow`, `deny`, `unknown`).
    pub fn decided(&self, door: &'static str, decision: &'static str) {
        self.decisions.get_or_create(&DecisionLabels { door, decision }).inc();
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

    /// Counts one request to a registry; code 0 when no answer came.
    pub fn asked_registry(&self, host: &str, code: u16) {
        self.registry_requests.get_or_create(&RegistryLabels { host: host.to_owned(), code }).inc();
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
mod tests {
    use super::{Metrics, RequestId};

    #[test]
    fn clones_count_together_and_the_page_has_every_name() {
        let metrics = Metrics::new();
        let clone = metrics.clone();
        clone.decided("cluster", "deny");
        metrics.decided("cluster", "deny");
        metrics.requested("build", "Sign", "ok", 0.003);
        metrics.refused("CREDENTIALS_EXPIRED");
        metrics.log(7, 3, 2 * 3, 1, true);
        metrics.asked_registry("registry.example.com", 429);
        metrics.expires("ca/intermediate", jiff::Timestamp::UNIX_EPOCH);
        metrics.cosigned("w1", 9, 0.004);
        metrics.witness_failed("w2", "unreachable");
        metrics.quorum("require", true);
        let page = clone.encode();
        for line in [
            concat!("countersign_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            "countersign_decisions_total{door=\"cluster\",decision=\"deny\"} 2",
            "countersign_request_seconds_count{door=\"build\",method=\"Sign\",outcome=\"ok\"} 1",
            "countersign_request_seconds_bucket{le=\"0.005\",door=\"build\",method=\"Sign\",outcome=\"ok\"} 1",
            "countersign_refused_callers_total{reason=\"CREDENTIALS_EXPIRED\"} 1",
            "countersign_log_entries 7",
            "countersign_log_commits 3",
            "countersign_log_queue_entries 1",
            "countersign_log_broken 1",
            "countersign_registry_requests_total{host=\"registry.example.com\",code=\"429\"} 1",
            "countersign_expiry_timestamp_seconds{what=\"ca/intermediate\"} 0",
            "countersign_witness_entries{witness=\"w1\"} 9",
            "countersign_witness_seconds_count{witness=\"w1\"} 1",
            "countersign_witness_failures_total{witness=\"w2\",reason=\"unreachable\"} 1",
            "countersign_witness_quorum{mode=\"require\"} 1",
            "# EOF",
        ] {
            assert!(page.lines().any(|have| have == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn request_ids_are_taken_over_or_made() {
        assert_eq!(RequestId::from_header(Some("Abc-1.2_3")).as_str(), "Abc-1.2_3");
        for bad in [None, Some(""), Some("a b"), Some("a\nb"), Some("\u{e4}"), Some("x".repeat(65).as_str())] {
            let made = RequestId::from_header(bad);
            assert_eq!(made.as_str().len(), 16, "{bad:?}");
            assert_ne!(made, RequestId::random());
        }
        "x".repeat(64).parse::<RequestId>().unwrap();
    }
}
