//! A log whose entries say what a test wants them to, beside the list of what they say.

use std::{cell::RefCell, collections::HashMap, path::PathBuf};

use countersign::{
    keys::{EphemeralKey, Keyring},
    log::{
        Draft, Log, Logs, Options, View,
        search::{Filter, Finder, Order, Page, TimeRange},
    },
    model::{Digest, Identity, ImageRef, Statement, Subject, bundle, leaf, predicate},
    tlog::Checkpoint,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::keys;

pub const CUSTOM: &str = "https://example.test/custom/v1";
pub const NOON: i64 = 1_700_000_000;

/// The time so many seconds after noon.
pub fn at(seconds: usize) -> Option<i64> {
    Some(NOON + i64::try_from(seconds).unwrap())
}

/// What one entry says.
#[derive(Debug, Clone)]
pub struct Said {
    pub subject: Subject,
    pub predicate_type: &'static str,
    pub signer: Identity,
    pub place: Option<(&'static str, &'static str)>,
    /// Seconds since 1970.
    pub time: Option<i64>,
    /// Whether the envelope is kept beside the leaf.
    pub payload: bool,
}

pub fn identity(subject: &str, issuer: &str) -> Identity {
    Identity { subject: subject.to_owned(), issuer: issuer.to_owned() }
}

impl Default for Said {
    fn default() -> Self {
        Self {
            subject: Subject { name: "r.test/app:v1".to_owned(), digest: Digest::of(b"app") },
            predicate_type: predicate::SIGN,
            signer: identity("ci@x.test", "https://issuer.test"),
            place: None,
            time: Some(NOON),
            payload: true,
        }
    }
}

/// A log with the key ring that makes its entries.
pub struct Library {
    pub home: tempfile::TempDir,
    /// Another, empty log while this one is released.
    pub log: Log,
    pub said: Vec<Said>,
    keys: Keyring,
    key: EphemeralKey,
    certificates: RefCell<HashMap<Identity, Vec<u8>>>,
    stamps: RefCell<HashMap<i64, Vec<u8>>>,
}

impl Library {
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        // Before the first entry: outside of the life of its certificates nothing is signed.
        let keys = keys::keyring(home.path(), Timestamp::from_second(NOON - 2 * 86_400).unwrap());
        let key = keys.log_key();
        Log::create(&home.path().join("log"), keys::HOST, key.public_key(), |note| key.sign(note)).unwrap();
        let log = open(&home.path().join("log"), &keys);
        let (certificates, stamps) = (RefCell::default(), RefCell::default());
        Self { home, log, said: Vec::new(), keys, key: EphemeralKey::generate().unwrap(), certificates, stamps }
    }

    /// The log as a chain of one.
    pub fn logs(&self) -> Logs {
        self.log.clone().into()
    }

    pub fn dir(&self) -> PathBuf {
        self.home.path().join("log")
    }

    /// A log of another origin beside it.
    pub fn another(&self, origin: &str) -> Log {
        let key = self.keys.log_key();
        let dir = self.home.path().join(origin);
        Log::create(&dir, origin, key.public_key(), |note| key.sign(note)).unwrap();
        open(&dir, &self.keys)
    }

    /// Lets go of the log, so that somebody else can open it.
    pub fn released(self) -> Self {
        Self { log: self.another("other.test"), ..self }
    }

    /// Opens the log again.
    pub fn reopen(self) -> Self {
        Self { log: open(&self.dir(), &self.keys), ..self }
    }

    /// What opening the log again says.
    pub fn try_open(&self) -> Result<Log, countersign::log::LogError> {
        let key = self.keys.log_key();
        Log::open(&self.dir(), key.public_key(), move |note| key.sign(note), Options::default())
    }

    /// The leaf and payload of an entry, as signing makes them; the signature is a number, so that no two are the same.
    pub fn draft(&self, said: &Said, number: usize) -> Draft {
        let predicate = said
            .place
            .map_or(json!({}), |(service, environment)| json!({ "service": service, "environment": environment }));
        let statement = Statement::new(vec![said.subject.clone()], said.predicate_type, predicate).unwrap().to_json();
        let certificate = self
            .certificates
            .borrow_mut()
            .entry(said.signer.clone())
            .or_insert_with(|| self.keys.issue(&said.signer, &self.key.spki(), keys::now()).unwrap())
            .clone();
        let signature = number.to_be_bytes().to_vec();
        let leaf = leaf::hashedrekord(&Digest::of(&bundle::pae(&statement)), &signature, &certificate);
        if !said.payload {
            return Draft { leaf, payload: Vec::new() };
        }
        let stamp = self
            .stamps
            .borrow_mut()
            .entry(said.time.unwrap_or(NOON))
            .or_insert_with(|| {
                let at = Timestamp::from_second(said.time.unwrap_or(NOON)).unwrap();
                self.keys.timestamp(b"whatever", at).unwrap_or_else(|_out_of_life| {
                    let elsewhere = tempfile::tempdir().unwrap();
                    keys::keyring(elsewhere.path(), at).timestamp(b"whatever", at).unwrap()
                })
            })
            .clone();
        let bundle = bundle::to_json(&bundle::of_statement(statement, signature, certificate, stamp)).unwrap();
        if said.time.is_some() {
            return Draft { leaf, payload: bundle };
        }
        let mut bundle: Value = serde_json::from_slice(&bundle).unwrap();
        bundle["verificationMaterial"].as_object_mut().unwrap().remove("timestampVerificationData").unwrap();
        Draft { leaf, payload: bundle.to_string().into_bytes() }
    }

    /// Appends entries. The first one of a library gets index 1: 0 is the log's own.
    pub async fn add(&mut self, said: impl IntoIterator<Item = Said>) {
        let said: Vec<_> = said.into_iter().collect();
        for chunk in said.chunks(1_024) {
            let from = self.said.len();
            let drafts = chunk.iter().enumerate().map(|(at, said)| self.draft(said, from + at)).collect();
            self.log.append(drafts).await.unwrap();
            self.said.extend_from_slice(chunk);
        }
        assert_eq!(self.log.size(), self.said.len() as u64 + 1);
    }

    /// What a search should find, by looking at every entry: indexes oldest first, and how many have no known time.
    pub fn expected(&self, filter: &Filter) -> (Vec<u64>, u64) {
        let fits = |said: &Said| filter.views.iter().all(|view| is_in(said, view));
        let (mut found, mut without_time) = (Vec::new(), 0);
        if filter.views.iter().all(|view| *view == View::All) && filter.times.is_none() {
            found.push(0);
        }
        for (said, index) in self.said.iter().zip(1..).filter(|(said, _)| fits(said)) {
            let time = said.time.filter(|_| said.payload).map(|time| time as u64);
            match (filter.times, time) {
                (None, _) => found.push(index),
                (Some(range), Some(time)) if range.since <= time && time < range.until => found.push(index),
                (Some(_), Some(_)) => {}
                (Some(_), None) => without_time += 1,
            }
        }
        (found, without_time)
    }

    /// A checkpoint signed with the log's key.
    pub fn sign(&self, checkpoint: &Checkpoint) -> String {
        let key = self.keys.log_key();
        checkpoint.sign(self.log.key(), |note| key.sign(note)).unwrap()
    }

    pub fn check(&self) {
        assert_eq!(self.log.fsck(|_, _| {}).unwrap().findings, Vec::<String>::new());
    }
}

