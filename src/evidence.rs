//! Digest -> verified statements, from our own log first and the image's registry second.
//!
//! Facts are cached, never verdicts. Two kinds: *what a bundle proves about a digest under a trusted root* (never
//! ages: it is mathematics) and *what a registry listed for a digest* (ages: younger than `refresh` it is used as it
//! is, younger than `max_age` it stands in for a registry that cannot be asked, older it is gone). Concurrent requests
//! for one cold digest cause one fetch. It runs within the time of whoever began it; when that time is over, one of those
//! who have more begins again, so that nobody is told that *their* time ran out before it has.
//!
//! A source that cannot be read never fails a request: it is written down as a gap, and the judge makes of it
//! `Unknown`. Our own log not being readable does fail it, as then nothing here can be trusted to be whole.
//!
//! A registry is read in this order, and no further than needed: its referrers API, the fallback tag where that gives
//! nothing, and cosign's legacy tags (`.sig`, `.att`) where nothing found so far is proven under any of the roots. The last
//! step costs one more round trip (two requests at once) for an image without usable evidence, and nothing for others.
//!
//! Not here: which signers are welcome (policy), reading the registry (adapter).

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use moka::{future, sync};

use crate::{
    log::{Log, LogError, Logs, View},
    model::{
        Digest, Evidence, ImageName, ImageRef, LogRef, Outcome, Rejection, Source, Subject, TrustedRoot, Verified,
        evidence::Rejected, legacy::Legacy, limits, predicate, verify,
    },
    registry::{Registry, RegistryError},
};

/// How old facts from registries may be.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// A registry's listing younger than this is not asked for again; seconds.
    pub refresh_s: u64,
    /// A registry's listing younger than this stands in for a registry that cannot be asked; seconds.
    pub max_age_s: u64,
    /// What the cached listings may take, in bytes.
    pub cache_bytes: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self { refresh_s: 10, max_age_s: 3_600, cache_bytes: 64 * 1024 * 1024 }
    }
}

/// Why no evidence can be given at all.
#[derive(Debug, thiserror::Error)]
pub enum EvidenceError {
    /// Our own log cannot be read.
    #[error("our own log cannot be read")]
    Log(#[from] LogError),
    /// A log entry does not verify under our own trusted root.
    #[error("log entry {index} does not verify: {reason}")]
    Entry {
        /// The entry's index.
        index: u64,
        /// Why not.
        reason: Rejection,
    },
    /// The worker was lost.
    #[error("reading evidence was interrupted")]
    Interrupted,
}

type Fact = Result<Arc<Verified>, Rejection>;

/// How often one cache had what was looked for.
#[derive(Debug, Default)]
struct Lookups {
    hits: AtomicU64,
    misses: AtomicU64,
}

impl Lookups {
    fn count(&self, hit: bool) {
        let count = if hit { &self.hits } else { &self.misses };
        count.fetch_add(1, Ordering::Relaxed);
    }
}

#[derive(Debug, Default)]
struct Counts {
    entries: Lookups,
    facts: Lookups,
    listings: Lookups,
    stand_ins: AtomicU64,
}

#[derive(Clone)]
struct Listing {
    fetched_at: Timestamp,
    found: Arc<Vec<Found>>,
}

/// One thing that a registry has about a digest.
#[derive(Clone)]
enum Found {
    Bundle(Arc<Vec<u8>>),
    Legacy(Arc<Legacy>),
}

impl Found {
    fn digest(&self) -> Digest {
        match self {
            Self::Bundle(bundle) => Digest::of(bundle),
            Self::Legacy(legacy) => legacy.digest(),
        }
    }

    fn verify(&self, digest: &Digest, root: &TrustedRoot) -> Result<Verified, Rejection> {
        match self {
            Self::Bundle(bundle) => verify::verify(bundle, digest, root),
            Self::Legacy(legacy) => verify::verify_legacy(legacy, digest, root),
        }
    }

    /// About what it takes in memory, in bytes.
    fn weight(&self) -> usize {
        match self {
            Self::Bundle(bundle) => bundle.len(),
            Self::Legacy(legacy) => {
                let annotations = legacy.annotations.iter().map(|(name, text)| name.len().saturating_add(text.len()));
                annotations.fold(legacy.payload.len(), usize::saturating_add)
            }
        }
    }
}

/// Whom we believe: our own root first, then whoever else is trusted. Clones are the same list.
#[derive(Debug, Clone)]
pub struct Roots(Arc<RwLock<Vec<Arc<TrustedRoot>>>>);

impl Roots {
    /// A list whose first root is our own.
    pub fn new(roots: Vec<Arc<TrustedRoot>>) -> Self {
        Self(Arc::new(RwLock::new(roots)))
    }

