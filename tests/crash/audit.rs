//! Holds a log against its ledger: I1 to I8 of the log's invariants, as far as a reader can see them.
//!
//! | | broken when |
//! |---|---|
//! | I1 | an acknowledged entry is not at its index, or with other bytes |
//! | I2 | a checkpoint that was shown is no prefix of the log |
//! | I3 | two checkpoints of one size with different roots were shown (told by the ledger itself) |
//! | I4 | a tile or entry bundle of a published size is not what its leaves give |
//! | I5 | leaf bytes do not hash to level 0 of the tree |
//! | I6 | a view has a row too many or too few |
//! | I7 | one leaf stands at two indexes, or a duplicate is answered with the index of another |
//! | I8 | anything else than a whole log or a refusal that says why |
//!
//! Trees are computed here again, in the ten lines of RFC 6962, not with the code under test.

use std::{
    collections::HashSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use countersign::{
    log::{self, Draft, Log, LogError, Options, Receipt},
    store::{Room, StoreError, anchor::AnchorError},
    tlog::{Hash, check_consistency, check_inclusion},
};
use sha2::{Digest as _, Sha256};

use super::{
    entry, key,
    ledger::{Ledger, ORIGIN, PROBES},
    seed::Seed,
    wait_for,
    worker::Guards,
};

/// How many receipts, sizes and tiles of each kind one audit looks at; entries, roots and views it looks at all.
const SAMPLES: u64 = 24;

/// What an audit came to.
#[derive(Debug, Default)]
pub struct Findings {
    /// Wrong answers, and entries that are gone without a word.
    pub wrong: Vec<String>,
    /// Payloads and views that are not as they should be. Nothing is signed over these, so they must at least be named.
    pub beside: Vec<String>,
    /// What the log itself refused or named.
    pub named: Vec<String>,
}

impl Findings {
    /// Everything counts where nothing may be missing: after a crash, and after a fault of which the log knew.
    pub fn all(self) -> Vec<String> {
        [self.wrong, self.beside, self.named].concat()
    }

    /// What counts after damage of which the log could not know: wrong answers, and what nothing names.
    pub fn unnamed(self) -> Vec<String> {
        if self.named.is_empty() { [self.wrong, self.beside].concat() } else { self.wrong }
    }

    /// Whether there are none at all.
    pub const fn is_empty(&self) -> bool {
        self.wrong.is_empty() && self.beside.is_empty() && self.named.is_empty()
    }

    /// The value, or a finding: the log named what is the matter.
    fn named<T>(&mut self, what: &str, result: Result<T, LogError>) -> Option<T> {
        result.map_err(|error| self.named.push(format!("{what}: {error}"))).ok()
    }

    fn wrong(&mut self, is_wrong: bool, what: impl FnOnce() -> String) {
        if is_wrong {
            self.wrong.push(what());
        }
    }
}

/// The options of every log of the programme, which may be in a small memory.
pub fn options() -> Options {
    Options { room: Room { reserve: 1024 * 1024, ballast: 0 }, ..Options::default() }
}

/// Makes the log.
pub fn create(dir: &Path) -> Result<(), LogError> {
    Log::create(dir, ORIGIN, key::public(), key::signer())
}

/// Opens it. Another test's process that is just starting may hold a lock for a moment longer than its owner.
pub fn open(dir: &Path, options: &Options) -> Result<Log, LogError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match Log::open(dir, key::public(), key::signer(), options.clone()) {
            Err(error) if is_locked(&error) && Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            opened => return opened,
        }
    }
}

pub const fn is_locked(error: &LogError) -> bool {
    matches!(error, LogError::Store(StoreError::Locked(_) | StoreError::Anchor(AnchorError::Locked(_))))
}

/// `countersign log fsck`, with the same patience.
fn fsck(dir: &Path) -> Result<log::audit::Report, LogError> {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        match log::audit::fsck(dir, |_, _| {}) {
            Err(error) if is_locked(&error) && Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            done => return done,
        }
    }
}

