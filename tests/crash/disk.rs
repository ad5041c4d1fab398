//! A disk that loses what was not synced: files in memory, each with what a program sees and what a power cut leaves.
//!
//! - Bytes and the length of a file are safe once that file was synced (`fsync` and `fdatasync` alike).
//! - Names (made, renamed, removed) are safe once their directory was synced. A synced file whose name is not safe is
//!   lost with it.
//! - At a power cut *any* part of the rest may have reached the disk, in any order: writes are torn at 512 bytes, a file
//!   may have its length and not its bytes (it then reads zeros, or what lay on the disk before).
//! - A failed sync may drop what it should have written, while programs go on seeing it and the next sync succeeds, as
//!   Linux does.
//! - In `lies`, a sync answers and does nothing.

use std::{
    collections::{BTreeMap, HashMap},
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::seed::Seed;

/// What a disk writes at once.
const SECTOR: u64 = 512;
/// The inode of the root directory.
pub const ROOT: u64 = 1;

/// A change of a file that no sync has covered.
#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Length(u64),
}

#[derive(Debug, Clone, Default)]
pub struct File {
    /// As programs see it.
    pub now: Vec<u8>,
    /// As the disk holds it for sure.
    durable: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Debug, Clone, Default)]
pub struct Directory {
    pub now: BTreeMap<OsString, u64>,
    durable: BTreeMap<OsString, u64>,
}

#[derive(Debug, Clone)]
pub enum Node {
    File(File),
    Directory(Directory),
}

/// Names that change together, none or all of them: directory, name, and the inode that it stands for from now on.
type Naming = Vec<(u64, OsString, Option<u64>)>;

/// When something goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// At the Nth operation that changes or syncs something.
    Operation(u64),
    /// At the Nth sync of a file that has something to sync.
    Sync(u64),
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The power goes, before the operation is done.
    Cut,
    /// It fails and is not done.
    Refused,
    /// It is done and reported as failed.
    Reported,
    /// A sync fails, and what it should have written is lost, but programs still see it. Other operations are refused.
    Dropped,
}

/// Which syncs are lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lies {
    None,
    /// Those of files in the database's directory, and of that directory.
    Database,
    All,
}

/// The disk.
#[derive(Debug)]
pub struct Disk {
    nodes: HashMap<u64, Node>,
    next: u64,
    unsynced_names: Vec<Naming>,
    /// Operations that change or sync something, so far.
    operations: u64,
    /// Syncs of files that had something to sync, so far.
    syncs: u64,
    planned: Option<(Moment, Failure)>,
    /// Whether the planned failure happened.
    pub failed: bool,
    pub is_cut: bool,
    lies: Lies,
    database: u64,
}

/// How an operation goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Course {
    Fine,
    Fail,
    DoAndFail,
    DropAndFail,
}

impl Disk {
    /// A disk that holds, safely, what is in a directory.
    pub fn load(from: &Path, lies: Lies, planned: Option<(Moment, Failure)>) -> Self {
        let mut disk = Self {
            nodes: HashMap::from([(ROOT, Node::Directory(Directory::default()))]),
            next: ROOT + 1,
            unsynced_names: Vec::new(),
            operations: 0,
            syncs: 0,
            planned,
            failed: false,
            is_cut: false,
            lies,
            database: 0,
        };
        disk.load_directory(ROOT, from);
        disk
    }