    /// All of them, our own first.
    pub fn all(&self) -> Vec<Arc<TrustedRoot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn own(&self) -> Option<Arc<TrustedRoot>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).first().cloned()
    }

    fn replace_own(&self, root: Arc<TrustedRoot>) {
        if let Some(own) = self.0.write().unwrap_or_else(PoisonError::into_inner).first_mut() {
            *own = root;
        }
    }
}

impl From<Vec<Arc<TrustedRoot>>> for Roots {
    fn from(roots: Vec<Arc<TrustedRoot>>) -> Self {
        Self::new(roots)
    }
}

/// An entry of one of our logs, and the digest that it is evidence about.
type EntryKey = (Arc<str>, u64, Digest);
/// How many subjects of signatures are kept.
const KNOWN_SUBJECTS: u64 = 100_000;

/// The evidence service. Cheap to clone.
#[derive(Clone)]
pub struct EvidenceService {
    logs: Logs,
    registry: Registry,
    roots: Roots,
    entries: sync::Cache<EntryKey, Arc<Verified>>,
    /// What an entry of one of our logs signs, by origin and index; nothing if it is another statement. Unverified.
    signs: sync::Cache<(Arc<str>, u64), Arc<[Subject]>>,
    facts: sync::Cache<(Digest, Digest), Fact>,
    fresh: future::Cache<(ImageName, Digest), Listing>,
    last_good: sync::Cache<(ImageName, Digest), Listing>,
    counts: Arc<Counts>,
}

impl std::fmt::Debug for EvidenceService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EvidenceService").field("roots", &self.roots).finish_non_exhaustive()
    }
}

impl EvidenceService {
    /// A service over our logs and registries. `roots` must hold our own root first; others are whoever else is trusted.
    pub fn new(logs: impl Into<Logs>, registry: Registry, roots: impl Into<Roots>, settings: &Settings) -> Self {
        let weigh = |_key: &(ImageName, Digest), listing: &Listing| {
            let bytes = listing.found.iter().map(Found::weight).fold(0, usize::saturating_add);
            u32::try_from(bytes.saturating_add(256)).unwrap_or(u32::MAX)
        };
        Self {
            logs: logs.into(),
            registry,
            roots: roots.into(),
            entries: sync::Cache::new(50_000),
            signs: sync::Cache::builder()
                .weigher(|_entry, subjects: &Arc<[Subject]>| u32::try_from(subjects.len().max(1)).unwrap_or(u32::MAX))
                .max_capacity(KNOWN_SUBJECTS)
                .build(),
            facts: sync::Cache::new(50_000),
            fresh: future::Cache::builder()
                .weigher(weigh)
                .max_capacity(settings.cache_bytes / 2)
                .time_to_live(Duration::from_secs(settings.refresh_s))
                .build(),
            last_good: sync::Cache::builder()
                .weigher(weigh)
                .max_capacity(settings.cache_bytes / 2)
                .time_to_live(Duration::from_secs(settings.max_age_s))
                .build(),
            counts: Arc::default(),
        }
    }

    /// From now on our own root is this one: it names one log more. What was not proven under the old one is looked at
    /// again.
    pub fn renew_own_root(&self, root: Arc<TrustedRoot>) {
        self.roots.replace_own(root);
        self.facts.invalidate_all();
    }

    /// How often each cache had what was looked for, since the start: cache, outcome, count. A `stand-in` is a listing
    /// that was used for a registry that could not be asked (and is a miss as well).
    pub fn lookups(&self) -> [(&'static str, &'static str, u64); 7] {
        let Counts { entries, facts, listings, stand_ins } = &*self.counts;
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [
            ("entry", "hit", read(&entries.hits)),
            ("entry", "miss", read(&entries.misses)),
            ("fact", "hit", read(&facts.hits)),
            ("fact", "miss", read(&facts.misses)),
            ("listing", "hit", read(&listings.hits)),
            ("listing", "miss", read(&listings.misses)),
            ("listing", "stand-in", read(stand_ins)),
        ]
    }

