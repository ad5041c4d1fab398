//! Making a log, and opening one: what must hold before a single checkpoint may be signed.

use std::{
    path::Path,
    sync::{Arc, mpsc},
    thread,
};

use super::{
    Inner, Log, LogError, Options, Shared, Skips,
    chain::FROZEN,
    sequencer::Sequencer,
    snapshot::{Head, Reader, Snapshot},
    views, witnessing,
    writer::{Publisher, Writer},
};
use crate::{
    store::{NewEntry, Store, Tail, anchor::Anchor},
    tlog::{Checkpoint, Hash, HashReader as _, RightEdge, VerifierKey, leaf_hash, root_of, tile, tree},
};

/// The first leaf of a log, so that no entry that matters has index 0 (which some clients mistake for absent).
fn genesis(origin: &str) -> Vec<u8> {
    serde_json::json!({ "countersign": "genesis", "origin": origin }).to_string().into_bytes()
}

/// Checks that the origin is a plain host name: Sigstore clients compare it with the host of the log's URL.
fn check_origin(origin: &str) -> Result<(), LogError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '-' || c == '_';
    if origin.is_empty() || origin.len() > 253 || !origin.chars().all(plain) {
        return Err(LogError::Invalid(format!("origin {origin:?} is not a host name without scheme, port or path")));
    }
    Ok(())
}

/// See [`Log::create`].
pub(super) fn create<S: Into<Option<[u8; 64]>>>(
    dir: &Path,
    origin: &str,
    public: [u8; 32],
    sign: impl Fn(&[u8]) -> S,
) -> Result<(), LogError> {
    check_origin(origin)?;
    let key = VerifierKey::new(origin, public).map_err(|source| LogError::Invalid(source.to_string()))?;
    let leaf = genesis(origin);
    let root = leaf_hash(&leaf);
    let checkpoint = Checkpoint { origin: origin.to_owned(), size: 1, root }.sign(&key, sign);
    let checkpoint = checkpoint.map_err(LogError::of_signing)?;
    Checkpoint::verify(&checkpoint, &key).map_err(|_source| LogError::WrongKey)?;
    Store::create(dir, |store, batch| {
        store.put_meta(batch, "origin", origin.as_bytes())?;
        store.put_meta(batch, "key", &public)?;
        store.put_meta(batch, "head", checkpoint.as_bytes())?;
        store.put_views_state(batch, views::COMPLETE)?;
        store.put_entry(batch, 0, &NewEntry { leaf: &leaf, hash: &root, payload: &[], payload_sum: 0, rows: &[] })?;
        Ok((1, root))
    })?;
    Ok(())
}

/// The verifier key that the log recorded when it was made.
pub(super) fn key_of(store: &Store) -> Result<VerifierKey, LogError> {
    let damaged = |what: &str| LogError::Damaged(format!("its {what} is missing or unreadable"));
    let origin =
        store.meta("origin")?.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| damaged("origin"))?;
    let key = store.meta("key")?.and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| damaged("key"))?;
    VerifierKey::new(&origin, key).map_err(|_source| damaged("origin"))
}

/// The stored head, with its signature verified.
pub(super) fn head_of(store: &Store, key: &VerifierKey) -> Result<Head, LogError> {
    let note = store.meta("head")?.and_then(|bytes| String::from_utf8(bytes).ok());
    let note = note.ok_or_else(|| LogError::Damaged("its head is missing".to_owned()))?;
    let checkpoint = Checkpoint::verify(&note, key)?;
    Ok(Head { size: checkpoint.size, root: checkpoint.root, checkpoint: note.into() })
}

/// Rebuilds the partial tiles from the last leaves and full tiles.
pub(super) fn partial_tiles(store: &Store, size: u64) -> Result<Vec<Vec<Hash>>, LogError> {
    let mut partial = Vec::new();
    for level in 0_u8..8 {
        let nodes = size >> (u32::from(level) * tile::HEIGHT);
        if nodes == 0 {
            break;
        }
        let start = nodes & !255;
        let count = usize::try_from(nodes - start).unwrap_or_default();
        let hashes: Vec<Hash> = match level.checked_sub(1) {
            None => store.leaves(start, count)?.iter().map(|leaf| leaf_hash(leaf)).collect(),
            Some(below) => (start..nodes)
                .map(|index| Ok(store.tile(below, index)?.and_then(|hashes| tile::node_in(&hashes, tile::HEIGHT, 0))))
                .collect::<Result<Option<_>, LogError>>()?
                .unwrap_or_default(),
        };
        if hashes.len() != count {
            return Err(LogError::Damaged(format!("leaves or tiles below tile level {level} are missing")));
        }
        partial.push(hashes);
    }
    Ok(partial)
}

