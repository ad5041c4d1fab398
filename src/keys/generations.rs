//! Keys that take each other's place: which one signs at a time, and for how long each is trusted.
//!
//! A generation is trusted from the moment it is made, and signs from its activation on. The one before is trusted
//! [`OVERLAP`] beyond that, so that what was under way still verifies, and for what it signed until then it is trusted for
//! ever: clients hold a signature's own time against the window. So whoever fetched the trusted root between the two
//! moments verifies the old and the new.

use der::Decode as _;
use jiff::Timestamp;
use x509_cert::Certificate;

use super::{
    AUTHORITY_BACKDATE, KeyError, cert,
    trust::OVERLAP,
    vault::{Vault, generation_role},
};

/// What rotates in one and the same way. A log is succeeded instead: its name is part of its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rotating {
    /// The authority that issues signing certificates.
    Ca,
    /// The key that signs certificate timestamps.
    Sct,
    /// The time-stamp authority.
    Tsa,
    /// The key that signs TUF metadata.
    Tuf,
}

impl Rotating {
    /// As files and people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ca => "ca",
            Self::Sct => "sct",
            Self::Tsa => "tsa",
            Self::Tuf => "tuf",
        }
    }

    /// The role of the root that it stands under, if it stands under one.
    pub(super) const fn root(self) -> Option<&'static str> {
        match self {
            Self::Ca => Some("ca-root"),
            Self::Tsa => Some("tsa-root"),
            Self::Tuf => Some("tuf-root"),
            Self::Sct => None,
        }
    }
}

/// One thing after the other, each with the time from which on it counts; never empty.
#[derive(Debug, Clone)]
pub(super) struct Dated<T> {
    first: T,
    later: Vec<(Timestamp, T)>,
}

impl<T> Dated<T> {
    pub(super) fn new(first: T) -> Self {
        Self { first, later: Vec::new() }
    }

    pub(super) fn push(&mut self, from: Timestamp, next: T) {
        self.later.push((from, next));
    }

    /// The one that counts at a time; before all others the first.
    pub(super) fn at(&self, now: Timestamp) -> &T {
        self.later.iter().rev().find(|(from, _)| *from <= now).map_or(&self.first, |(_, one)| one)
    }

    /// The newest, whether it counts yet or not.
    pub(super) fn last(&self) -> &T {
        self.later.last().map_or(&self.first, |(_, one)| one)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(self.later.iter().map(|(_, one)| one))
    }
}

/// The public side of one key of those that take each other's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Generation {
    /// From 1.
    pub number: u32,
    /// From when on it signs.
    pub signs_from: Timestamp,
    /// From when on the trusted root trusts it.
    pub valid_from: Timestamp,
    /// Until when; open for the newest.
    pub valid_until: Option<Timestamp>,
    /// When the first of its certificates ends; a key without certificate does not.
    pub ends: Option<Timestamp>,
    /// The root that it stands under, from 1, and when that one ends.
    pub root: Option<(u32, Timestamp)>,
    /// DER: its certificate and its root's; or the `SubjectPublicKeyInfo` alone.
    pub(super) chain: Vec<Vec<u8>>,
}

impl Generation {
    /// The certificate, or the public key where there is none.
    pub(super) fn own(&self) -> &[u8] {
        self.chain.first().map_or(&[], Vec::as_slice)
    }
}

/// All generations of one kind, with their windows.
pub(super) fn read(vault: &Vault<'_>, kind: Rotating) -> Result<Dated<Generation>, KeyError> {
    let first = read_one(vault, kind, 1, kind.root().map(|_| 1), vault.valid_from())?;
    let mut all = Dated::new(Generation { valid_from: vault.valid_from(), ..first });
    for later in vault.generations(kind.name()) {
        let next = read_one(vault, kind, later.number, later.root, later.signs_from)?;
        all.push(later.signs_from, next);
    }
    let ends: Vec<_> = all.later.iter().map(|(from, _)| from.checked_add(OVERLAP).ok()).chain([None]).collect();
    let every = std::iter::once(&mut all.first).chain(all.later.iter_mut().map(|(_, one)| one));
    for (one, end) in every.zip(ends) {
        one.valid_until = end;
    }
    Ok(all)
}

fn read_one(
    vault: &Vault<'_>,
    kind: Rotating,
    number: u32,
    root: Option<u32>,
    signs_from: Timestamp,
) -> Result<Generation, KeyError> {
    let role = generation_role(kind.name(), number);
    let mut chain = vec![vault.public(&role)?];
    let (mut ends, mut under) = (None, None);
    if let (Some(root_role), Some(root)) = (kind.root(), root) {
        let root_role = generation_role(root_role, root);
        let certificate = vault.public(&root_role)?;
        ends = Some(end_of(vault, &role, chain.first().map_or(&[], Vec::as_slice))?);
        under = Some((root, end_of(vault, &root_role, &certificate)?));
        chain.push(certificate);
    }
    let valid_from = cert::shift(signs_from, -AUTHORITY_BACKDATE)?;
    Ok(Generation { number, signs_from, valid_from, valid_until: None, ends, root: under, chain })
}

/// When a certificate ends.
pub(super) fn end_of(vault: &Vault<'_>, role: &str, der: &[u8]) -> Result<Timestamp, KeyError> {
    let until = Certificate::from_der(der)?.tbs_certificate.validity.not_after.to_unix_duration().as_secs();
    let until = i64::try_from(until).ok().and_then(|second| Timestamp::from_second(second).ok());
    until.ok_or_else(|| vault.damaged(role, "has no valid end"))
}
