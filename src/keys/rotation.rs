//! Rotation: a new key takes the place of one that signs, at once or at a time to come.
//!
//! The order: the new key and its certificate are made and sealed; the manifest that names them is renamed into place; the
//! new public side is published; and only then do the signers know of it. A crash before the rename leaves the old state, a
//! crash after it a service that opens with the new one. So nothing is signed by a key that nobody was told of.

use std::path::Path;

use jiff::{SignedDuration, Timestamp};

use super::{
    AUTHORITY_BACKDATE, AUTHORITY_LIFE, Current, Custody, Kek, KeyError, Keyring, Public,
    cert::{self, Authority},
    ec::{Curve, EcKey},
    generations::{Rotating, end_of},
    trust::{CA, TSA, numbered},
    tsa, tuf,
    vault::{Generation, NewKey, Vault, generation_role},
};

/// How far ahead an activation may lie.
const MOST_AHEAD: SignedDuration = SignedDuration::from_hours(24 * 90);
/// A root with less life than this certifies nothing new.
pub(super) const LEAST_LEFT: SignedDuration = SignedDuration::from_hours(24 * 365);
/// Generations of one kind: each stays in the trusted root for ever, and clients read that into memory.
const MOST: u32 = 100;

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Which key.
    pub kind: Rotating,
    /// Whether the root above it is made anew too.
    pub new_root: bool,
    /// How long until it signs: until then it is only announced.
    pub activate_in: SignedDuration,
}

/// What was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// The new key's number among those of its kind, from 2.
    pub number: u32,
    /// From when on it signs.
    pub signs_from: Timestamp,
}

/// The certificates of a new generation are valid from a minute before it signs, and until then.
struct Life {
    from: Timestamp,
    until: Timestamp,
}

/// A root of a kind, the n-th.
pub(super) fn new_root(
    kind: Rotating,
    key: EcKey,
    host: &str,
    number: u32,
    from: Timestamp,
    until: Timestamp,
) -> Result<Authority, KeyError> {
    let (name, path_len) = match kind {
        Rotating::Ca => ("countersign CA root", 1),
        _ => ("countersign TSA root", 0),
    };
    Authority::root(key, host, &numbered(name, number), from, until, path_len)
}

impl Keyring {
    /// Makes a new key of a kind. From then on the trusted root names both, and from the activation on the new one signs;
    /// the old one is trusted for `trust::OVERLAP` longer. `publish` is told the new public side before anything is signed
    /// with the new key.
    ///
    /// # Errors
    /// [`KeyError::Rotation`] for what cannot be; [`KeyError::TufRoot`] if a root key is wanted that is kept elsewhere.
    /// Nothing has changed then.
    pub fn rotate(
        &self,
        dir: &Path,
        kek: &Kek,
        rotation: Rotation,
        now: Timestamp,
        publish: impl FnOnce(&Public),
    ) -> Result<Rotated, KeyError> {
        let kind = rotation.kind;
        check(rotation)?;
        let mut vault = Vault::open_to_change(dir, kek)?;
        let made = make(&vault, &self.custody, rotation, now)?;
        let (number, signs_from, root) = (made.number, made.signs_from, made.root);
        vault.add(&made.keys, Some(Generation { role: kind.name().to_owned(), number, root, signs_from }))?;
        let renewed = Current::open(&vault, &self.custody)?;
        let public = renewed.public.clone();
        if kind == Rotating::Tuf {
            // What is published is signed with this very key.
            self.replace(renewed);
            publish(&public);
        } else {
            publish(&public);
            self.replace(renewed);
        }
        Ok(Rotated { number, signs_from })
    }
}

fn refuse<T>(kind: Rotating, problem: impl Into<String>) -> Result<T, KeyError> {
    Err(KeyError::Rotation { key: kind.name(), problem: problem.into() })
}

/// What can be told without looking at the keys.
fn check(Rotation { kind, new_root, activate_in }: Rotation) -> Result<(), KeyError> {
    if activate_in.is_negative() {
        return refuse(kind, "the activation cannot lie in the past; give --activate-in 0s or more");
    }
    if activate_in > MOST_AHEAD {
        return refuse(kind, "the activation lies more than 90 days ahead; give a shorter --activate-in");
    }
    if kind == Rotating::Tuf && !activate_in.is_zero() {
        return refuse(kind, "a TUF root counts as soon as clients see it; leave out --activate-in");
    }
    if new_root && kind.root().is_none() {
        return refuse(kind, "it stands under no root; leave out --new-root");
    }
    Ok(())
}

/// Refuses a time before `began`, when the present key did. With it the present key's window would end before it starts:
/// what that key signed would be void, and clients that have fetched such a trusted root do not go back.
pub(super) fn check_clock(key: &'static str, began: Timestamp, now: Timestamp) -> Result<(), KeyError> {
    if now >= began {
        return Ok(());
    }
    let problem = format!(
        "this machine's clock says {now}, and the present key began at {began}: the clock is behind; set it, then try again. \
         Nothing was changed"
    );
    Err(KeyError::Rotation { key, problem })
}

/// The newest key that took another one's place, if one did; it must have begun, by a clock that is not behind.
fn newest<'a>(vault: &'a Vault<'_>, kind: Rotating, now: Timestamp) -> Result<Option<&'a Generation>, KeyError> {
    let all: Vec<_> = vault.generations(kind.name()).collect();
    // The newest may only be announced; the one before it had begun when the newest was made.
    let before = all.iter().rev().nth(1);
    check_clock(kind.name(), before.map_or(vault.valid_from(), |before| before.signs_from), now)?;
    let last = all.last().copied();
    let Some(Generation { number, signs_from, .. }) = last.filter(|last| last.signs_from > now) else {
        return Ok(last);
    };
    refuse(
        kind,
        format!(
            "number {number} is made already and will sign from {signs_from} on; rotate again after that. This machine's \
             clock says {now}: if that is behind, set it. Nothing was changed"
        ),
    )
}

