//! The one door to files: everything that storage does to a disk goes through [`Disk`].
//!
//! The trait is small because each of its calls is one that can fail, be cut by a loss of power, or be
//! left undone: what a file system promises, and no more. A write is durable after
//! [`sync_data`](DiskFile::sync_data) of its file; a created, renamed or removed name is durable after
//! [`sync_dir`](Disk::sync_dir); nothing else is. [`DirDisk`] is a real directory, locked for one
//! process, [`ReadOnlyDir`] one for tools, and [`MemDisk`](super::mem_disk::MemDisk) keeps exactly these promises in memory, and breaks
//! everything that is not promised.
//!
//! One disk is one flat directory. Names are plain file names, without separators.

mod open_files;

use self::open_files::OpenFiles;
use super::StoreError;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The name of the file that is locked beside the directory itself, for tools that look there. It stays empty.
pub const LOCK: &str = "lock";

/// Who may read and write a new directory, and a new file: its owner.
const DIRECTORY_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// One directory of files.
pub trait Disk: Send + Sync {
    /// Where the directory is, for messages.
    fn path(&self) -> &Path;

    /// The names of all files, ascending.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Opens an existing file to read and write.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a file, or empties the one that has the name.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;

    /// Gives a file another name; a file that had it is gone. Files that are open stay open.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a name. Whoever has the file open can go on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals so far durable.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes; fewer may come, and none only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all bytes, growing the file if need be. After an error any part of them may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the contents and the length durable. After an error nothing is known of what was written
    /// since the last success, and a second call proves nothing.
    fn sync_data(&self) -> io::Result<()>;

    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;
}

/// Fills the buffer from `offset` on, as far as the file goes; returns how many bytes that were.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// Says what was tried, and on what, when the system refuses.
pub(crate) fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> StoreError {
    move |source| StoreError::Io { action, path: path.into(), source }
}

/// Whether the system refused for want of space or of open files, so that it may not refuse the next time.
pub(crate) fn no_room(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let kinds = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::FileTooLarge];
    let files = [Errno::MFILE.raw_os_error(), Errno::NFILE.raw_os_error()];
    kinds.contains(&error.kind()) || error.raw_os_error().is_some_and(|code| files.contains(&code))
}

/// The same error, as one that puts nothing in doubt if it is about room.
pub(crate) fn for_want_of_room(error: StoreError) -> StoreError {
    match error {
        StoreError::Io { path, source, .. } if no_room(&source) => StoreError::NoSpace { path, source },
        other => other,
    }
}

/// A real directory, held by this process alone for as long as the value lives.
#[derive(Debug)]
pub struct DirDisk {
    path: PathBuf,
    /// Open for [`sync_dir`](Disk::sync_dir), and locked: the system drops the lock with the process, however it
    /// ends, and nobody can remove what carries it and leave the directory.
    directory: File,
    /// Locked as well.
    lock: File,
    files: Arc<OpenFiles>,
}

impl DirDisk {
    /// Makes the directory if need be, durably, and locks it. Fails with [`StoreError::Locked`] if another
    /// process, or another part of this one, has it.
    pub fn open(path: impl Into<PathBuf>) -> Result<DirDisk, StoreError> {
        let path = path.into();
        create_durably(&path)?;
        let directory = File::open(&path).map_err(failed("open", &path))?;
        let locked = |file: &File| match file.try_lock() {
            Ok(()) => Ok(()),
            Err(TryLockError::WouldBlock) => Err(StoreError::Locked { path: path.clone() }),
            Err(TryLockError::Error(source)) => Err(failed("lock", &path)(source)),
        };
        locked(&directory)?;
        let name = path.join(LOCK);
        let lock = options().create(true).truncate(false).open(&name).map_err(failed("open", &name))?;
        locked(&lock)?;
        let files = OpenFiles::new(|path| options().open(path));
        Ok(DirDisk { path, directory, lock, files })
    }
}

