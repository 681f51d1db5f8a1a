//! All files and directories, and the moment at which the power fails.
//!
//! What a file system promises, and nothing more: the contents and the length of a file are durable after
//! a sync of that file, a name after a sync of its directory. A file whose name was never synced is gone,
//! synced or not.

use super::file::File;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::Duration;

/// The number of the directory that all others are in.
pub(crate) const ROOT: u64 = 1;

/// Why something cannot be done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// The power is off.
    Off,
    /// There is no such name.
    Missing,
    /// The name is taken.
    Taken,
    /// A directory is wanted.
    NoDirectory,
    /// A file is wanted.
    NoFile,
    /// The directory is not empty.
    NotEmpty,
    /// Names move within their directory only.
    OtherDirectory,
}

/// A file or a directory.
pub(crate) enum Inode {
    File(File),
    Directory(Directory),
}

/// The names in a directory.
#[derive(Default)]
pub(crate) struct Directory {
    /// As processes see them.
    now: BTreeMap<OsString, u64>,
    synced: BTreeMap<OsString, u64>,
    unsynced: Vec<Change>,
}

enum Change {
    Set { name: OsString, inode: u64 },
    Rename { from: OsString, to: OsString, inode: u64 },
    Remove { name: OsString },
}

/// The whole disk.
pub(crate) struct State {
    inodes: BTreeMap<u64, Inode>,
    next: u64,
    /// How many operations that change something are still done; none: the power is off.
    left: Option<u64>,
    /// How many were done.
    operations: u64,
    /// How much longer a sync takes than on a disk that is not slow.
    slower: Duration,
}

impl State {
    /// An empty disk.
    pub(crate) fn new() -> State {
        let root = (ROOT, Inode::Directory(Directory::default()));
        State { inodes: [root].into(), next: ROOT + 1, left: None, operations: 0, slower: Duration::ZERO }
    }

    /// How many operations that change something were done so far.
    pub(crate) fn operations(&self) -> u64 {
        self.operations
    }

    /// Has each sync take so much longer, also after the power was off.
    pub(crate) fn slow(&mut self, slower: Duration) {
        self.slower = slower;
    }

    /// How much longer a sync takes.
    pub(crate) fn slower(&self) -> Duration {
        self.slower
    }

    /// The power goes off after so many more operations that change something.
    pub(crate) fn cut_after(&mut self, operations: u64) {
        self.left = Some(operations);
    }

    /// Whether the power is off.
    pub(crate) fn is_off(&self) -> bool {
        self.left == Some(0)
    }

    /// The power comes back. Each unsynced change of the part of the disk below a name of the root is asked
    /// for whether it survives.
    pub(crate) fn restore(&mut self, mut survives: impl FnMut() -> bool) {
        for inode in self.inodes.values_mut() {
            match inode {
                Inode::File(file) => file.cut(&mut survives),
                Inode::Directory(directory) => directory.cut(&mut survives),
            }
        }
        let mut found = BTreeSet::new();
        self.reach(ROOT, &mut found);
        self.inodes.retain(|number, _| found.contains(number));
        self.left = None;
    }

    fn reach(&self, number: u64, found: &mut BTreeSet<u64>) {
        if found.insert(number)
            && let Some(Inode::Directory(directory)) = self.inodes.get(&number)
        {
            directory.now.values().for_each(|inode| self.reach(*inode, found));
        }
    }

    /// What has this number.
    pub(crate) fn inode(&self, number: u64) -> Result<&Inode, Refusal> {
        if self.is_off() { Err(Refusal::Off) } else { self.inodes.get(&number).ok_or(Refusal::Missing) }
    }

    /// What has this name.
    pub(crate) fn find(&self, parent: u64, name: &OsStr) -> Result<u64, Refusal> {
        self.names(parent)?.get(name).copied().ok_or(Refusal::Missing)
    }

    /// The names in a directory.
    pub(crate) fn names(&self, number: u64) -> Result<&BTreeMap<OsString, u64>, Refusal> {
        match self.inode(number)? {
            Inode::Directory(directory) => Ok(&directory.now),
            Inode::File(_) => Err(Refusal::NoDirectory),
        }
    }

    /// A file to read.
    pub(crate) fn file(&self, number: u64) -> Result<&File, Refusal> {
        match self.inode(number)? {
            Inode::File(file) => Ok(file),
            Inode::Directory(_) => Err(Refusal::NoFile),
        }
    }

