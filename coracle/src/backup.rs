//! Backups: the state of a whole cluster in one file, which [`restore`](crate::rebuild::restore) makes a new cluster of.
//!
//! [`Node::backup`](crate::Node::backup) gives one on any node: it reflects every write that was completed anywhere before
//! it was asked for. The file has the format of a snapshot (`docs/disk-format.md`), checksummed in chunks and as a whole, so
//! that there is one format and one reader. [`Backup`] is read piece by piece, by whoever sends it somewhere, or saved whole:
//!
//! ```no_run
//! # async fn example<S: coracle::StateMachine>(node: coracle::Node<S>) -> Result<(), Box<dyn std::error::Error>> {
//! let backup = node.backup().await?;
//! let info = tokio::task::spawn_blocking(move || backup.save("monday.backup".as_ref())).await??;
//! println!("everything up to {} in {} bytes", info.last, info.bytes);
//! # Ok(())
//! # }
//! ```
//!
//! [`Partial`] is the other side: a file that comes piece by piece, over whatever connection, and that goes on where it
//! broke off.

use crate::error::{ReadError, StopReason, in_full};
use crate::storage::disk::{Disk, DiskFile, ReadOnlyDir, failed};
use crate::storage::snapshots::{self, Kept, Pace};
use crate::storage::{StoreError, snapshots::Meta};
use crate::wire::decode_membership;
use bytes::Bytes;
use coracle_core::{Index, LogId, Membership};
use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::oneshot;

/// What the name of a file is followed by, as long as it is not whole.
const PARTIAL: &str = ".partial";

/// How much is copied at once, in bytes.
const PIECE: usize = 1 << 20;

/// Who may read a backup: its owner.
const MODE: u32 = 0o600;

/// What a backup is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct BackupInfo {
    /// The newest entry that it stands for.
    pub last: LogId,
    /// The members of the cluster that it is of, and that cluster's id.
    pub membership: Membership,
    /// The cluster's clock there, in milliseconds.
    pub cluster_time: u64,
    /// The version of the state machine that wrote it. An older one cannot restore it.
    pub machine_version: u16,
    /// Random bits that name the file.
    pub file: u64,
    /// Its length in bytes.
    pub bytes: u64,
}

impl BackupInfo {
    fn of(meta: &Meta, file: u64, bytes: u64, path: &Path) -> Result<BackupInfo, StoreError> {
        let membership = decode_membership(&meta.membership.1).map_err(|error| StoreError::Damaged {
            path: path.to_owned(),
            offset: 0,
            detail: format!("the members in it cannot be read: {error}"),
        })?;
        let Meta { id, cluster_time, machine_version, .. } = *meta;
        Ok(BackupInfo { last: id, membership, cluster_time, machine_version, file, bytes })
    }
}

/// Why there is no backup.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackupError {
    /// It could not be confirmed up to where a backup must go. Try again, or on another node.
    #[error("the newest state could not be confirmed")]
    Unconfirmed(#[source] ReadError),
    /// The machine's state could not be written. Another node may.
    #[error("the state could not be written: {0}")]
    NotWritten(String),
    /// What was written cannot be read.
    #[error("the snapshot cannot be read")]
    Storage(#[source] Arc<StoreError>),
    /// The one that was asked for is not there any more.
    #[error("the snapshot {0} is not there any more: begin a new backup")]
    Gone(LogId),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// A backup that can be read: a snapshot of this node. It stays readable whatever the node does meanwhile, and it takes
/// its room on the node's disk until it is dropped.
pub struct Backup {
    info: BackupInfo,
    file: Arc<dyn DiskFile>,
    /// Where [`Read`](io::Read) is.
    at: u64,
}

impl fmt::Debug for Backup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Backup").field("info", &self.info).finish_non_exhaustive()
    }
}

impl Backup {
    /// Opens a snapshot of this node, if it is still there and, where that is named, this very file.
    pub(crate) fn open(disk: &dyn Disk, id: LogId, file: Option<u64>) -> Result<Backup, BackupError> {
        let storage = |error| BackupError::Storage(Arc::new(error));
        let reader = match snapshots::open(disk, id) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Err(BackupError::Gone(id));
            }
            opened => opened.map_err(storage)?,
        };
        let (meta, found, handle) = reader.into_parts();
        if file.is_some_and(|file| file != found) {
            return Err(BackupError::Gone(id));
        }
        let bytes = handle.len().map_err(failed("read the length of", disk.path())).map_err(storage)?;
        let info = BackupInfo::of(&meta, found, bytes, disk.path()).map_err(storage)?;
        Ok(Backup { info, file: handle, at: 0 })
    }

    /// What it is.
    pub fn info(&self) -> &BackupInfo {
        &self.info
    }

    /// Up to `most` bytes from `offset` on; none at the end. Reads a file, and so may wait for a disk.
    pub fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        snapshots::read_piece(&*self.file, offset, most)
    }

    /// Writes it to a new file: durable, and verified by reading it back. It goes on where an earlier call broke off, if
    /// that was the same backup. Waits for disks.
    pub fn save(&self, path: &Path) -> Result<BackupInfo, StoreError> {
        let mut partial = Partial::open(path)?;
        if partial.begun() != Some((self.info.last, self.info.file)) {
            partial.begin_anew()?;
        }
        loop {
            let here = partial.here();
            let piece = self.read_at(here, PIECE).map_err(failed("read the snapshot for", path))?;
            if piece.is_empty() {
                return partial.finish();
            }
            partial.take(here, &piece)?;
        }
    }
}