/// How files are opened to be written: a link in the place of one is refused, never followed.
fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE).custom_flags(NO_LINKS);
    options
}

/// The system's flags for that.
const NO_LINKS: i32 = (rustix::fs::OFlags::NOFOLLOW.bits() | rustix::fs::OFlags::CLOEXEC.bits()) as i32;

impl Drop for DirDisk {
    fn drop(&mut self) {
        // To close the file is not enough: a process that this one is just about to start holds all open files,
        // too, until it executes its program. An error leaves the lock to the closing.
        let _ = self.lock.unlock();
        let _ = self.directory.unlock();
    }
}

/// A real directory that is only looked at: without its lock, so also while a process uses it, and without
/// changing anything. Every call that would change something fails.
#[derive(Debug)]
pub struct ReadOnlyDir {
    path: PathBuf,
}

impl ReadOnlyDir {
    /// Fails if there is no such directory, or if it cannot be read.
    pub fn open(path: impl Into<PathBuf>) -> Result<ReadOnlyDir, StoreError> {
        let path = path.into();
        std::fs::read_dir(&path).map_err(failed("read", &path))?;
        Ok(ReadOnlyDir { path })
    }
}

/// What a read-only directory and its files answer.
fn read_only<T>() -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::ReadOnlyFilesystem, "it was opened to read only"))
}

/// Creates a directory and all that is missing above it, each synced into its parent. One that is there may
/// have been made by a process that was killed before that sync.
fn create_durably(path: &Path) -> Result<(), StoreError> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let was_there = path.is_dir();
    if !was_there {
        create_durably(parent)?;
        match std::fs::DirBuilder::new().mode(DIRECTORY_MODE).create(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() => {
                return Err(failed("create", path)(e));
            }
            _ => {}
        }
    }
    match File::open(parent).and_then(|parent| parent.sync_all()) {
        // Whoever may not read the parent did not make the directory.
        Err(error) if was_there && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced.map_err(failed("sync", parent)),
    }
}

