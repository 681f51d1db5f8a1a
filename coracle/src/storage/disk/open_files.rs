//! The open files of one directory: as many handles as anybody wants, and few descriptors.
//!
//! A log has a file for each of its segments, and the system gives a process some thousand descriptors, also for
//! its connections. So a handle is a promise to find the file again: of all that are not in use, only the most
//! recently used keep their descriptor, and the others open the file by its name when they need it. A file
//! that is renamed keeps its handles; one that is removed, or replaced, is opened before, and stays open for as
//! long as its handles live. So does one with writes that no sync has followed: what a failed write left is told
//! to whoever held the file, and perhaps to nobody who opens it later.

use super::DiskFile;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// How many descriptors are kept for files that could be opened again: the segments that slow followers read.
const KEPT: usize = 64;

/// How a file is opened.
type Open = fn(&Path) -> io::Result<File>;

/// All handles of one directory.
#[derive(Debug)]
pub(super) struct OpenFiles {
    open: Open,
    handles: Mutex<Handles>,
}

#[derive(Debug, Default)]
struct Handles {
    all: Vec<Weak<Handle>>,
    /// Those with a descriptor that may be closed, least recently used first.
    recent: VecDeque<Weak<Handle>>,
}

/// One file that was opened, whatever its name is by now.
#[derive(Debug)]
struct Handle(Mutex<State>);

#[derive(Debug)]
struct State {
    path: PathBuf,
    /// None while nobody needs it.
    file: Option<Arc<File>>,
    /// Its length in bytes, if it is known: nobody else changes it.
    len: Option<u64>,
    /// How many writes there were, and how many of them a sync has followed.
    writes: u64,
    synced: u64,
    /// Whether it cannot be opened by its name any more.
    nameless: bool,
}

/// A file of a [`OpenFiles`].
pub(super) struct OpenFile {
    handle: Arc<Handle>,
    files: Arc<OpenFiles>,
}

impl OpenFiles {
    /// No files yet. They are opened like this.
    pub(super) fn new(open: Open) -> Arc<OpenFiles> {
        Arc::new(OpenFiles { open, handles: Mutex::default() })
    }

    /// A handle of a file that was just opened.
    pub(super) fn add(self: &Arc<OpenFiles>, path: PathBuf, file: File) -> OpenFile {
        let state =
            State { path, file: Some(Arc::new(file)), len: None, writes: 0, synced: 0, nameless: false };
        let mut handles = self.handles();
        // It may just have been emptied.
        handles.of(&state.path).iter().for_each(|other| other.state().len = None);
        let handle = Arc::new(Handle(Mutex::new(state)));
        if handles.all.len() == handles.all.capacity() {
            handles.all.retain(|handle| handle.strong_count() > 0);
        }
        handles.all.push(Arc::downgrade(&handle));
        handles.touch(&handle);
        OpenFile { handle, files: self.clone() }
    }

    /// Renames a file, and takes its handles along.
    pub(super) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from == to {
            return Ok(());
        }
        let handles = self.handles();
        let (moved, replaced) = (handles.of(from), handles.of(to));
        let mut moved: Vec<_> = moved.iter().map(|handle| handle.state()).collect();
        let mut replaced: Vec<_> = replaced.iter().map(|handle| handle.state()).collect();
        for state in &mut replaced {
            state.file(self.open)?;
        }
        std::fs::rename(from, to)?;
        moved.iter_mut().for_each(|state| to.clone_into(&mut state.path));
        replaced.iter_mut().for_each(|state| state.nameless = true);
        Ok(())
    }

    /// Removes a name. Its handles stay.
    pub(super) fn remove(&self, path: &Path) -> io::Result<()> {
        let handles = self.handles();
        let removed = handles.of(path);
        let mut removed: Vec<_> = removed.iter().map(|handle| handle.state()).collect();
        for state in &mut removed {
            state.file(self.open)?;
        }
        std::fs::remove_file(path)?;
        removed.iter_mut().for_each(|state| state.nameless = true);
        Ok(())
    }

    /// Locked before any handle, never after one.
    fn handles(&self) -> MutexGuard<'_, Handles> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Handles {
    /// The living handles of the file with this name.
    fn of(&self, path: &Path) -> Vec<Arc<Handle>> {
        let named = |handle: &Arc<Handle>| {
            let state = handle.state();
            state.path == path && !state.nameless
        };
        self.all.iter().filter_map(Weak::upgrade).filter(named).collect()
    }

    /// This one is the most recently used, and the others close what is too much.
    fn touch(&mut self, handle: &Arc<Handle>) {
        if self.recent.back().is_some_and(|newest| std::ptr::eq(newest.as_ptr(), Arc::as_ptr(handle))) {
            return;
        }
        self.recent.retain(|other| !std::ptr::eq(other.as_ptr(), Arc::as_ptr(handle)));
        self.recent.push_back(Arc::downgrade(handle));
        let mut left = self.recent.len();
        while self.recent.len() > KEPT && left > 0 {
            left -= 1;
            let Some(oldest) = self.recent.pop_front() else { break };
            let Some(handle) = oldest.upgrade() else { continue };
            let mut state = handle.state();
            if state.writes > state.synced && !state.nameless {
                self.recent.push_back(oldest);
            } else if !state.nameless {
                state.file = None;
            }
        }
    }
}

