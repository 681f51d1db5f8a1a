//! A disk in memory that keeps exactly what a real one promises, and lies about the rest.
//!
//! It remembers for every file the bytes that were synced and, one by one, the writes that were not; and
//! the same for the names in the directory. So a test or a simulator can cut the power at any operation
//! ([`MemDisk::fail_from`]) and look at what may be left ([`MemDisk::power_cut`]): all of the unsynced
//! work, none of it, or any choice of its sectors. It can also fail single operations
//! ([`MemDisk::fail_at`]), in the way in which systems do: a failed write wrote a part, and after a
//! failed sync the data can still be read but no later sync ever makes it durable.
//!
//! A sync of a file says nothing of its name: a file whose name was never synced is gone.
//!
//! And it can go bad: be full ([`MemDisk::set_full`]), fail a read ([`MemDisk::fail_read`]), and change, lose
//! or misplace bytes that it once synced ([`MemDisk::damage`]).

mod damage;

pub use self::damage::{Aim, Damage};

use super::disk::{Disk, DiskFile};
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

/// The kinds of operation that change something, and so can be made to fail.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A name was created, or its file emptied.
    Create,
    /// Bytes were written.
    Write,
    /// A file was synced.
    Sync,
    /// A file was cut or extended.
    SetLen,
    /// A name was changed.
    Rename,
    /// A name was removed.
    Remove,
    /// The directory was synced.
    SyncDir,
}

/// A directory of files in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
    path: PathBuf,
}

#[derive(Default)]
struct State {
    /// All files that ever were, by the number that names point to.
    files: Vec<Contents>,
    /// The directory as processes see it.
    names: BTreeMap<String, usize>,
    /// The directory as it is after a loss of power.
    synced_names: BTreeMap<String, usize>,
    /// What happened to the directory since it was synced.
    unsynced_names: Vec<NameChange>,
    /// Operations so far.
    operations: u64,
    /// How many of each kind, for [`MemDisk::fail_at`] with a kind.
    trace: Vec<Op>,
    fault: Option<Fault>,
    /// Whether there is no room for new bytes.
    full: bool,
    /// The read that fails, counted from now.
    bad_read: Option<u64>,
    /// Whether any fault has bitten since the faults were last cleared.
    bitten: bool,
    /// The writes that were synced, in that order, other than zeros; each with the number of its sync.
    synced_writes: Vec<SyncedWrite>,
    syncs: u64,
}

#[derive(Clone, Copy)]
struct SyncedWrite {
    sync: u64,
    file: usize,
    offset: usize,
    len: usize,
}

#[derive(Clone, Default)]
struct Contents {
    now: Vec<u8>,
    synced: Vec<u8>,
    unsynced: Vec<FileChange>,
}

#[derive(Clone)]
enum FileChange {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

#[derive(Clone)]
enum NameChange {
    Set { name: String, file: usize },
    Rename { from: String, to: String, file: usize },
    Remove { name: String },
}

enum Fault {
    /// This operation fails, once.
    At(u64, io::ErrorKind),
    /// The next operation of this kind fails, once.
    Next(Op, io::ErrorKind),
    /// This operation and all after it fail: the power is off.
    From(u64),
}

impl MemDisk {
    /// An empty directory.
    pub fn new() -> MemDisk {
        MemDisk { state: Arc::default(), path: PathBuf::from("mem") }
    }

    /// How many operations that change something were begun so far.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// The kinds of all operations so far, in order.
    pub fn trace(&self) -> Vec<Op> {
        self.state().trace.clone()
    }

    /// Makes the operation with this number (the first is 0) fail once. A write that fails has written
    /// its first half; a sync that fails has lost what it should have saved.
    pub fn fail_at(&self, operation: u64, kind: io::ErrorKind) {
        self.state().fault = Some(Fault::At(operation, kind));
    }

    /// Switches the power off before the operation with this number: it and all after it fail and
    /// change nothing, except that a write that comes first is in flight, and may survive.
    pub fn fail_from(&self, operation: u64) {
        self.state().fault = Some(Fault::From(operation));
    }