    /// A file to change or sync.
    pub(crate) fn change(&mut self, number: u64) -> Result<&mut File, Refusal> {
        self.operate()?;
        match self.inodes.get_mut(&number) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Directory(_)) => Err(Refusal::NoFile),
            None => Err(Refusal::Missing),
        }
    }

    /// Makes a new file or directory; returns its number.
    pub(crate) fn create(&mut self, parent: u64, name: &OsStr, inode: Inode) -> Result<u64, Refusal> {
        if self.names(parent)?.contains_key(name) {
            return Err(Refusal::Taken);
        }
        self.operate()?;
        let number = self.next;
        self.next += 1;
        self.inodes.insert(number, inode);
        let directory = self.directory(parent)?;
        directory.now.insert(name.to_owned(), number);
        directory.unsynced.push(Change::Set { name: name.to_owned(), inode: number });
        Ok(number)
    }

    /// Removes a name. Whoever has the file open can go on using it.
    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) -> Result<(), Refusal> {
        let number = self.find(parent, name)?;
        if matches!(self.inode(number)?, Inode::Directory(directory) if !directory.now.is_empty()) {
            return Err(Refusal::NotEmpty);
        }
        self.operate()?;
        let directory = self.directory(parent)?;
        directory.now.remove(name);
        directory.unsynced.push(Change::Remove { name: name.to_owned() });
        Ok(())
    }

    /// Gives a file another name in its directory.
    pub(crate) fn rename(
        &mut self,
        parent: u64,
        from: &OsStr,
        new_parent: u64,
        to: &OsStr,
    ) -> Result<(), Refusal> {
        let inode = self.find(parent, from)?;
        if parent != new_parent {
            return Err(Refusal::OtherDirectory);
        }
        self.operate()?;
        let directory = self.directory(parent)?;
        directory.now.remove(from);
        directory.now.insert(to.to_owned(), inode);
        directory.unsynced.push(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    /// Makes the names of a directory durable.
    pub(crate) fn sync_names(&mut self, number: u64) -> Result<(), Refusal> {
        self.operate()?;
        let directory = self.directory(number)?;
        directory.synced = directory.now.clone();
        directory.unsynced.clear();
        Ok(())
    }

    fn directory(&mut self, number: u64) -> Result<&mut Directory, Refusal> {
        match self.inodes.get_mut(&number) {
            Some(Inode::Directory(directory)) => Ok(directory),
            Some(Inode::File(_)) => Err(Refusal::NoDirectory),
            None => Err(Refusal::Missing),
        }
    }

    /// One more operation that changes something, if there is power for it.
    fn operate(&mut self) -> Result<(), Refusal> {
        if self.is_off() {
            return Err(Refusal::Off);
        }
        self.left = self.left.map(|left| left - 1);
        self.operations += 1;
        Ok(())
    }
}

impl Directory {
    fn cut(&mut self, survives: &mut dyn FnMut() -> bool) {
        for change in std::mem::take(&mut self.unsynced) {
            if !survives() {
                continue;
            }
            match change {
                Change::Set { name, inode } => drop(self.synced.insert(name, inode)),
                Change::Remove { name } => drop(self.synced.remove(&name)),
                Change::Rename { from, to, inode } => {
                    if self.synced.get(&from) == Some(&inode) {
                        self.synced.remove(&from);
                    }
                    self.synced.insert(to, inode);
                }
            }
        }
        self.now = self.synced.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> &OsStr {
        OsStr::new(text)
    }

    fn file() -> Inode {
        Inode::File(File::default())
    }

    #[test]
    fn a_name_is_durable_after_a_sync_of_its_directory_only() {
        let mut disk = State::new();
        let a = disk.create(ROOT, name("a"), file()).unwrap();
        disk.change(a).unwrap().write(0, b"synced");
        disk.change(a).unwrap().sync();
        disk.restore(|| false);
        assert_eq!(
            disk.find(ROOT, name("a")),
            Err(Refusal::Missing),
            "its contents were synced, not its name"
        );

        let a = disk.create(ROOT, name("a"), file()).unwrap();
        disk.sync_names(ROOT).unwrap();
        disk.rename(ROOT, name("a"), ROOT, name("b")).unwrap();
        disk.restore(|| false);
        assert_eq!(disk.find(ROOT, name("a")), Ok(a));
        disk.rename(ROOT, name("a"), ROOT, name("b")).unwrap();
        disk.restore(|| true);
        assert_eq!((disk.find(ROOT, name("a")), disk.find(ROOT, name("b"))), (Err(Refusal::Missing), Ok(a)));
        disk.remove(ROOT, name("b")).unwrap();
        disk.restore(|| false);
        assert_eq!(disk.find(ROOT, name("b")), Ok(a));
        disk.remove(ROOT, name("b")).unwrap();
        disk.sync_names(ROOT).unwrap();
        disk.restore(|| false);
        assert!(disk.names(ROOT).unwrap().is_empty());
    }

    #[test]
    fn without_power_nothing_is_done() {
        let mut disk = State::new();
        disk.cut_after(2);
        let a = disk.create(ROOT, name("a"), file()).unwrap();
        disk.sync_names(ROOT).unwrap();
        assert!(disk.is_off());
        assert_eq!(disk.change(a).err(), Some(Refusal::Off));
        assert_eq!(disk.find(ROOT, name("a")), Err(Refusal::Off));
        disk.restore(|| false);
        assert_eq!(disk.find(ROOT, name("a")), Ok(a));
        assert_eq!(disk.operations(), 2);
    }
}