    fn load_directory(&mut self, inode: u64, from: &Path) {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let is_directory = entry.file_type().unwrap().is_dir();
            let child = self.add(if is_directory {
                Node::Directory(Directory::default())
            } else {
                let bytes = fs::read(entry.path()).unwrap();
                Node::File(File { now: bytes.clone(), durable: bytes, unsynced: Vec::new() })
            });
            let Some(Node::Directory(parent)) = self.nodes.get_mut(&inode) else { unreachable!() };
            parent.now.insert(entry.file_name(), child);
            parent.durable.insert(entry.file_name(), child);
            if is_directory {
                if entry.file_name() == "db" {
                    self.database = child;
                }
                self.load_directory(child, &entry.path());
            }
        }
    }

    fn add(&mut self, node: Node) -> u64 {
        let inode = self.next;
        self.next += 1;
        self.nodes.insert(inode, node);
        inode
    }

    pub fn node(&self, inode: u64) -> Option<&Node> {
        self.nodes.get(&inode)
    }

    pub fn find(&self, parent: u64, name: &OsStr) -> Option<u64> {
        match self.nodes.get(&parent)? {
            Node::Directory(directory) => directory.now.get(name).copied(),
            Node::File(_) => None,
        }
    }

    /// Asked before a sync of a file.
    pub fn course_of_sync(&mut self, inode: u64) -> Course {
        let has_changes = matches!(self.nodes.get(&inode), Some(Node::File(file)) if !file.unsynced.is_empty());
        self.syncs += u64::from(has_changes);
        let is_planned = has_changes && matches!(self.planned, Some((Moment::Sync(at), _)) if at == self.syncs);
        self.take_course(is_planned)
    }

    /// Asked before every other operation that changes or syncs something.
    pub fn course(&mut self) -> Course {
        self.take_course(false)
    }

    fn take_course(&mut self, is_planned: bool) -> Course {
        self.operations += 1;
        if self.is_cut {
            return Course::Fail;
        }
        match self.planned {
            Some((moment, failure)) if is_planned || moment == Moment::Operation(self.operations) => {
                self.failed = true;
                match failure {
                    Failure::Cut => {
                        self.is_cut = true;
                        Course::Fail
                    }
                    Failure::Refused => Course::Fail,
                    Failure::Reported => Course::DoAndFail,
                    Failure::Dropped => Course::DropAndFail,
                }
            }
            _ => Course::Fine,
        }
    }

    /// Gives names. They are seen at once, and safe after a sync of their directory.
    pub fn name(&mut self, naming: Naming) {
        for (parent, name, inode) in &naming {
            if let Some(Node::Directory(directory)) = self.nodes.get_mut(parent) {
                set(&mut directory.now, name, *inode);
            }
        }
        self.unsynced_names.push(naming);
    }

    /// Makes a file or directory under a name.
    pub fn make(&mut self, parent: u64, name: &OsStr, is_directory: bool) -> u64 {
        let node = if is_directory { Node::Directory(Directory::default()) } else { Node::File(File::default()) };
        let inode = self.add(node);
        if is_directory && name == "db" {
            self.database = inode;
        }
        self.name(vec![(parent, name.to_owned(), Some(inode))]);
        inode
    }

    pub fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            put(&mut file.now, offset, bytes);
            file.unsynced.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
    }

    pub fn set_length(&mut self, inode: u64, length: u64) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            file.now.resize(length as usize, 0);
            file.unsynced.push(Change::Length(length));
        }
    }

    /// Syncs a file.
    pub fn sync(&mut self, inode: u64) {
        let lies = match self.lies {
            Lies::None => false,
            Lies::All => true,
            Lies::Database => self.is_in_database(inode),
        };
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode)
            && !lies
        {
            for change in file.unsynced.drain(..) {
                change.apply(&mut file.durable);
            }
        }
    }

    /// Fails to sync a file, and forgets that there was something to sync.
    pub fn drop_unsynced(&mut self, inode: u64) {
        if let Some(Node::File(file)) = self.nodes.get_mut(&inode) {
            file.unsynced.clear();
        }
    }

    /// Syncs the names in a directory.
    pub fn sync_names(&mut self, inode: u64) {
        if self.lies == Lies::All || self.lies == Lies::Database && inode == self.database {
            return;
        }
        let all = std::mem::take(&mut self.unsynced_names);
        for naming in all {
            if naming.iter().any(|(parent, ..)| *parent == inode) {
                self.keep(&naming);
            } else {
                self.unsynced_names.push(naming);
            }
        }
    }

    fn is_in_database(&self, inode: u64) -> bool {
        match self.nodes.get(&self.database) {
            Some(Node::Directory(directory)) => directory.now.values().any(|child| *child == inode),
            _ => false,
        }
    }

    fn keep(&mut self, naming: &Naming) {
        for (parent, name, inode) in naming {
            if let Some(Node::Directory(directory)) = self.nodes.get_mut(parent) {
                set(&mut directory.durable, name, *inode);
            }
        }
    }

    /// Cuts the power, and writes what survived into a new directory.
    pub fn survive(mut self, seed: &mut Seed, to: &Path) {
        self.is_cut = true;
        let namings = std::mem::take(&mut self.unsynced_names);
        let luck = Luck::draw(seed, namings.len());
        for (at, naming) in namings.iter().enumerate() {
            if luck.keeps(at, seed) {
                self.keep(naming);
            }
        }
        self.save(ROOT, to, seed);
    }

    fn save(&self, inode: u64, to: &Path, seed: &mut Seed) {
        fs::create_dir_all(to).unwrap();
        let Some(Node::Directory(directory)) = self.nodes.get(&inode) else { unreachable!() };
        for (name, child) in &directory.durable {
            let path: PathBuf = to.join(name);
            match &self.nodes[child] {
                Node::Directory(_) => self.save(*child, &path, seed),
                Node::File(file) => fs::write(path, file.survivor(seed)).unwrap(),
            }
        }
    }
}

fn set(names: &mut BTreeMap<OsString, u64>, name: &OsStr, inode: Option<u64>) {
    match inode {
        Some(inode) => names.insert(name.to_owned(), inode),
        None => names.remove(name),
    };
}

/// Writes into a file, which grows as needed.
fn put(file: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let (from, to) = (offset as usize, offset as usize + bytes.len());
    if file.len() < to {
        file.resize(to, 0);
    }
    file[from..to].copy_from_slice(bytes);
}