/// Everything: fsck of the closed log, the log opened and held against the ledger, appends that go on from it.
///
/// What the audit appends goes into the ledger too.
pub fn audit(dir: &Path, ledger: &mut Ledger, seed: &mut Seed, guards: Guards) -> Findings {
    let mut findings = Findings::default();
    if let Some(report) = findings.named("fsck", fsck(dir)) {
        findings.named.extend(report.findings.into_iter().map(|finding| format!("fsck: {finding}")));
    }
    let options = Options { skips: guards.skips(), ..options() };
    if let Some(log) = findings.named("refused", open(dir, &options)) {
        check(&log, ledger, seed, &mut findings);
        probe(&log, ledger, seed, &mut findings);
    }
    findings
}

/// Holds an open log against its ledger.
pub fn check(log: &Log, ledger: &mut Ledger, seed: &mut Seed, findings: &mut Findings) {
    let head = log.head();
    if let Err(wrong) = ledger.saw(&head.checkpoint) {
        findings.wrong.push(wrong);
    }
    let (size, shown) = (head.size, ledger.size());
    findings.wrong(size < shown, || format!("I2: the log has {size} entries, and a checkpoint of {shown} was shown"));
    let leaves = entries(log, size, ledger, findings);
    views(log, &leaves, ledger, findings);
    receipts(log, &leaves, ledger, seed, findings);
    // Without all leaves there is nothing to compare trees with; that a leaf is missing was found above.
    let hashes: Vec<Hash> = leaves.iter().map_while(|entry| entry.as_ref().map(|(_, hash)| *hash)).collect();
    if hashes.len() as u64 == size {
        roots(log, &hashes, ledger, seed, findings);
        tiles(log, &hashes, ledger, seed, findings);
    }
}

/// Number and leaf hash of each entry; the number of an entry that no client wrote is none.
type Leaves = Vec<Option<(Option<u64>, Hash)>>;

/// I1, I5, I7: every entry, acknowledged or not, is one that a client wrote, whole, and there once.
fn entries(log: &Log, size: u64, ledger: &Ledger, findings: &mut Findings) -> Leaves {
    let (mut leaves, mut seen) = (Vec::new(), HashSet::new());
    for index in 0..size {
        let Some(found) = findings.named(&format!("entry {index}"), log.entry(index)) else {
            leaves.push(None);
            continue;
        };
        let n = entry::number(&found.leaf);
        if let Some(n) = n {
            let Draft { leaf, payload } = entry::draft(ledger.life, n);
            findings.wrong(found.leaf != leaf, || format!("I5: entry {index} has other bytes than entry {n} had"));
            let same_payload = found.payload.unwrap_or_default() == payload;
            if !same_payload {
                findings.beside.push(format!("I1: entry {index} has another payload than entry {n} had"));
            }
            findings.wrong(!seen.insert(n), || format!("I7: entry {n} stands at {index} and before"));
        }
        findings.wrong(n.is_none() && index != 0, || format!("I5: nobody wrote the entry at {index}"));
        let expected = ledger.entry_at(index);
        findings.wrong(expected.is_some() && expected != n, || {
            format!("I1: index {index} was acknowledged for entry {expected:?} and holds {n:?}")
        });
        leaves.push(Some((n, leaf_hash(&found.leaf))));
    }
    let lost = ledger.entries().filter(|(index, _)| *index >= size).count();
    findings.wrong(lost > 0, || format!("I1: {lost} acknowledged entries are lost; the log has {size}"));
    leaves
}