    /// Makes the next operation of this kind fail once, as [`MemDisk::fail_at`] does.
    pub fn fail_next(&self, op: Op, kind: io::ErrorKind) {
        self.state().fault = Some(Fault::Next(op, kind));
    }

    /// Makes one read fail: the next if `after` is 0.
    pub fn fail_read(&self, after: u64) {
        self.state().bad_read = Some(after);
    }

    /// While it is full, no file is created and none grows.
    pub fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// Whether it is full now.
    pub fn is_full(&self) -> bool {
        self.state().full
    }

    /// Ends all faults. Whether any of them had bitten; what was damaged stays so.
    pub fn clear_faults(&self) -> bool {
        let mut state = self.state();
        state.fault = None;
        state.full = false;
        state.bad_read = None;
        std::mem::take(&mut state.bitten)
    }

    /// The disk as it may be found after a loss of power now. What was synced is there. Each unsynced
    /// change is asked about: a change of a name, a change of a length, and of a write each sector of
    /// `sector` bytes on its own. The answers are the whole difference: `|| false` loses all that
    /// was not synced, `|| true` keeps it, as the end of a process does.
    pub fn power_cut(&self, sector: usize, mut survives: impl FnMut() -> bool) -> MemDisk {
        let state = self.state();
        let mut files = state.files.clone();
        for file in &mut files {
            let mut image = std::mem::take(&mut file.synced);
            for change in file.unsynced.drain(..) {
                match change {
                    FileChange::SetLen(len) if survives() => image.resize(len, 0),
                    FileChange::SetLen(_) => {}
                    FileChange::Write { offset, bytes } => {
                        for (at, part) in sectors(offset, &bytes, sector) {
                            if survives() {
                                put(&mut image, at, part);
                            }
                        }
                    }
                }
            }
            file.now.clone_from(&image);
            file.synced = image;
        }
        let mut names = state.synced_names.clone();
        for change in &state.unsynced_names {
            if survives() {
                change.apply(&mut names);
            }
        }
        let mut synced_writes = state.synced_writes.clone();
        // Files without a name are gone.
        let mut named = Vec::with_capacity(names.len());
        let mut numbers = BTreeMap::new();
        for file in names.values_mut() {
            *file = *numbers.entry(*file).or_insert_with(|| {
                named.push(std::mem::take(&mut files[*file]));
                named.len() - 1
            });
        }
        synced_writes.retain_mut(|write| match numbers.get(&write.file) {
            Some(&file) => {
                write.file = file;
                true
            }
            None => false,
        });
        let syncs = state.syncs;
        let state = State {
            files: named,
            synced_names: names.clone(),
            names,
            synced_writes,
            syncs,
            ..State::default()
        };
        MemDisk { state: Arc::new(Mutex::new(state)), path: self.path.clone() }
    }

    /// A second disk with the same contents, all of them synced.
    pub fn copy(&self) -> MemDisk {
        let state = self.state();
        let files = state.files.iter();
        let files = files.map(|f| Contents { now: f.now.clone(), synced: f.now.clone(), unsynced: vec![] });
        let state = State {
            files: files.collect(),
            names: state.names.clone(),
            synced_names: state.names.clone(),
            ..State::default()
        };
        MemDisk { state: Arc::new(Mutex::new(state)), path: self.path.clone() }
    }

    /// The contents of a file, if it is there.
    pub fn contents(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.state();
        state.names.get(name).map(|&file| state.files[file].now.clone())
    }

    /// Puts a durable file there, past all faults and counts: for damage, and for half of a store.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.state();
        let file = state.files.len();
        state.files.push(Contents { now: bytes.to_vec(), synced: bytes.to_vec(), unsynced: vec![] });
        state.names.insert(name.to_owned(), file);
        state.synced_names.insert(name.to_owned(), file);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no code panics under this lock")
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Set { name, file } => {
                names.insert(name.clone(), *file);
            }
            NameChange::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
            NameChange::Remove { name } => {
                names.remove(name);
            }
        }
    }
}