impl Change {
    fn apply(&self, file: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => put(file, *offset, bytes),
            Self::Length(length) => file.resize(*length as usize, 0),
        }
    }

    fn length_after(&self, before: u64) -> u64 {
        match self {
            Self::Write { offset, bytes } => before.max(offset + bytes.len() as u64),
            Self::Length(length) => *length,
        }
    }
}

/// Which of some unsynced changes survive.
enum Luck {
    Nothing,
    Everything,
    /// The first so many.
    First(usize),
    /// Each with this chance in 100.
    Any(u64),
}

impl Luck {
    fn draw(seed: &mut Seed, changes: usize) -> Self {
        match seed.below(6) {
            0 => Self::Nothing,
            1 => Self::Everything,
            2 => Self::First(seed.index(changes + 1)),
            _ => Self::Any(*seed.pick(&[5, 50, 95])),
        }
    }

    const fn keeps(&self, at: usize, seed: &mut Seed) -> bool {
        match self {
            Self::Nothing => false,
            Self::Everything => true,
            Self::First(count) => at < *count,
            Self::Any(chance) => seed.chance(*chance),
        }
    }
}

impl File {
    /// What a power cut leaves of the file.
    fn survivor(&self, seed: &mut Seed) -> Vec<u8> {
        let luck = Luck::draw(seed, self.unsynced.len());
        let mut file = self.durable.clone();
        match luck {
            Luck::Any(_) => self.torn(&luck, seed, &mut file),
            _ => {
                for (at, change) in self.unsynced.iter().enumerate() {
                    if luck.keeps(at, seed) {
                        change.apply(&mut file);
                    }
                }
            }
        }
        file
    }

    /// Any sectors, and any length that the file ever had since the last sync.
    fn torn(&self, luck: &Luck, seed: &mut Seed, file: &mut Vec<u8>) {
        let mut lengths = vec![self.durable.len() as u64];
        for change in &self.unsynced {
            lengths.push(change.length_after(*lengths.last().unwrap()));
        }
        let length = if seed.chance(50) { *lengths.last().unwrap() } else { *seed.pick(&lengths) };
        let stale = seed.chance(15);
        let fresh = file.len();
        file.resize(length as usize, 0);
        if stale && fresh < file.len() {
            let bytes = seed.bytes(file.len() - fresh);
            file[fresh..].copy_from_slice(&bytes);
        }
        for change in &self.unsynced {
            let Change::Write { offset, bytes } = change else { continue };
            let mut from = *offset;
            let end = (offset + bytes.len() as u64).min(length);
            while from < end {
                let to = ((from / SECTOR + 1) * SECTOR).min(end);
                if luck.keeps(0, seed) {
                    let sector = &bytes[(from - offset) as usize..(to - offset) as usize];
                    file[from as usize..to as usize].copy_from_slice(sector);
                }
                from = to;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What survives of a file that was made, written and synced as `ops` says, over many cuts.
    fn survivors(ops: impl Fn(&mut Disk)) -> Vec<Option<Vec<u8>>> {
        let home = tempfile::tempdir().unwrap();
        let (empty, mut all) = (home.path().join("empty"), Vec::new());
        fs::create_dir(&empty).unwrap();
        for cut in 0..200 {
            let mut disk = Disk::load(&empty, Lies::None, None);
            ops(&mut disk);
            let to = home.path().join(cut.to_string());
            disk.survive(&mut Seed::new(cut), &to);
            all.push(fs::read(to.join("a")).ok());
        }
        all
    }

    #[test]
    fn what_was_synced_survives_and_anything_else_may() {
        let made = |disk: &mut Disk| disk.make(ROOT, OsStr::new("a"), false);
        let all = survivors(|disk| {
            let a = made(disk);
            disk.write(a, 0, b"one");
            disk.sync(a);
            disk.sync_names(ROOT);
        });
        assert!(all.iter().all(|file| file.as_deref() == Some(b"one")), "file and name are synced");
        let all = survivors(|disk| {
            let a = made(disk);
            disk.write(a, 0, b"one");
            disk.sync(a);
        });
        assert!(all.contains(&None) && all.contains(&Some(b"one".to_vec())), "the name is not");
        let all = survivors(|disk| {
            let a = made(disk);
            disk.sync_names(ROOT);
            disk.write(a, 0, &[1; 1024]);
            disk.write(a, 1024, &[2; 512]);
        });
        let sectors = |file: &Vec<u8>| file.chunks(512).map(|sector| sector[0]).collect::<Vec<_>>();
        let seen: Vec<_> = all.iter().flatten().map(sectors).collect();
        for possible in [&[][..], &[1, 1], &[1, 1, 2], &[0, 0, 2], &[1, 0, 2], &[0, 1]] {
            assert!(seen.iter().any(|file| file == possible), "{possible:?} may survive");
        }
        let all = survivors(|disk| {
            let a = made(disk);
            disk.sync_names(ROOT);
            disk.write(a, 0, b"one");
            disk.drop_unsynced(a);
            disk.sync(a);
        });
        assert!(all.iter().flatten().all(Vec::is_empty), "a sync that failed dropped it, and the next does not help");
    }
}