    /// Everything known about `digest`: our log, then, when `image` is given, its registry.
    pub async fn gather(
        &self,
        digest: &Digest,
        image: Option<&ImageRef>,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Evidence, EvidenceError> {
        let mut evidence = self.from_log(digest, image, now).await?;
        if let Some(image) = image {
            self.add_from_registry(&mut evidence, &image.name, now, deadline).await?;
        }
        Ok(evidence)
    }

    /// Everything that our own log knows about `digest`; no network.
    pub async fn from_log(
        &self,
        digest: &Digest,
        image: Option<&ImageRef>,
        now: Timestamp,
    ) -> Result<Evidence, EvidenceError> {
        let (service, digest, image) = (self.clone(), *digest, image.cloned());
        tokio::task::spawn_blocking(move || service.read_log(digest, image.as_ref(), now))
            .await
            .map_err(|_lost| EvidenceError::Interrupted)?
    }

    fn verified_entry(&self, log: &Log, index: u64, digest: &Digest) -> Result<Arc<Verified>, EvidenceError> {
        let key = (log.shared_origin(), index, *digest);
        let known = self.entries.get(&key);
        self.counts.entries.count(known.is_some());
        if let Some(known) = known {
            return Ok(known);
        }
        let bundle = log.bundle(index)?;
        let verified = self
            .roots
            .own()
            .ok_or_else(|| Rejection::Malformed("no trusted root is configured".to_owned()))
            .and_then(|own| verify::verify(&bundle, digest, &own))
            .map(Arc::new)
            .map_err(|reason| EvidenceError::Entry { index, reason })?;
        self.entries.insert(key, Arc::clone(&verified));
        Ok(verified)
    }

    fn read_log(&self, digest: Digest, image: Option<&ImageRef>, now: Timestamp) -> Result<Evidence, EvidenceError> {
        let mut evidence = Evidence::new(digest);
        for (log, index) in self.newest(&View::Evidence(digest), limits::EVIDENCE)?.into_iter().rev() {
            match self.verified_entry(&log, index, &digest) {
                Ok(verified) => evidence.statements.push(verified),
                Err(EvidenceError::Entry { index, reason }) => {
                    tracing::error!(index, %reason, "an entry of our own log does not verify");
                    evidence.rejected.push(Rejected { source: Source::Log, bundle: digest, reason });
                }
                // An erased payload proves nothing any more; the rest still does.
                Err(EvidenceError::Log(LogError::NoPayload(_))) => {}
                Err(other) => return Err(other),
            }
        }
        evidence.sources.push((Source::Log, Outcome::Complete(now)));
        if let Some(name) = image.and_then(ImageRef::tagged_name) {
            evidence.signed_under_tag = self.signed_under(&name, &digest)?;
        }
        Ok(evidence)
    }

    /// The newest `most` entries of a view over all our logs, newest first.
    fn newest(&self, view: &View, most: usize) -> Result<Vec<(Log, u64)>, LogError> {
        let mut found = Vec::new();
        for log in self.logs.all().into_iter().rev() {
            let indexes = log.newest(view, u64::MAX, most.saturating_sub(found.len()))?;
            found.extend(indexes.into_iter().map(|index| (log.clone(), index)));
            if found.len() >= most {
                break;
            }
        }
        Ok(found)
    }

    /// The newest other digest that somebody signed under this `registry/repository:tag`.
    fn signed_under(&self, name: &str, digest: &Digest) -> Result<Option<(Digest, LogRef)>, EvidenceError> {
        for (log, index) in self.newest(&View::Name(name.to_owned()), 16)? {
            let subjects = self.signs(&log, index)?;
            let other = subjects.iter().find(|subject| subject.name == name && subject.digest != *digest);
            let other = other.map(|subject| subject.digest);
            if let Some(other) = other
                && self.verified_entry(&log, index, &other).is_ok()
            {
                return Ok(Some((other, LogRef { origin: log.origin().to_owned(), index })));
            }
        }
        Ok(None)
    }

    /// What an entry signs. It is read once, as that takes longer than all the rest of a warm request. An entry does not
    /// change; one whose payload is erased is no longer listed under any name.
    fn signs(&self, log: &Log, index: u64) -> Result<Arc<[Subject]>, EvidenceError> {
        let key = (log.shared_origin(), index);
        if let Some(known) = self.signs.get(&key) {
            return Ok(known);
        }
        let payload = log.entry(index)?.payload;
        let statement =
            payload.and_then(|payload| verify::unverified_statement(&verify::parse_bundle(&payload).ok()?).ok());
        let statement = statement.filter(|statement| statement.predicate_type() == predicate::SIGN);
        let subjects = statement.map_or_else(Arc::default, |statement| statement.subjects().into());
        self.signs.insert(key, Arc::clone(&subjects));
        Ok(subjects)
    }

    async fn add_from_registry(
        &self,
        evidence: &mut Evidence,
        name: &ImageName,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<(), EvidenceError> {
        match self.listing(name, &evidence.digest, now, deadline).await {
            Ok(listing) => {
                evidence.sources.push((Source::Registry, Outcome::Complete(listing.fetched_at)));
                let facts = self.facts(&listing.found, &evidence.digest).await.ok_or(EvidenceError::Interrupted)?;
                for (bundle, fact) in facts {
                    match fact {
                        Ok(verified) => add_once(&mut evidence.statements, verified),
                        Err(reason) => evidence.rejected.push(Rejected { source: Source::Registry, bundle, reason }),
                    }
                }
            }
            Err(error) => evidence.sources.push((Source::Registry, Outcome::Unavailable(error.to_string()))),
        }
        Ok(())
    }

    async fn listing(
        &self,
        name: &ImageName,
        digest: &Digest,
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Listing, RegistryError> {
        let key = (name.clone(), *digest);
        let failure = loop {
            let fetched = tokio::time::timeout_at(deadline.into(), self.fetched(&key, now, deadline)).await;
            match fetched {
                Ok(Ok(listing)) => return Ok(listing),
                // Out of time, but it was somebody else's: we begin again.
                Ok(Err(RegistryError::Deadline { .. })) if Instant::now() < deadline => tokio::task::yield_now().await,
                Ok(Err(error)) => break error,
                Err(_elapsed) => break RegistryError::Deadline { registry: name.registry.clone() },
            }
        };
        let stand_in = self.last_good.get(&key).ok_or(failure)?;
        self.counts.stand_ins.fetch_add(1, Ordering::Relaxed);
        Ok(stand_in)
    }

    /// A listing that is young enough, else a new one; whoever asks for the same meanwhile waits for it.
    async fn fetched(
        &self,
        key: &(ImageName, Digest),
        now: Timestamp,
        deadline: Instant,
    ) -> Result<Listing, RegistryError> {
        let fetch = async {
            let found = Arc::new(Box::pin(self.found(key, deadline)).await?);
            let listing = Listing { fetched_at: now, found };
            self.last_good.insert(key.clone(), listing.clone());
            Ok::<_, RegistryError>(listing)
        };
        let entry = self.fresh.entry_by_ref(key).or_try_insert_with(fetch).await;
        self.counts.listings.count(entry.as_ref().is_ok_and(|entry| !entry.is_fresh()));
        entry.map(moka::Entry::into_value).map_err(|error| RegistryError::clone(&error))
    }

    /// What a registry has: bundles, and legacy signatures where none of these is proven.
    async fn found(&self, key: &(ImageName, Digest), deadline: Instant) -> Result<Vec<Found>, RegistryError> {
        let (name, digest) = key;
        let bundles = match self.registry.bundles(name, digest, deadline).await {
            Err(RegistryError::NotFound(_)) => Vec::new(),
            other => other?,
        };
        let mut found: Vec<Found> = bundles.into_iter().map(|bundle| Found::Bundle(Arc::new(bundle))).collect();
        let facts = self.facts(&found, digest).await.unwrap_or_default();
        if !facts.iter().any(|(_, fact)| fact.is_ok()) {
            let legacy = self.registry.legacy(name, digest, deadline).await?;
            found.extend(legacy.into_iter().map(|legacy| Found::Legacy(Arc::new(legacy))));
        }
        Ok(found)
    }

    /// What each thing proves about `digest`; `None` when the worker was lost.
    async fn facts(&self, found: &[Found], digest: &Digest) -> Option<Vec<(Digest, Fact)>> {
        if found.is_empty() {
            return Some(Vec::new());
        }
        let (service, digest, found) = (self.clone(), *digest, found.to_vec());
        tokio::task::spawn_blocking(move || found.iter().map(|one| service.fact(one, &digest)).collect()).await.ok()
    }

    /// What one thing proves about `digest`: under our own root, else under another.
    fn fact(&self, found: &Found, digest: &Digest) -> (Digest, Fact) {
        let id = found.digest();
        let mut hit = true;
        let fact = self.facts.get_with((id, *digest), || {
            hit = false;
            let mut first = None;
            for root in self.roots.all() {
                match found.verify(digest, &root) {
                    Ok(verified) => return Ok(Arc::new(verified)),
                    Err(reason) => first = first.or(Some(reason)),
                }
            }
            Err(first.unwrap_or_else(|| Rejection::Malformed("no trusted root is configured".to_owned())))
        });
        self.counts.facts.count(hit);
        (id, fact)
    }
}

/// A statement may be found in the log and in the registry, with different proofs: it counts once.
fn add_once(statements: &mut Vec<Arc<Verified>>, verified: Arc<Verified>) {
    let known = |other: &Arc<Verified>| other.key() == verified.key() && other.statement() == verified.statement();
    if !statements.iter().any(known) {
        statements.push(verified);
    }
}