impl Disk for DirDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = options().open(&path)?;
        Ok(Arc::new(self.files.add(path, file)))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let path = self.path.join(name);
        let file = options().create(true).truncate(true).open(&path)?;
        Ok(Arc::new(self.files.add(path, file)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.files.rename(&self.path.join(from), &self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files.remove(&self.path.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.directory.sync_all()
    }
}

/// The names of the files in a directory, ascending.
fn list(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for item in std::fs::read_dir(path)? {
        // A name that is not UTF-8 is none of ours.
        if let Ok(name) = item?.file_name().into_string() {
            names.push(name);
        }
    }
    names.sort();
    Ok(names)
}

impl Disk for ReadOnlyDir {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        list(&self.path)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        // The system refuses every change of a file that was opened like this.
        let file = OpenOptions::new().read(true).custom_flags(NO_LINKS).open(self.path.join(name))?;
        Ok(Arc::new(DirFile(file)))
    }

    fn create(&self, _: &str) -> io::Result<Arc<dyn DiskFile>> {
        read_only()
    }

    fn rename(&self, _: &str, _: &str) -> io::Result<()> {
        read_only()
    }

    fn remove(&self, _: &str) -> io::Result<()> {
        read_only()
    }

    fn sync_dir(&self) -> io::Result<()> {
        read_only()
    }
}

/// A file of a [`ReadOnlyDir`].
struct DirFile(File);

impl DiskFile for DirFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_and_used_by_one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let disk = DirDisk::open(&path).unwrap();
        let second = DirDisk::open(&path).unwrap_err();
        assert!(matches!(&second, StoreError::Locked { path: p } if *p == path), "{second}");
        assert!(second.to_string().contains("a/b"), "{second}");
        drop(disk);
        DirDisk::open(&path).unwrap();
    }

    /// A process between fork and exec holds what its parent has open, as a duplicate does.
    #[test]
    fn a_directory_is_free_once_dropped_whoever_was_being_started() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let inherited = (disk.lock.try_clone().unwrap(), disk.directory.try_clone().unwrap());
        drop(disk);
        DirDisk::open(dir.path()).unwrap();
        drop(inherited);
    }

    /// The lock is the directory's own: to remove a file does not give it to a second process.
    #[test]
    fn rs_1_a_directory_without_its_lock_file_is_still_in_use() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        std::fs::remove_file(dir.path().join(LOCK)).unwrap();
        let second = DirDisk::open(dir.path()).unwrap_err();
        assert!(matches!(second, StoreError::Locked { .. }), "{second}");
        drop(disk);
        DirDisk::open(dir.path()).unwrap();
    }

    #[test]
    fn what_is_made_belongs_to_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let disk = DirDisk::open(&path).unwrap();
        disk.create("x").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&dir.path().join("a")), DIRECTORY_MODE);
        assert_eq!(mode(&path), DIRECTORY_MODE);
        assert_eq!((mode(&path.join("x")), mode(&path.join(LOCK))), (FILE_MODE, FILE_MODE));
    }

    /// Whoever may write to the directory cannot make the node overwrite a file elsewhere.
    #[test]
    fn a_link_in_the_place_of_a_file_is_refused_and_its_target_stays() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path().join("node")).unwrap();
        let target = dir.path().join("precious");
        std::fs::write(&target, b"all of it").unwrap();
        std::os::unix::fs::symlink(&target, disk.path().join("segment.tmp")).unwrap();
        assert!(disk.create("segment.tmp").is_err() && disk.open("segment.tmp").is_err());
        assert!(ReadOnlyDir::open(disk.path()).unwrap().open("segment.tmp").is_err());
        assert_eq!(std::fs::read(&target).unwrap(), b"all of it");
        // It is in nobody's way once it is removed.
        disk.remove("segment.tmp").unwrap();
        disk.create("segment.tmp").unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"all of it");
    }

    #[test]
    fn want_of_room_is_told_from_a_failure() {
        use rustix::io::Errno;
        let told = |errno: Errno| no_room(&io::Error::from(errno));
        assert!([Errno::NOSPC, Errno::DQUOT, Errno::FBIG, Errno::MFILE, Errno::NFILE].into_iter().all(told));
        assert!(![Errno::IO, Errno::ROFS, Errno::ACCESS, Errno::LOOP].into_iter().any(told));
    }

    #[test]
    fn files_of_a_directory_do_what_the_trait_says() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let file = disk.create("x").unwrap();
        file.write_at(b"hello", 3).unwrap();
        file.sync_data().unwrap();
        disk.rename("x", "y").unwrap();
        disk.sync_dir().unwrap();
        assert_eq!(disk.list().unwrap(), ["lock", "y"]);
        disk.remove("y").unwrap();
        let mut buffer = [9; 16];
        assert_eq!(read_full(&*file, &mut buffer, 0).unwrap(), 8, "an open file outlives its name");
        assert_eq!(&buffer[..8], b"\0\0\0hello");
        file.set_len(4).unwrap();
        assert_eq!(file.len().unwrap(), 4);
        assert!(disk.open("y").is_err());
    }

    #[test]
    fn a_directory_that_is_only_read_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let used = DirDisk::open(dir.path()).unwrap();
        used.create("x").unwrap().write_at(b"hello", 0).unwrap();
        let disk = ReadOnlyDir::open(dir.path()).unwrap();
        let file = disk.open("x").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(read_full(&*file, &mut buffer, 1).unwrap(), 4);
        assert!(file.write_at(b"j", 0).is_err() && file.set_len(0).is_err());
        assert!(disk.create("y").is_err() && disk.rename("x", "y").is_err() && disk.remove("x").is_err());
        assert_eq!(disk.list().unwrap(), ["lock", "x"]);
        assert_eq!(file.len().unwrap(), 5);
        assert!(ReadOnlyDir::open(dir.path().join("none")).is_err());
    }
}
