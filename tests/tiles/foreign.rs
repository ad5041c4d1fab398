//! `tlog_tiles`, which we did not write, as the client: it fetches tiles over HTTP, and proves inclusion and consistency.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
};

use countersign::tlog::Checkpoint as Ours;
use tlog_tiles::{
    Checkpoint, Error, Hash, HashReader as _, Tile, TileHashReader, TileReader, check_record, check_tree, prove_record,
    prove_tree, record_hash, stored_hash_index, tree_hash,
};

use super::{
    client::{Connection, ORIGIN, fill, new_log, open, serve},
    http::damage,
};

/// Fetches tiles; the crate asks with the height in the path, as the Go checksum database does.
struct Fetcher {
    http: RefCell<Connection>,
    kept: RefCell<HashMap<Tile, Vec<u8>>>,
    count: Cell<usize>,
}

impl Fetcher {
    fn new(http: Connection) -> Self {
        Self { http: RefCell::new(http), kept: RefCell::default(), count: Cell::default() }
    }

    fn fetch(&self, tile: &Tile) -> Result<Vec<u8>, Error> {
        self.count.set(self.count.get() + 1);
        let path = tile.path().replacen("tile/8/", "/tile/", 1).replacen("/tile/data/", "/tile/entries/", 1);
        let answer = self.http.borrow_mut().get(&path);
        if answer.status == 200 { Ok(answer.body) } else { Err(Error::InvalidTile) }
    }

    fn count(&self) -> usize {
        self.count.get()
    }

    fn checkpoint(&self) -> Checkpoint {
        let answer = self.http.borrow_mut().get("/checkpoint");
        let note = String::from_utf8(answer.body).unwrap();
        let (text, signatures) = note.split_once("\n\n").unwrap();
        assert!(signatures.starts_with(&format!("\u{2014} {ORIGIN} ")));
        Checkpoint::from_bytes(format!("{text}\n").as_bytes()).ok().unwrap()
    }

    /// The leaf at `index`, out of its entry bundle, as the tree of `size` has it.
    fn entry(&self, index: u64, size: u64) -> Vec<u8> {
        let first = index / 256 * 256;
        let width = u32::try_from((size - first).min(256)).unwrap();
        let bundle = self.fetch(&Tile::new(8, 0, index / 256, width, true)).unwrap();
        let mut rest = bundle.as_slice();
        for _ in first..index {
            let (length, after) = rest.split_first_chunk::<2>().unwrap();
            rest = &after[usize::from(u16::from_be_bytes(*length))..];
        }
        let (length, after) = rest.split_first_chunk::<2>().unwrap();
        after[..usize::from(u16::from_be_bytes(*length))].to_vec()
    }
}

impl TileReader for Fetcher {
    fn height(&self) -> u8 {
        8
    }

    fn read_tiles(&self, tiles: &[Tile]) -> Result<Vec<Vec<u8>>, Error> {
        let one = |tile: &Tile| match self.kept.borrow().get(tile) {
            Some(kept) => Ok(kept.clone()),
            None => self.fetch(tile),
        };
        tiles.iter().map(one).collect()
    }

    /// Called with tiles that were proven to belong to the tree.
    fn save_tiles(&self, tiles: &[Tile], data: &[Vec<u8>]) {
        self.kept.borrow_mut().extend(tiles.iter().copied().zip(data.iter().cloned()));
    }
}

/// Proves that the entry at `index` is in the tree of `size` leaves, from what HTTP gives.
fn prove_entry(fetcher: &Fetcher, index: u64, size: u64, root: Hash) {
    let leaf = fetcher.entry(index, size);
    if index > 0 {
        assert_eq!(leaf, format!("entry {index}").into_bytes());
    }
    let reader = TileHashReader::new(size, root, fetcher);
    let proof = prove_record(size, index, &reader).unwrap_or_else(|error| panic!("{index} of {size}: {error}"));
    check_record(&proof, size, root, index, record_hash(&leaf)).unwrap();
}