impl State {
    /// Counts an operation; an error if it is to fail.
    fn begin(&mut self, op: Op) -> io::Result<()> {
        let number = self.operations;
        self.operations += 1;
        self.trace.push(op);
        match self.fault {
            Some(Fault::At(at, kind)) if at == number => {
                self.bitten = true;
                Err(io::Error::new(kind, "injected"))
            }
            Some(Fault::Next(wanted, kind)) if wanted == op => {
                self.fault = Some(Fault::At(number, kind));
                self.bitten = true;
                Err(io::Error::new(kind, "injected"))
            }
            _ if self.full && op == Op::Create => {
                self.bitten = true;
                Err(io::ErrorKind::StorageFull.into())
            }
            Some(Fault::From(from)) if from <= number => Err(io::Error::other("the power is off")),
            _ => Ok(()),
        }
    }

    /// Whether the operation that was just begun is the one at which the power goes.
    fn in_flight(&self) -> bool {
        matches!(self.fault, Some(Fault::From(from)) if from + 1 == self.operations)
    }

    fn change_names(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.unsynced_names.push(change);
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.names.get(name).copied().ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such file"))
    }
}

impl Contents {
    fn change(&mut self, change: FileChange) {
        change.apply(&mut self.now);
        self.unsynced.push(change);
    }
}

impl FileChange {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            FileChange::Write { offset, bytes } => put(image, *offset, bytes),
            FileChange::SetLen(len) => image.resize(*len, 0),
        }
    }
}

/// The parts of a write that lie in different sectors, each with its offset.
fn sectors(offset: usize, bytes: &[u8], sector: usize) -> impl Iterator<Item = (usize, &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let start = at;
        let end = ((offset + start) / sector + 1) * sector - offset;
        at = end.min(bytes.len());
        (start < bytes.len()).then(|| (offset + start, &bytes[start..at]))
    })
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    image[offset..end].copy_from_slice(bytes);
}