/// I6: every view has the rows of the entries that are in it, and no others.
fn views(log: &Log, leaves: &Leaves, ledger: &Ledger, findings: &mut Findings) {
    for view in entry::views(ledger.life) {
        let Some(found) = findings.named("view", log.find(&view, 0, usize::MAX)) else { continue };
        let (mut expected, mut unreadable) = (Vec::new(), HashSet::new());
        for (index, leaf) in (0..).zip(leaves) {
            match leaf {
                Some((Some(n), _)) if entry::is_in(&view, ledger.life, *n) => expected.push(index),
                Some(_) => {}
                None => {
                    unreadable.insert(index);
                }
            }
        }
        let readable: Vec<u64> = found.into_iter().filter(|index| !unreadable.contains(index)).collect();
        if readable != expected {
            let (rows, should) = (readable.len(), expected.len());
            findings.beside.push(format!("I6: {view:?} has {rows} rows and should have {should}"));
        }
    }
}

/// Receipts of a sample of entries prove them.
fn receipts(log: &Log, leaves: &Leaves, ledger: &mut Ledger, seed: &mut Seed, findings: &mut Findings) {
    for _ in 0..SAMPLES.min(leaves.len() as u64) {
        let index = seed.below(leaves.len() as u64);
        let Some((n, hash)) = leaves[index as usize] else { continue };
        let Some(receipt) = findings.named(&format!("receipt {index}"), log.receipt(index)) else { continue };
        findings.wrong(receipt.index != index, || format!("the receipt of {index} is that of {}", receipt.index));
        let entries: Vec<_> = n.map(|n| (n, index)).into_iter().collect();
        if let Err(wrong) =
            check_receipt(&receipt, &hash).and_then(|()| ledger.acknowledged(&receipt.checkpoint, &entries))
        {
            findings.wrong.push(wrong);
        }
    }
}

/// Whether a receipt proves its leaf. Its checkpoint is for [`Ledger::saw`] to verify.
pub fn check_receipt(receipt: &Receipt, leaf: &Hash) -> Result<(), String> {
    check_inclusion(leaf, receipt.index, receipt.tree_size, &receipt.proof, &receipt.root)
        .map_err(|source| format!("the receipt of index {} does not prove it: {source}", receipt.index))
}

/// I2: every checkpoint that was shown is a prefix of the log, and the log can prove it.
fn roots(log: &Log, hashes: &[Hash], ledger: &Ledger, seed: &mut Seed, findings: &mut Findings) {
    let all = all_roots(hashes);
    let head = log.head();
    for (size, root) in ledger.roots().filter(|(size, _)| *size <= head.size) {
        findings
            .wrong(all[size as usize] != root, || format!("I2: the checkpoint of size {size} is no prefix of the log"));
    }
    for _ in 0..SAMPLES {
        let size = seed.below(head.size + 1);
        let root = &all[size as usize];
        if let Some(found) = findings.named("root", log.root_at(size)) {
            findings.wrong(found != *root, || format!("the log tells another root at {size} than its leaves"));
        }
        if let Some(proof) = findings.named("consistency", log.consistency(size, head.size)) {
            let checked = check_consistency(size, root, head.size, &head.root, &proof);
            findings.wrong(checked.is_err(), || format!("I2: the proof from {size} to {} does not hold", head.size));
        }
    }
}

/// I4: tiles and bundles of published sizes, at the right edge of a sample, and all full ones.
fn tiles(log: &Log, hashes: &[Hash], ledger: &Ledger, seed: &mut Seed, findings: &mut Findings) {
    let published: Vec<u64> =
        ledger.roots().map(|(size, _)| size).filter(|size| *size <= hashes.len() as u64).collect();
    for sample in 0..SAMPLES {
        let size = if sample == 0 { hashes.len() as u64 } else { published[seed.index(published.len())] };
        let mut nodes = hashes[..size as usize].to_vec();
        for level in 0.. {
            let last = nodes.len() / 256;
            // Of smaller sizes, the full tiles are the same as those of the whole log.
            let from = if sample == 0 { 0 } else { last };
            for (index, tile) in nodes.chunks(256).enumerate().skip(from) {
                let (index, width) = (index as u64, tile.len() as u16);
                if let Some(found) = findings.named("tile", log.tile(level, index, width)) {
                    findings
                        .wrong(found != tile.as_flattened(), || format!("I4: tile {level}/{index}.p/{width} is wrong"));
                }
                if level == 0
                    && let Some(found) = findings.named("bundle", log.entry_bundle(index, width))
                {
                    findings.wrong(bundle_hashes(&found) != tile, || format!("I4: bundle {index}.p/{width} is wrong"));
                }
            }
            nodes = nodes.as_chunks::<256>().0.iter().map(|tile| tree(tile)).collect();
            if nodes.is_empty() {
                break;
            }
        }
    }
}

