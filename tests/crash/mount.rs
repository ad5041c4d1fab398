//! [`Disk`] as a file system that another process can use, by FUSE.

use std::{
    ffi::OsStr,
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, UNIX_EPOCH},
};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Course, Disk, Node, ROOT};

/// The kernel may remember names and attributes: nothing changes behind its back.
const FOREVER: Duration = Duration::from_hours(1);

/// A mounted disk; unmounted when dropped.
pub struct Mount {
    disk: Arc<Mutex<Disk>>,
    session: BackgroundSession,
}

impl Mount {
    /// Mounts a disk at an empty directory. Needs `/dev/fuse` and the right to mount.
    pub fn new(disk: Disk, at: &Path) -> io::Result<Self> {
        let disk = Arc::new(Mutex::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("lossy".to_owned()), MountOption::NoAtime];
        let session = fuser::spawn_mount(Lossy(Arc::clone(&disk)), at, &config)?;
        Ok(Self { disk, session })
    }

    pub fn disk(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }

    /// Unmounts, and gives the disk back. Nobody may use it any more.
    pub fn end(self) -> Disk {
        self.disk().is_cut = true;
        self.session.umount_and_join().unwrap();
        Arc::into_inner(self.disk).unwrap().into_inner().unwrap()
    }
}

struct Lossy(Arc<Mutex<Disk>>);

impl Lossy {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap()
    }

    /// Does a change, unless the disk's course says otherwise.
    fn change<T>(&self, change: impl FnOnce(&mut Disk) -> Result<T, Errno>) -> Result<T, Errno> {
        let mut disk = self.disk();
        match disk.course() {
            Course::Fine => change(&mut disk),
            Course::DoAndFail => change(&mut disk).and(Err(Errno::EIO)),
            Course::Fail | Course::DropAndFail => Err(Errno::EIO),
        }
    }
}