/// Rebuilds the published state from disk and holds it against head and anchor. Returns it with its frontier's hashes.
pub(super) fn recover(
    store: &Store,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<(Snapshot, Vec<Hash>), LogError> {
    let (snapshot, frontier) = recover_head(store, key, anchor)?;
    check_last_leaf(store, snapshot.head.size)?;
    Ok((snapshot, frontier))
}

/// As [`recover`], and does not mind leaves beyond the head.
pub(super) fn recover_head(
    store: &Store,
    key: &VerifierKey,
    anchor: Option<&Anchor>,
) -> Result<(Snapshot, Vec<Hash>), LogError> {
    let head = head_of(store, key)?;
    if let Some(anchor) = anchor
        && head.size < anchor.size()
    {
        return Err(LogError::Lost { found: head.size, acknowledged: anchor.size() });
    }
    let partial = partial_tiles(store, head.size)?;
    let reader = Reader { store, size: head.size, partial: &partial };
    let frontier = reader.read_hashes(&tree::frontier(head.size))?;
    if RightEdge::new(head.size, &frontier).is_none_or(|edge| edge.root() != head.root) {
        return Err(LogError::Damaged(format!(
            "leaves and tiles do not give the root that was signed at {}",
            head.size
        )));
    }
    if let Some(anchor) = anchor
        && root_of(anchor.size(), &reader)? != *anchor.root()
    {
        return Err(LogError::Forked(anchor.size()));
    }
    Ok((Snapshot { head, partial }, frontier))
}

/// Checks that the leaves end where the head says.
pub(super) fn check_last_leaf(store: &Store, size: u64) -> Result<(), LogError> {
    match store.last_leaf()? {
        Some(last) if last.checked_add(1) == Some(size) => Ok(()),
        _ => Err(LogError::Damaged("there are leaves beyond the head, or the last is missing".to_owned())),
    }
}

/// Opens the store; also where a power cut tore the end of the write-ahead log, if nothing acknowledged was in it. That is
/// looked at first, and nothing is changed before it is known (see `store` for the argument).
fn open_store(dir: &Path, options: &Options) -> Result<(Store, Anchor), LogError> {
    let open = |tail| {
        if options.skips.home_unsafe {
            Store::open_copy_unsafe(dir, options.room, tail)
        } else {
            Store::open(dir, options.room, tail)
        }
    };
    match open(Tail::Whole) {
        Err(error) if error.is_corruption() => {
            {
                let (store, anchor) = Store::open_read_only(dir)?;
                recover(&store, &key_of(&store)?, (!options.skips.anchor_unsafe).then_some(&anchor))?;
            }
            tracing::warn!(%error, "the end of the write-ahead log is torn; nothing that was acknowledged is in it");
            Ok(open(Tail::Torn)?)
        }
        opened => Ok(opened?),
    }
}

/// See [`Log::open`].
pub(super) fn open<S: Into<Option<[u8; 64]>>>(
    dir: &Path,
    public: [u8; 32],
    sign: impl Fn(&[u8]) -> S + Send + Sync + 'static,
    mut options: Options,
) -> Result<Log, LogError> {
    let (store, mut anchor) = open_store(dir, &options)?;
    let key = key_of(&store)?;
    let probe = b"countersign: is this the log's key?";
    if *key.public() != public {
        return Err(LogError::WrongKey);
    }
    let signature = sign(probe).into().ok_or(LogError::Unsigned)?;
    if key.verify(probe, &signature).is_err() {
        return Err(LogError::WrongKey);
    }
    let sign = Box::new(move |note: &[u8]| sign(note).into());
    views::check(&store)?;
    let anchored = !options.skips.anchor_unsafe;
    let (snapshot, frontier) = recover(&store, &key, anchored.then_some(&anchor))?;
    if options.skips != Skips::default() {
        tracing::error!(skips = ?options.skips, "the log runs WITHOUT some of its guards: it can lose or unsay entries");
    }
    if anchored && snapshot.head.size > anchor.size() {
        tracing::info!(
            anchor = anchor.size(),
            found = snapshot.head.size,
            "the log holds entries that were recorded and never acknowledged; they stay"
        );
        anchor.advance(snapshot.head.size, snapshot.head.root).map_err(crate::store::StoreError::from)?;
    }
    let snapshot = Arc::new(snapshot);
    let frozen = store.meta(FROZEN)?.map(|origin| String::from_utf8_lossy(&origin).into_owned());
    let witnesses = options.witness.take();
    let shown = match &witnesses {
        Some(config) => witnessing::visible(config, dir, &store, &key, &snapshot)?,
        None => None,
    };
    let visible = shown.clone().unwrap_or_else(|| Arc::clone(&snapshot));
    let shared = Arc::new(Shared::new(store, visible, options));
    let started = witnesses.map(|config| witnessing::start(config, dir, &shared, &snapshot, shown, frozen.is_some()));
    let (witnessing, asking) = started.transpose()?.unzip();
    if let Some(successor) = frozen {
        shared.queue.close();
        shared.frozen.get_or_init(|| successor);
        drop(witnessing);
        return Ok(Log(Arc::new(Inner {
            shared,
            origin: key.name().into(),
            key,
            threads: asking.into_iter().collect::<Vec<_>>().into(),
        })));
    }
    // The sequencer hands over only to a free writer; the writer may be one batch ahead of the anchor's sync.
    let (to_writer, sealed) = mpsc::sync_channel(1);
    let (to_publisher, written) = mpsc::sync_channel(1);
    let sequencer = Sequencer::new(Arc::clone(&shared), key.clone(), sign, (snapshot, frontier), to_writer);
    let writer = Writer { shared: Arc::clone(&shared), sealed, publisher: to_publisher };
    let publisher = Publisher { shared: Arc::clone(&shared), anchor, written, witnessing };
    let spawn = |name: &str, run: Box<dyn FnOnce() + Send>| {
        thread::Builder::new().name(name.to_owned()).spawn(run).map_err(|source| LogError::Broken(source.to_string()))
    };
    let mut threads = vec![
        spawn("log-sequencer", Box::new(move || sequencer.run()))?,
        spawn("log-writer", Box::new(move || writer.run()))?,
        spawn("log-publisher", Box::new(move || publisher.run()))?,
    ];
    threads.extend(asking);
    Ok(Log(Arc::new(Inner { shared, origin: key.name().into(), key, threads: threads.into() })))
}