/// Appends something new and something old: both are answered as they must be, and go into the ledger.
pub fn probe(log: &Log, ledger: &mut Ledger, seed: &mut Seed, findings: &mut Findings) {
    let new = PROBES + seed.below(1 << 40);
    let old = (ledger.len() > 0).then(|| ledger.entries().nth(seed.index(ledger.len())).map(|(_, n)| n)).flatten();
    let numbers: Vec<u64> = [Some(new), old].into_iter().flatten().collect();
    let drafts: Vec<Draft> = numbers.iter().map(|n| entry::draft(ledger.life, *n)).collect();
    let before = log.size();
    let Some(receipts) = findings.named("append", wait_for(log.append(drafts.clone()))) else { return };
    findings
        .wrong(log.size() != before + 1, || format!("one new entry made the log of {before} one of {}", log.size()));
    for ((n, draft), receipt) in numbers.iter().zip(&drafts).zip(&receipts) {
        let checked = check_receipt(receipt, &leaf_hash(&draft.leaf))
            .and_then(|()| ledger.acknowledged(&receipt.checkpoint, &[(*n, receipt.index)]));
        if let Err(wrong) = checked {
            findings.wrong.push(wrong);
        }
    }
}

/// RFC 6962, section 2.1.
pub fn leaf_hash(leaf: &[u8]) -> Hash {
    Sha256::new().chain_update([0]).chain_update(leaf).finalize().into()
}

fn node(left: &Hash, right: &Hash) -> Hash {
    Sha256::new().chain_update([1]).chain_update(left).chain_update(right).finalize().into()
}

fn tree(leaves: &[Hash]) -> Hash {
    match leaves {
        [] => Sha256::digest([]).into(),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(leaves.len().next_power_of_two() / 2);
            node(&tree(left), &tree(right))
        }
    }
}

/// The roots at every size: the complete subtrees of the right edge, folded from the right.
fn all_roots(leaves: &[Hash]) -> Vec<Hash> {
    let (mut roots, mut edge) = (vec![tree(&[])], Vec::<(u32, Hash)>::new());
    for leaf in leaves {
        let mut next = (0, *leaf);
        while let Some((_, left)) = edge.pop_if(|(height, _)| *height == next.0) {
            next = (next.0 + 1, node(&left, &next.1));
        }
        edge.push(next);
        let mut parts = edge.iter().rev().map(|(_, hash)| *hash);
        let last = parts.next().unwrap();
        roots.push(parts.fold(last, |right, left| node(&left, &right)));
    }
    roots
}

/// The leaf hashes of an entry bundle of C2SP `tlog-tiles`.
fn bundle_hashes(mut bundle: &[u8]) -> Vec<Hash> {
    let mut hashes = Vec::new();
    while let Some((length, rest)) = bundle.split_first_chunk::<2>() {
        let Some((leaf, rest)) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))) else { break };
        hashes.push(leaf_hash(leaf));
        bundle = rest;
    }
    hashes
}

#[test]
fn the_roots_of_all_sizes_are_those_of_the_recursion() {
    let leaves: Vec<Hash> = (0_u32..70).map(|n| leaf_hash(&n.to_be_bytes())).collect();
    for (size, root) in all_roots(&leaves).into_iter().enumerate() {
        assert_eq!(root, tree(&leaves[..size]), "{size}");
    }
}