impl Handle {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn file(&mut self, open: Open) -> io::Result<Arc<File>> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let file = Arc::new(open(&self.path)?);
        self.file = Some(file.clone());
        Ok(file)
    }
}

impl OpenFile {
    /// The open file; whoever has it may use it also when it is closed for the others.
    fn file(&self, prepare: impl FnOnce(&mut State)) -> io::Result<Arc<File>> {
        let file = {
            let mut state = self.handle.state();
            prepare(&mut state);
            state.file(self.files.open)?
        };
        self.files.handles().touch(&self.handle);
        Ok(file)
    }
}

impl DiskFile for OpenFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file(|_| {})?.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let file = self.file(|state| {
            state.writes += 1;
            state.len = None;
        })?;
        file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut writes = 0;
        self.file(|state| writes = state.writes)?.sync_data()?;
        self.handle.state().synced = writes;
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let known = self.handle.state().len;
        if let Some(len) = known {
            return Ok(len);
        }
        let len = self.file(|_| {})?.metadata()?.len();
        self.handle.state().len = Some(len);
        Ok(len)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let file = self.file(|state| {
            state.writes += 1;
            state.len = None;
        })?;
        file.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{DirDisk, Disk};
    use super::*;

    /// How many descriptors of this process point into the directory.
    fn descriptors(dir: &Path) -> usize {
        let all = std::fs::read_dir("/proc/self/fd").unwrap();
        let into = |one: io::Result<std::fs::DirEntry>| {
            std::fs::read_link(one.unwrap().path()).is_ok_and(|path| path.starts_with(dir))
        };
        all.map(into).filter(|inside| *inside).count()
    }

    #[test]
    fn many_handles_take_few_descriptors_and_find_their_files_again() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let files: Vec<_> = (0..300u32)
            .map(|at| {
                let file = disk.create(&format!("f{at}")).unwrap();
                file.write_at(&at.to_le_bytes(), 0).unwrap();
                file.sync_data().unwrap();
                file
            })
            .collect();
        assert!(descriptors(dir.path()) <= KEPT + 2, "{}", descriptors(dir.path()));
        // Renamed, replaced, removed: each handle keeps its file.
        for at in 0..100 {
            disk.rename(&format!("f{at}"), &format!("g{at}")).unwrap();
        }
        for at in 0..20 {
            disk.remove(&format!("g{at}")).unwrap();
            disk.rename(&format!("g{}", 20 + at), &format!("g{}", 40 + at)).unwrap();
        }
        for round in 0..2 {
            for (at, file) in (0u32..).zip(&files) {
                let mut bytes = [0; 4];
                assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 4);
                assert_eq!(u32::from_le_bytes(bytes), at, "round {round}");
                assert_eq!(file.len().unwrap(), 4);
            }
        }
        let nameless = 40;
        assert!(descriptors(dir.path()) <= KEPT + nameless + 2, "{}", descriptors(dir.path()));
        drop(files);
        assert!(descriptors(dir.path()) <= 2);
    }

    /// A write that no sync has followed could fail unheard.
    #[test]
    fn a_file_with_unsynced_writes_stays_open() {
        let dir = tempfile::tempdir().unwrap();
        let disk = DirDisk::open(dir.path()).unwrap();
        let written = disk.create("written").unwrap();
        written.write_at(b"x", 0).unwrap();
        let others: Vec<_> = (0..200).map(|at| disk.create(&format!("f{at}")).unwrap()).collect();
        let path = std::fs::canonicalize(dir.path().join("written")).unwrap();
        assert_eq!(descriptors(&path), 1);
        written.sync_data().unwrap();
        others.iter().for_each(|file| assert_eq!(file.len().unwrap(), 0));
        assert_eq!(descriptors(&path), 0);
        assert_eq!(written.len().unwrap(), 1);
    }
}