fn attributes(inode: u64, node: &Node) -> FileAttr {
    let (kind, size, perm) = match node {
        Node::Directory(_) => (FileType::Directory, 0, 0o700),
        Node::File(file) => (FileType::RegularFile, file.now.len() as u64, 0o600),
    };
    FileAttr {
        ino: INodeNo(inode),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm,
        nlink: 1,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn attributes_of(disk: &Disk, inode: u64) -> Result<FileAttr, Errno> {
    disk.node(inode).map(|node| attributes(inode, node)).ok_or(Errno::ENOENT)
}

fn answer(reply: ReplyEmpty, result: Result<(), Errno>) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn answer_entry(reply: ReplyEntry, result: Result<FileAttr, Errno>) {
    match result {
        Ok(attributes) => reply.entry(&FOREVER, &attributes, Generation(0)),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Lossy {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let disk = self.disk();
        let found = disk.find(parent.0, name).ok_or(Errno::ENOENT);
        answer_entry(reply, found.and_then(|inode| attributes_of(&disk, inode)));
    }

    fn getattr(&self, _: &Request, inode: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match attributes_of(&self.disk(), inode.0) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        inode: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<std::time::SystemTime>,
        _handle: Option<FileHandle>,
        _crtime: Option<std::time::SystemTime>,
        _chgtime: Option<std::time::SystemTime>,
        _bkuptime: Option<std::time::SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let changed = size.map_or(Ok(()), |length| {
            self.change(|disk| {
                disk.set_length(inode.0, length);
                Ok(())
            })
        });
        match changed.and_then(|()| attributes_of(&self.disk(), inode.0)) {
            Ok(attributes) => reply.attr(&FOREVER, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _mode: u32, _umask: u32, reply: ReplyEntry) {
        let made = self.change(|disk| {
            let inode = disk.make(parent.0, name, true);
            attributes_of(disk, inode)
        });
        answer_entry(reply, made);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let made = self.change(|disk| {
            let inode = disk.make(parent.0, name, false);
            attributes_of(disk, inode)
        });
        match made {
            Ok(attributes) => {
                reply.created(&FOREVER, &attributes, Generation(0), FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
            }
            Err(error) => reply.error(error),
        }
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.change(|disk| {
            disk.find(parent.0, name).ok_or(Errno::ENOENT)?;
            disk.name(vec![(parent.0, name.to_owned(), None)]);
            Ok(())
        });
        answer(reply, removed);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.change(|disk| {
            let inode = disk.find(parent.0, name).ok_or(Errno::ENOENT)?;
            match disk.node(inode) {
                Some(Node::Directory(directory)) if directory.now.is_empty() => {}
                Some(Node::Directory(_)) => return Err(Errno::ENOTEMPTY),
                _ => return Err(Errno::ENOTDIR),
            }
            disk.name(vec![(parent.0, name.to_owned(), None)]);
            Ok(())
        });
        answer(reply, removed);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let renamed = self.change(|disk| {
            let inode = disk.find(parent.0, name).ok_or(Errno::ENOENT)?;
            let taken = disk.find(new_parent.0, new_name).is_some();
            if !flags.is_empty() && (flags != RenameFlags::RENAME_NOREPLACE || taken) {
                return Err(if taken { Errno::EEXIST } else { Errno::EINVAL });
            }
            disk.name(vec![(parent.0, name.to_owned(), None), (new_parent.0, new_name.to_owned(), Some(inode))]);
            Ok(())
        });
        answer(reply, renamed);
    }

    fn link(&self, _: &Request, inode: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let linked = self.change(|disk| {
            disk.name(vec![(parent.0, name.to_owned(), Some(inode.0))]);
            attributes_of(disk, inode.0)
        });
        answer_entry(reply, linked);
    }

    fn open(&self, _: &Request, _: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().node(inode.0) {
            Some(Node::File(file)) => {
                let from = file.now.len().min(offset as usize);
                let to = file.now.len().min(from + size as usize);
                reply.data(&file.now[from..to]);
            }
            _ => reply.error(Errno::EISDIR),
        }
    }

    fn write(
        &self,
        _: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self.change(|disk| {
            disk.write(inode.0, offset, data);
            Ok(())
        });
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        inode: INodeNo,
        _handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        const KEEP_SIZE: i32 = 1;
        let allocated = self.change(|disk| match disk.node(inode.0) {
            Some(Node::File(file)) => {
                let end = offset + length;
                if mode == 0 && (file.now.len() as u64) < end {
                    disk.set_length(inode.0, end);
                }
                if mode == 0 || mode == KEEP_SIZE { Ok(()) } else { Err(Errno::EOPNOTSUPP) }
            }
            _ => Err(Errno::EISDIR),
        });
        answer(reply, allocated);
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let mut disk = self.disk();
        let course = disk.course_of_sync(inode.0);
        match course {
            Course::Fine | Course::DoAndFail => disk.sync(inode.0),
            Course::DropAndFail => disk.drop_unsynced(inode.0),
            Course::Fail => {}
        }
        answer(reply, if course == Course::Fine { Ok(()) } else { Err(Errno::EIO) });
    }

    fn fsyncdir(&self, _: &Request, inode: INodeNo, _: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let synced = self.change(|disk| {
            disk.sync_names(inode.0);
            Ok(())
        });
        answer(reply, synced);
    }

    fn readdir(&self, _: &Request, inode: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let disk = self.disk();
        let Some(Node::Directory(directory)) = disk.node(inode.0) else { return reply.error(Errno::ENOTDIR) };
        let own = [(OsStr::new("."), inode.0), (OsStr::new(".."), ROOT)];
        let names = own.into_iter().chain(directory.now.iter().map(|(name, child)| (name.as_os_str(), *child)));
        for (at, (name, child)) in (1..).zip(names).skip(offset as usize) {
            let kind = match disk.node(child) {
                Some(Node::File(_)) => FileType::RegularFile,
                _ => FileType::Directory,
            };
            if reply.add(INodeNo(child), at, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        const BLOCKS: u64 = 1 << 22;
        reply.statfs(BLOCKS, BLOCKS, BLOCKS, 1 << 20, 1 << 20, 4096, 255, 4096);
    }

    fn access(&self, _: &Request, _: INodeNo, _: fuser::AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