/// A generation that is made, and not yet there.
struct Made {
    number: u32,
    root: Option<u32>,
    signs_from: Timestamp,
    keys: Vec<NewKey>,
}

fn make(vault: &Vault<'_>, custody: &Custody, rotation: Rotation, now: Timestamp) -> Result<Made, KeyError> {
    let kind = rotation.kind;
    let last = newest(vault, kind, now)?;
    let (number, root) = last.map_or((1, 1), |last| (last.number, last.root.unwrap_or(1)));
    if number >= MOST {
        return refuse(kind, "there were 100 already, which all stay in the trusted root; make a new instance");
    }
    let number = number.saturating_add(1);
    // In whole seconds, as certificates and trusted roots have them.
    let signs_from = Timestamp::from_second(cert::shift(now, rotation.activate_in)?.as_second())
        .map_err(|_source| KeyError::Time(now))?;
    let from = cert::shift(signs_from, -AUTHORITY_BACKDATE)?;
    let life = Life { from, until: cert::shift(from, AUTHORITY_LIFE)? };
    let new_root = rotation.new_root.then_some(number);
    let role = generation_role(kind.name(), number);
    let under = Under { vault, custody, kind, new: new_root, present: root };
    let keys = match kind {
        Rotating::Sct => vec![public_key(role.clone(), &new_key(vault, custody, &role)?)?],
        Rotating::Tuf => tuf_keys(vault, number, new_root)?,
        Rotating::Ca => authority(&under, &life, |root, until| {
            let key = new_key(vault, custody, &role)?;
            let made = root.intermediate(key, vault.host(), &numbered(CA, number), life.from, until)?;
            certified(role.clone(), made.key(), made.certificate())
        })?,
        Rotating::Tsa => authority(&under, &life, |root, until| {
            let key = new_key(vault, custody, &role)?;
            let certificate = tsa::leaf(&key, root, vault.host(), &numbered(TSA, number), life.from, until)?;
            certified(role.clone(), &key, &certificate)
        })?,
    };
    let root = kind.root().map(|_| new_root.unwrap_or(root));
    Ok(Made { number, root, signs_from, keys })
}

/// A new online key; it counts once a root names it, so the root key must be here.
fn tuf_keys(vault: &Vault<'_>, number: u32, new_root: Option<u32>) -> Result<Vec<NewKey>, KeyError> {
    let newest = tuf::root_roles(vault).pop().unwrap_or_default();
    if !vault.has(&format!("{newest}.key")) {
        return Err(tuf::offline());
    }
    let root = new_root.map(|number| tuf::new_key("tuf-root", number));
    root.into_iter().chain([tuf::new_key("tuf", number)]).collect()
}

/// The root that a new authority stands under.
struct Under<'a> {
    vault: &'a Vault<'a>,
    custody: &'a Custody,
    kind: Rotating,
    /// The number of the root to make, if one is to be made.
    new: Option<u32>,
    /// The number of the root that is there.
    present: u32,
}

/// An authority under its root, which is made or opened, until when the root ends or its own life does.
fn authority(
    under: &Under<'_>,
    life: &Life,
    below: impl FnOnce(&Authority, Timestamp) -> Result<NewKey, KeyError>,
) -> Result<Vec<NewKey>, KeyError> {
    let Under { vault, custody, kind, new, present } = *under;
    let role = |number| generation_role(kind.root().unwrap_or_default(), number);
    if let Some(number) = new {
        let role = role(number);
        let root = new_root(kind, new_key(vault, custody, &role)?, vault.host(), number, life.from, life.until)?;
        let kept = certified(role, root.key(), root.certificate())?;
        return Ok(vec![kept, below(&root, life.until)?]);
    }
    let role = role(present);
    let certificate = vault.public(&role)?;
    let end = end_of(vault, &role, &certificate)?;
    if end.duration_since(life.from) < LEAST_LEFT {
        return refuse(kind, format!("its root ends at {end}, within a year; add --new-root"));
    }
    if !vault.has(&format!("{role}.key")) {
        return refuse(kind, format!("{role}.key is not here; put it back, or add --new-root"));
    }
    let curve = Authority::curve_of(&certificate)?;
    let root = Authority::new(custody.ec(curve, &vault.key(&role)?)?, certificate)
        .map_err(|_source| vault.damaged(&role, "does not fit its certificate"))?;
    Ok(vec![below(&root, end.min(life.until))?])
}

/// A key for a role, in a file or on the token, as the others of its kind.
fn new_key(vault: &Vault<'_>, custody: &Custody, role: &str) -> Result<EcKey, KeyError> {
    // Verifiers check the signatures of authorities for every bundle: P-384 costs them most of a millisecond for each.
    custody.new_ec(vault.host(), role, Curve::P256)
}

fn certified(role: String, key: &EcKey, certificate: &[u8]) -> Result<NewKey, KeyError> {
    Ok(NewKey { role, secret: key.to_sealable()?, label: "CERTIFICATE", public: certificate.to_vec() })
}

fn public_key(role: String, key: &EcKey) -> Result<NewKey, KeyError> {
    Ok(NewKey { label: "PUBLIC KEY", ..certified(role, key, key.spki())? })
}