impl io::Read for Backup {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(to, self.at)?;
        self.at += read as u64;
        Ok(read)
    }
}

/// Reads all of a backup, and checks every checksum in it.
pub fn verify(path: &Path) -> Result<BackupInfo, StoreError> {
    let (disk, name) = file(path)?;
    let Kept { meta, file, bytes } = snapshots::verify(&disk, &name, &Pace::at_most(0))?;
    BackupInfo::of(&meta, file, bytes, path)
}

/// Where the file is, wherever links lead.
pub(crate) fn file(path: &Path) -> Result<(ReadOnlyDir, String), StoreError> {
    let real = fs::canonicalize(path).map_err(failed("find", path))?;
    let name = real.file_name().and_then(|name| name.to_str());
    match (real.parent(), name) {
        (Some(parent), Some(name)) => Ok((ReadOnlyDir::open(parent)?, name.to_owned())),
        _ => {
            Err(failed("read", path)(io::Error::new(io::ErrorKind::InvalidInput, "it has no name in UTF-8")))
        }
    }
}

/// A backup that comes piece by piece. It grows as `FILE.partial` and gets its own name once it is whole, durable and
/// verified. One that was begun before goes on where it broke off.
#[derive(Debug)]
pub struct Partial {
    /// What it will be called.
    path: PathBuf,
    partial: PathBuf,
    /// Locked: no other process writes it.
    file: File,
    here: u64,
}

impl Partial {
    /// Opens what there is of the backup that `path` is to be, or begins it. Refused if `path` exists: a backup is never
    /// written over.
    pub fn open(path: &Path) -> Result<Partial, StoreError> {
        refuse_existing(path)?;
        let mut name = OsString::from(path.as_os_str());
        name.push(PARTIAL);
        let partial = PathBuf::from(name);
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true).mode(MODE);
        let file = options.open(&partial).map_err(failed("open", &partial))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(StoreError::Locked { path: partial }),
            Err(TryLockError::Error(error)) => return Err(failed("lock", &partial)(error)),
        }
        let here = file.metadata().map_err(failed("read the length of", &partial))?.len();
        Ok(Partial { path: path.to_owned(), partial, file, here })
    }

    /// Which backup was begun: its newest entry, and the bits that name its file. None if too little came to tell.
    pub fn begun(&self) -> Option<(LogId, u64)> {
        let (disk, name) = file(&self.partial).ok()?;
        snapshots::begun(&disk, &name)
    }

    /// How much of it is here, in bytes: where the next piece begins.
    pub fn here(&self) -> u64 {
        self.here
    }

    /// Forgets what is here: another backup will come.
    pub fn begin_anew(&mut self) -> Result<(), StoreError> {
        self.file.set_len(0).map_err(failed("empty", &self.partial))?;
        self.here = 0;
        Ok(())
    }

    /// Takes a piece, if it is the next one.
    pub fn take(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StoreError> {
        if offset == self.here {
            self.file.write_all_at(bytes, offset).map_err(failed("write", &self.partial))?;
            self.here += bytes.len() as u64;
        }
        Ok(())
    }

    /// All of it is here: makes it durable, reads it back, and gives it its name. What is damaged is removed, so that the
    /// next attempt begins anew.
    pub fn finish(self) -> Result<BackupInfo, StoreError> {
        let Partial { path, partial, file, .. } = self;
        file.sync_all().map_err(failed("sync", &partial))?;
        let info = verify(&partial);
        if matches!(info, Err(StoreError::Damaged { .. })) {
            fs::remove_file(&partial).map_err(failed("remove", &partial))?;
        }
        let info = info?;
        refuse_existing(&path)?;
        fs::rename(&partial, &path).map_err(failed("rename", &partial))?;
        sync_parent(&path)?;
        Ok(info)
    }
}

fn refuse_existing(path: &Path) -> Result<(), StoreError> {
    match path.symlink_metadata() {
        Err(_) => Ok(()),
        Ok(_) => {
            let exists =
                io::Error::new(io::ErrorKind::AlreadyExists, "it exists, and no backup is written over");
            Err(failed("write", path)(exists))
        }
    }
}

/// Makes the name of a file or directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed("sync", parent))
}

/// Where a backup goes, or why there is none.
pub(crate) type Answer = oneshot::Sender<Result<Backup, BackupError>>;

/// All who wait for a snapshot, and how far it must reach.
#[derive(Default)]
pub(crate) struct Waiting(Vec<(Index, Answer)>);

impl Waiting {
    pub(crate) fn add(&mut self, reaches: Index, answer: Answer) {
        self.0.push((reaches, answer));
    }

    /// Those whom a snapshot suffices that reaches so far.
    pub(crate) fn served_by(&mut self, reached: Index) -> Vec<Answer> {
        self.0.retain(|(_, answer)| !answer.is_closed());
        self.0.extract_if(.., |(reaches, _)| *reaches <= reached).map(|(_, answer)| answer).collect()
    }

    /// How far a snapshot must reach for those who wait for one that the machine can make by now.
    pub(crate) fn wants(&self, applied: Index) -> Option<Index> {
        self.0.iter().map(|(reaches, _)| *reaches).filter(|reaches| *reaches <= applied).max()
    }

    /// None can be taken, for this reason.
    pub(crate) fn refuse(&mut self, why: &BackupError) {
        for (_, answer) in self.0.drain(..) {
            drop(answer.send(Err(why.clone())));
        }
    }
}