/// A log of every size to 520: each size proves its last and a middle entry, and that the one before is its prefix.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_proves_a_log_of_every_size() {
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let served = serve(new_log(&dir), dir, 2).await;
    let (address, log) = (served.address, served.log.clone());
    let runtime = tokio::runtime::Handle::current();
    let proven = tokio::task::spawn_blocking(move || {
        let fetcher = Fetcher::new(Connection::to(address));
        let mut before: Option<(u64, Hash)> = None;
        for size in 1..=520 {
            runtime.block_on(fill(&log, size));
            let checkpoint = fetcher.checkpoint();
            let root = *checkpoint.hash();
            assert_eq!((checkpoint.origin(), checkpoint.size()), (ORIGIN, size));
            prove_entry(&fetcher, size - 1, size, root);
            prove_entry(&fetcher, size / 2, size, root);
            if let Some((old, old_root)) = before {
                let reader = TileHashReader::new(size, root, &fetcher);
                let proof = prove_tree(size, old, &reader).unwrap();
                check_tree(&proof, size, root, old, old_root).unwrap();
            }
            before = Some((size, root));
        }
        fetcher.count()
    })
    .await
    .unwrap();
    println!("{proven} tiles and bundles fetched");
}

/// 100,000 entries: inclusion at places all over, consistency between any two sizes, old sizes through their own partial
/// tiles; then a tile that rotted, which is refused and not believed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_client_proves_a_log_of_100_000_entries() {
    const SIZE: u64 = 100_000;
    let home = tempfile::tempdir().unwrap();
    let dir = home.path().join("log");
    let log = new_log(&dir);
    fill(&log, SIZE).await;
    let served = serve(log, dir.clone(), 2).await;
    let (address, key) = (served.address, served.log.key().clone());
    tokio::task::spawn_blocking(move || {
        let fetcher = Fetcher::new(Connection::to(address));
        let note = fetcher.http.borrow_mut().get("/api/v2/checkpoint").body;
        assert_eq!(Ours::verify(str::from_utf8(&note).unwrap(), &key).unwrap().size, SIZE, "signed by the log's key");
        let checkpoint = fetcher.checkpoint();
        let root = *checkpoint.hash();
        assert_eq!(checkpoint.size(), SIZE);
        let mut number = 1_u64;
        let mut next = |below: u64| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (number >> 33) % below
        };
        let edges = [0, 1, 255, 256, 65_535, 65_536, 99_839, 99_840, 99_999];
        let indexes: Vec<u64> = edges.into_iter().chain((0..100).map(|_| next(SIZE))).collect();
        for index in indexes {
            prove_entry(&fetcher, index, SIZE, root);
        }
        let reader = TileHashReader::new(SIZE, root, &fetcher);
        let edges = [1, 2, 255, 256, 257, 65_535, 65_536, 65_537, 99_999, SIZE];
        let sizes: Vec<u64> = edges.into_iter().chain((0..40).map(|_| 1 + next(SIZE))).collect();
        for old in sizes {
            let proof = prove_tree(SIZE, old, &reader).unwrap();
            let old_root = tree_hash(old, &reader).unwrap();
            check_tree(&proof, SIZE, root, old, old_root).unwrap();
            // The old tree by itself, as somebody saw it who has only its checkpoint.
            prove_entry(&fetcher, next(old), old, old_root);
            prove_entry(&fetcher, old - 1, old, old_root);
            let older = 1 + next(old);
            let then = TileHashReader::new(old, old_root, &fetcher);
            let proof = prove_tree(old, older, &then).unwrap();
            check_tree(&proof, old, old_root, older, tree_hash(older, &reader).unwrap()).unwrap();
        }
        println!("{} tiles and bundles fetched", fetcher.count());
        // A client that is told another root does not believe the same tiles.
        let wrong = TileHashReader::new(SIZE, Hash([7; 32]), &fetcher);
        assert!(wrong.read_hashes(&[stored_hash_index(0, 5)]).is_err());
    })
    .await
    .unwrap();
    served.log.close();
    drop(served);
    // Tile 7 stands below a full tile of level 1, so that opening the log does not read it.
    let started = std::time::Instant::now();
    while let Err(error) = damage(&dir, "tiles", &[0, 0, 0, 0, 0, 0, 0, 0, 7]) {
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "{error}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let served = serve(open(&dir), dir, 2).await;
    let address = served.address;
    tokio::task::spawn_blocking(move || {
        let mut http = Connection::to(address);
        for path in ["/tile/0/007", "/tile/0/007.p/9", "/tile/entries/007"] {
            let answer = http.get(path);
            assert_eq!((answer.status, answer.header("cache-control")), (500, "no-store"), "{path}");
        }
        for path in ["/tile/0/006", "/tile/0/008", "/tile/1/000", "/tile/entries/008"] {
            assert_eq!(http.get(path).status, 200, "{path}");
        }
    })
    .await
    .unwrap();
}