impl Disk for MemDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.state().find(name)?;
        Ok(Arc::new(MemFile { disk: self.clone(), file }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.begin(Op::Create)?;
        let file = match state.names.get(name) {
            Some(&file) => {
                state.files[file].change(FileChange::SetLen(0));
                file
            }
            None => {
                let file = state.files.len();
                state.files.push(Contents::default());
                state.change_names(NameChange::Set { name: name.to_owned(), file });
                file
            }
        };
        Ok(Arc::new(MemFile { disk: self.clone(), file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Rename)?;
        let file = state.find(from)?;
        state.change_names(NameChange::Rename { from: from.to_owned(), to: to.to_owned(), file });
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        state.begin(Op::Remove)?;
        state.find(name)?;
        state.change_names(NameChange::Remove { name: name.to_owned() });
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.state();
        let result = state.begin(Op::SyncDir);
        let changes = match result {
            Err(_) if state.in_flight() => return result,
            _ => std::mem::take(&mut state.unsynced_names),
        };
        if result.is_ok() {
            for change in changes {
                change.apply(&mut state.synced_names);
            }
        }
        result
    }
}

/// A file of a [`MemDisk`].
struct MemFile {
    disk: MemDisk,
    file: usize,
}

impl DiskFile for MemFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.disk.state();
        match &mut state.bad_read {
            Some(0) => {
                state.bad_read = None;
                state.bitten = true;
                return Err(io::Error::other("injected"));
            }
            Some(after) => *after -= 1,
            None => {}
        }
        let bytes = &state.files[self.file].now;
        let start = (offset as usize).min(bytes.len());
        let count = buffer.len().min(bytes.len() - start);
        buffer[..count].copy_from_slice(&bytes[start..start + count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        let mut result = state.begin(Op::Write);
        let grows = offset as usize + bytes.len() > state.files[self.file].now.len();
        if result.is_ok() && state.full && grows {
            state.bitten = true;
            result = Err(io::ErrorKind::StorageFull.into());
        }
        let written = match &result {
            Ok(()) => bytes,
            Err(_) if state.in_flight() => bytes,
            Err(_) if matches!(state.fault, Some(Fault::From(_))) => return result,
            Err(_) => &bytes[..bytes.len() / 2],
        };
        let change = FileChange::Write { offset: offset as usize, bytes: written.to_vec() };
        state.files[self.file].change(change);
        result
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.begin(Op::Sync);
        if result.is_err() && matches!(state.fault, Some(Fault::From(_))) {
            return result;
        }
        state.syncs += 1;
        let State { files, synced_writes, syncs, .. } = &mut *state;
        let file = &mut files[self.file];
        for change in std::mem::take(&mut file.unsynced) {
            // A failed sync drops the changes: they can be read until the power goes, and no longer.
            if result.is_ok() {
                change.apply(&mut file.synced);
                if let FileChange::Write { offset, bytes } = change
                    && bytes.first_chunk::<8>().is_some_and(|start| *start != [0; 8])
                {
                    let write = SyncedWrite { sync: *syncs, file: self.file, offset, len: bytes.len() };
                    synced_writes.push(write);
                }
            }
        }
        result
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state().files[self.file].now.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.disk.state();
        state.begin(Op::SetLen)?;
        state.files[self.file].change(FileChange::SetLen(len as usize));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written() -> MemDisk {
        let disk = MemDisk::new();
        let file = disk.create("a").unwrap();
        file.write_at(&[1; 1024], 0).unwrap();
        file.sync_data().unwrap();
        disk.sync_dir().unwrap();
        file.write_at(&[2; 1024], 0).unwrap();
        disk.create("b").unwrap().sync_data().unwrap();
        disk
    }

    #[test]
    fn a_power_cut_keeps_what_was_synced_and_what_is_chosen() {
        let disk = written();
        let lost = disk.power_cut(512, || false);
        assert_eq!(lost.contents("a").unwrap(), [1; 1024]);
        assert_eq!(lost.contents("b"), None, "its name was never synced");
        let kept = disk.power_cut(512, || true);
        assert_eq!(kept.contents("a").unwrap(), [2; 1024]);
        assert!(kept.contents("b").is_some());
        let mut turn = false;
        let torn = disk.power_cut(512, || {
            turn = !turn;
            !turn
        });
        assert_eq!(torn.contents("a").unwrap(), [[1; 512], [2; 512]].concat());
    }

    #[test]
    fn a_failed_sync_is_never_made_good() {
        let disk = written();
        let file = disk.open("a").unwrap();
        disk.fail_at(disk.operations(), io::ErrorKind::Other);
        file.sync_data().unwrap_err();
        file.sync_data().unwrap();
        let mut byte = [0];
        file.read_at(&mut byte, 0).unwrap();
        assert_eq!(byte, [2], "still to be read");
        assert_eq!(disk.power_cut(512, || true).contents("a").unwrap(), [1; 1024], "and gone");
    }

    #[test]
    fn a_full_disk_takes_what_needs_no_room() {
        let disk = written();
        let file = disk.open("a").unwrap();
        disk.set_full(true);
        file.write_at(&[3; 1024], 0).unwrap();
        file.write_at(&[3; 1024], 512).unwrap_err();
        assert!(disk.create("c").is_err());
        assert!(disk.clear_faults() && !disk.clear_faults());
        disk.create("c").unwrap();
    }

    #[test]
    fn a_read_fails_once() {
        let disk = written();
        let file = disk.open("a").unwrap();
        disk.fail_read(1);
        file.read_at(&mut [0], 0).unwrap();
        file.read_at(&mut [0], 0).unwrap_err();
        file.read_at(&mut [0], 0).unwrap();
    }

    #[test]
    fn with_the_power_off_nothing_happens_but_the_write_in_flight() {
        let disk = written();
        let file = disk.open("a").unwrap();
        disk.fail_from(disk.operations());
        file.write_at(&[3; 512], 0).unwrap_err();
        file.write_at(&[4; 512], 0).unwrap_err();
        assert!(disk.create("c").is_err());
        assert_eq!(disk.power_cut(512, || true).contents("a").unwrap(), [[3; 512], [2; 512]].concat());
        assert_eq!(disk.power_cut(512, || false).contents("a").unwrap(), [1; 1024]);
    }
}