fn open(dir: &std::path::Path, keys: &Keyring) -> Log {
    let key = keys.log_key();
    Log::open(dir, key.public_key(), move |note| key.sign(note), Options::default()).unwrap()
}

/// Whether an entry stands in a view, by ten lines that know nothing of rows.
fn is_in(said: &Said, view: &View) -> bool {
    let of_payload = match view {
        View::All => return true,
        View::Identity(identity) => return *identity == said.signer,
        View::Issuer(issuer) => return *issuer == said.signer.issuer,
        View::Digest(digest) | View::Evidence(digest) => *digest == said.subject.digest,
        View::Name(name) => *name == said.subject.name,
        View::PredicateType(kind) => *kind == said.predicate_type,
        View::Repository(name) => {
            said.subject.name.starts_with("r.test/") && *name == said.subject.name.parse::<ImageRef>().unwrap().name
        }
        View::Service { service, environment } => said.place == Some((service.as_str(), environment.as_str())),
    };
    said.payload && of_payload
}

/// All pages of a search, one after the other: the pages themselves.
pub fn pages(finder: &Finder, filter: &Filter, limit: usize, order: Order) -> Vec<Page> {
    let (mut pages, mut from) = (Vec::new(), None);
    loop {
        let page = finder.page(filter, from, limit, order).unwrap();
        assert!(page.indexes.len() <= limit);
        assert!(page.next.is_none() || page.next != from, "a page makes progress");
        from = page.next;
        pages.push(page);
        if from.is_none() {
            return pages;
        }
    }
}

/// What all pages found together.
pub fn all(pages: &[Page]) -> (Vec<u64>, u64) {
    let found = pages.iter().flat_map(|page| page.indexes.iter().copied()).collect();
    (found, pages.iter().map(|page| page.without_time).sum())
}

pub const fn range(since: u64, until: u64) -> Option<TimeRange> {
    Some(TimeRange { since, until })
}
