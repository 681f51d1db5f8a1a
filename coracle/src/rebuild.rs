//! New clusters out of what is left of old ones: from a backup, and from a survivor of a lost quorum.
//!
//! Both are offline, and both come to the same: a data directory of one node, the only member of a cluster that there
//! never was before. The machine's state is in a snapshot, and the log begins after it. The node has a new
//! incarnation, and the cluster a new id, so no node of the old cluster can take part in it, by whatever accident: a
//! handshake names the cluster. Other nodes are added to it as to any cluster.
//!
//! The directory is built beside its place and renamed into it last. In it the snapshot's own rename decides: what a
//! start finds before that is a blank node, and after it the whole (`open` finishes the rest). So wherever a crash
//! comes, there is nothing that starts, or all of it.
//!
//! - [`restore`] takes a [backup].
//! - [`Survivor`] takes the data directory of a node that has lost its cluster for good, and everything in its log.

use crate::backup;
use crate::config::{Config, Storage};
use crate::error::{StartError, StopReason};
use crate::founding::proposal;
use crate::open::{self, Keeper, Opened};
use crate::own_disk::begin;
use crate::replicated::Replicated;
use crate::rulings::{Skips, skips};
use crate::state_machine::StateMachine;
use crate::storage::disk::{DirDisk, Disk, LOCK, failed};
use crate::storage::identity;
use crate::storage::snapshots::{self, Meta, Pace};
use crate::storage::{Change, LogReader, LogStore, ReadLogError, StoreError, WriteBatch};
use crate::wire::{check_membership, decode_membership, encode_membership};
use coracle_core::{ClusterId, HardState, Incarnation, Index, LogId, Mark, Member, Membership, NodeId, Term};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What the name of a directory is followed by, while it is built.
const RESTORING: &str = ".restoring";
const RECOVERING: &str = ".recovering";

/// What the name of the survivor's directory is followed by, once the new one is in its place.
const BEFORE: &str = ".before-recovery";

/// Entries that are read at once, in bytes.
const PIECE: usize = 1 << 20;

/// Why there is no new cluster. What was there is as it was, unless the error says otherwise.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// There is something in the directory.
    #[error("{} is not empty; name a directory that is empty, or that does not exist", path.display())]
    NotEmpty {
        /// The directory.
        path: PathBuf,
    },
    /// It cannot be done with these settings, or with this directory.
    #[error("{0}")]
    Refused(String),
    /// The survivor's directory could not be opened as a start opens it.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Something could not be read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state machine could not take the survivor's state.
    #[error("the state machine cannot be brought to the end of the log")]
    Machine(#[source] StopReason),
}

/// The one node of a new cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Rebuilt {
    /// Its only member: this node.
    pub membership: Membership,
    /// The entry up to which the state goes. The log begins after it.
    pub last: LogId,
    /// Where what was there before is now.
    pub before: Option<PathBuf>,
}

/// Makes a node of a new cluster out of a backup, in the directory and under the id that `config` names. Its
/// [`peer_addr`](Config::peer_addr) becomes the address of the only member: what other nodes will dial.
///
/// The directory must be empty or missing. The whole backup is verified before anything is written. What an earlier
/// attempt left beside the directory is removed.
pub fn restore(backup: &Path, config: &Config) -> Result<Rebuilt, RebuildError> {
    config.validate()?;
    let dir = directory(config)?;
    check_address(&config.peer_addr)?;
    if fs::read_dir(dir).is_ok_and(|mut names| names.next().is_some()) {
        return Err(RebuildError::NotEmpty { path: dir.to_owned() });
    }
    let (disk, name) = backup::file(backup)?;
    let meta = snapshots::verify(&disk, &name, &Pace::at_most(0))?.meta;
    let new = beside(dir, RESTORING)?;
    let held = build_in(&new)?;
    let mut from = snapshots::open_named(&disk, &name)?;
    let me = member(config.id, config.peer_addr.clone())?;
    let (last, term) = (meta.id, meta.id.term);
    let state = move |to: &mut dyn Write| io::copy(&mut from, to).map(drop);
    let membership = found(&held, &Keeper::of(config), me, meta, term, state)?;
    rename(&new, dir)?;
    drop(held);
    Ok(Rebuilt { membership, last, before: None })
}

/// The data directory of a node whose cluster has lost its quorum for good, opened and locked.
///
/// ```no_run
/// # use coracle::snapshot::{self, Save};
/// # use coracle::{Config, Context, QueryContext, StateMachine, Storage};
/// # #[derive(Default)]
/// # struct Counter(u64);
/// # impl StateMachine for Counter {
/// #     type Command = u64;
/// #     type Reply = u64;
/// #     type Query = ();
/// #     type Answer = u64;
/// #     fn apply(&mut self, _: &mut Context, by: u64) -> u64 { self.0 += by; self.0 }
/// #     fn query(&self, _: &QueryContext, (): ()) -> u64 { self.0 }
/// #     fn snapshot(&self) -> impl Save { snapshot::save(self.0) }
/// #     fn restore(&mut self, from: &mut dyn std::io::Read) -> std::io::Result<()> {
/// #         snapshot::load(from).map(|saved| self.0 = saved)
/// #     }
/// # }
/// use coracle::rebuild::Survivor;
///
/// let config = Config::new(1, "10.0.0.1:7101", Storage::Dir("data/node-1".into()));
/// let survivor = Survivor::open(&config)?;
/// println!("it holds everything up to {}, and is sure of what is up to {}", survivor.last(), survivor.certain());
/// let rebuilt = survivor.recover(Counter::default(), "10.0.0.1:7101")?;
/// println!("the only member of {}", rebuilt.membership.cluster);
/// # Ok::<(), coracle::rebuild::RebuildError>(())
/// ```
pub struct Survivor {
    config: Config,
    dir: PathBuf,
    opened: Opened,
    cluster: ClusterId,
    membership: Membership,
}

impl std::fmt::Debug for Survivor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Survivor").field("dir", &self.dir).field("last", &self.last()).finish_non_exhaustive()
    }
}

impl Survivor {
    /// Opens the directory as a start does, and so refuses whatever a start refuses: one that another process uses, one
    /// of another node, one that is damaged. A directory that has no cluster, or does not exist, is refused too. Nobody is
    /// listened to meanwhile.
    pub fn open(config: &Config) -> Result<Survivor, RebuildError> {
        config.validate()?;
        let dir = directory(config)?.to_owned();
        if !dir.join(identity::IDENTITY).exists() {
            return Err(refused(&dir, "it is no data directory: there is no identity in it"));
        }
        let opened = open::open(config)?;
        let newest = opened.recovered.memberships.last();
        let (Some(cluster), Some((id, payload))) = (opened.cluster, newest) else {
            return Err(refused(
                &dir,
                "the node never was part of a cluster, so there is nothing to recover",
            ));
        };
        let membership = decode_membership(payload)
            .map_err(|error| StartError::Membership { id: *id, problem: error.to_string() })?;
        Ok(Survivor { config: config.clone(), dir, cluster, membership, opened })
    }

    /// The cluster that it was part of.
    pub fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// The newest entry that it holds. Whether it was committed, nobody can tell any more.
    pub fn last(&self) -> LogId {
        self.opened.recovered.last
    }

    /// The newest entry of which it is certain that it was committed: that of its newest snapshot. Which of those after
    /// it were, a disk does not know: a leader says so, and says it again after each start.
    pub fn certain(&self) -> LogId {
        self.opened.snapshot.as_ref().map_or(LogId::ZERO, |kept| kept.meta.id)
    }

    /// The node.
    pub fn node(&self) -> NodeId {
        self.config.id
    }

    /// Where the others dialled it.
    pub fn address(&self) -> Option<&str> {
        let me = self.membership.all().find(|member| member.id == self.config.id);
        me.map(|member| &*member.address)
    }

    /// The newest membership that it holds.
    pub fn membership(&self) -> &Membership {
        &self.membership
    }

    /// Where its machine turned out to differ from that of a majority, if it did. What it then holds may be wrong.
    pub fn fenced(&self) -> Option<Index> {
        self.opened.fenced
    }

    /// Makes it the one node of a new cluster, with everything in its log: entries that were committed, and those of
    /// which that is not known. A write that was acknowledged may be among the latter, and a write that nobody was told
    /// of may happen after all; one that this node does not hold is lost. `machine` is one that has applied nothing; it is
    /// brought to the end of the log (one that keeps its own disk goes on from there). `address` is where other nodes will dial this one.
    ///
    /// The new directory takes the place of the old one, which is kept beside it: its name is followed by
    /// `.before-recovery`. If a crash comes between these two steps, there is no directory in that place, and
    /// [`finish`] puts the new one there.
    pub fn recover<S: StateMachine>(
        self,
        machine: S,
        address: impl Into<String>,
    ) -> Result<Rebuilt, RebuildError> {
        let me = member(self.config.id, address.into())?;
        check_address(&me.address)?;
        let Survivor { config, dir, opened, .. } = self;
        let Opened { store, recovered, files: old, snapshot, cluster, found, .. } = opened;
        let mut replicated = Replicated::new(machine);
        begin(&mut replicated, &*old, snapshot.as_ref(), &recovered, cluster)?;
        let skips = skips(found.ruled.into_iter(), Index::LIMIT);
        apply_all(&mut replicated, &*store.reader(), recovered.last, &skips)?;
        let (meta, save) = replicated.snapshot().map_err(RebuildError::Machine)?;
        let new = beside(&dir, RECOVERING)?;
        let held = build_in(&new)?;
        let (last, term) = (meta.id, recovered.hard_state.term.max(meta.id.term));
        let membership = self::found(&held, &Keeper::of(&config), me, meta, term, save)?;
        // An engine may not like to lose its directory; the lock of the whole is held until the end.
        drop(store);
        let before = kept_as(&dir)?;
        rename(&dir, &before)?;
        rename(&new, &dir)?;
        drop((held, old));
        // A machine that keeps its own disk belongs to the new cluster from here on.
        replicated.founded(last, encode_membership(&membership)).map_err(RebuildError::Machine)?;
        Ok(Rebuilt { membership, last, before: Some(before) })
    }
}

/// Finishes a recovery that a crash cut right before its end: the old directory has its new name, and nothing has taken
/// its place yet. True if there was one.
pub fn finish(dir: &Path) -> Result<bool, RebuildError> {
    let (new, before) = (beside(dir, RECOVERING)?, beside(dir, BEFORE)?);
    if dir.exists() || !new.exists() || !before.exists() {
        return Ok(false);
    }
    // The old one is moved away only once the new one is durable as a whole. That it names its cluster came last.
    let held = DirDisk::open(&new)?;
    if identity::inspect(&held)?.0.cluster.is_none() {
        return Ok(false);
    }
    rename(&new, dir)?;
    drop(held);
    Ok(true)
}

/// Applies what a log holds after what a machine has applied.
fn apply_all<S: StateMachine>(
    replicated: &mut Replicated<S>,
    reader: &dyn LogReader,
    last: LogId,
    skips: &Skips,
) -> Result<(), RebuildError> {
    while replicated.applied().0.index < last.index {
        let next = replicated.applied().0.index.next();
        let entries = reader.entries(next, last.index, PIECE).map_err(|error| match error {
            ReadLogError::Store(error) => error,
            other => StoreError::Refused(format!("entry {next} cannot be read: {other}")),
        })?;
        for entry in &entries {
            let applied = match skips.get(&entry.id()).copied().flatten() {
                Some(ruled) => replicated.skip(entry, ruled),
                None => replicated.apply(entry).map(drop),
            };
            applied.map_err(RebuildError::Machine)?;
        }
    }
    Ok(())
}

/// Makes a disk that is blank the one node of a new cluster. The snapshot decides: whatever is missing after it, a start
/// adds.
fn found(
    disk: &Arc<dyn Disk>,
    keeper: &Keeper,
    me: Member,
    meta: Meta,
    term: Term,
    state: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<Membership, RebuildError> {
    let incarnation = me.incarnation;
    let blank = identity::open_or_create_with(&**disk, me.id, keeper.name(), false, || incarnation)?;
    let marks = carried(&meta.membership.1)?;
    let membership = Membership { marks, ..proposal([me]) };
    check_membership(&membership).map_err(|error| RebuildError::Refused(error.to_string()))?;
    // Whoever is sent the snapshot must find the members of this cluster in it, and none of the old one.
    // And whoever had a session with the old one has none with this one, in which it may be done differently.
    let membership_entry = (meta.id, encode_membership(&membership));
    // Timers are its machine's, and stay.
    let meta = Meta {
        membership: membership_entry,
        level: 0,
        sessions: bytes::Bytes::new(),
        rulings: bytes::Bytes::new(),
        effects: bytes::Bytes::new(),
        ..meta
    };
    let (last, file) = (meta.id, open::random()?);
    snapshots::save(&**disk, &meta, file, &Pace::at_most(0), state)?;
    let mut store: Box<dyn LogStore> = keeper.open(disk, blank)?;
    store.load(&mut |_| {})?;
    let hard_state = Some(HardState { term, vote: None, promised: 0 });
    store.write(&WriteBatch { hard_state, changes: vec![Change::Reset(last)] })?;
    store.idle()?;
    drop(store);
    identity::set_cluster(&**disk, membership.cluster)?;
    disk.sync_dir().map_err(failed("sync", disk.path()))?;
    Ok(membership)
}

/// Whose certificates stay nobody's in the new cluster: those of nodes that were removed from the old one, and those that
/// its members had before their newest.
fn carried(old: &[u8]) -> Result<BTreeMap<NodeId, Mark>, RebuildError> {
    let old = decode_membership(old).map_err(|error| RebuildError::Refused(error.to_string()))?;
    let mut marks = old.marks;
    for (id, mark) in &mut marks {
        mark.issued -= u64::from(old.members.contains_key(id) && mark.issued > 0);
    }
    Ok(marks)
}

fn member(id: NodeId, address: String) -> Result<Member, RebuildError> {
    Ok(Member { id, incarnation: Incarnation(open::random()?), address })
}

fn directory(config: &Config) -> Result<&Path, RebuildError> {
    match &config.storage {
        Storage::Dir(dir) | Storage::Engine { dir, .. } => Ok(dir),
        Storage::Memory => Err(RebuildError::Refused("a store in memory cannot be rebuilt".to_owned())),
    }
}

/// Others will dial it.
fn check_address(address: &str) -> Result<(), RebuildError> {
    let port = address.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
    match port {
        Some(0) | None => Err(RebuildError::Refused(format!(
            "the address {address:?} is not host:port with the port that other nodes will dial"
        ))),
        Some(_) => Ok(()),
    }
}

fn refused(path: &Path, why: &str) -> RebuildError {
    RebuildError::Refused(format!("{}: {why}", path.display()))
}

/// The directory whose name goes on with `suffix`.
fn beside(dir: &Path, suffix: &str) -> Result<PathBuf, RebuildError> {
    let name = dir.file_name().ok_or_else(|| refused(dir, "a directory with a name is needed"))?;
    let mut longer = OsString::from(name);
    longer.push(suffix);
    Ok(dir.with_file_name(longer))
}

/// Under which name the survivor's directory is kept: the first that is free.
fn kept_as(dir: &Path) -> Result<PathBuf, RebuildError> {
    let mut name = beside(dir, BEFORE)?;
    let mut number = 2;
    while name.exists() {
        name = beside(dir, &format!("{BEFORE}-{number}"))?;
        number += 1;
    }
    Ok(name)
}

/// A directory to build in, with nothing in it but its lock. What an earlier attempt left there goes, and the lock stays
/// all the time: it shows whose directory this is, also to the next attempt if this one is killed.
fn build_in(new: &Path) -> Result<Arc<dyn Disk>, RebuildError> {
    if let Ok(mut names) = fs::read_dir(new)
        && names.next().is_some()
        && !new.join(LOCK).exists()
    {
        return Err(refused(new, "it is in the way, and no attempt of before made it; move it away"));
    }
    // Whoever builds in it now keeps it.
    let disk = DirDisk::open(new)?;
    for entry in fs::read_dir(new).map_err(failed("read", new))? {
        let entry = entry.map_err(failed("read", new))?;
        let (path, kind) = (entry.path(), entry.file_type().map_err(failed("read", new))?);
        if entry.file_name() == LOCK {
            continue;
        }
        let removed = if kind.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(failed("remove", &path))?;
    }
    Ok(Arc::new(disk))
}

/// Renames a directory, durably. Nothing may have the other name, except, in the place of a directory, an empty one.
fn rename(from: &Path, to: &Path) -> Result<(), RebuildError> {
    fs::rename(from, to).map_err(failed("rename", from))?;
    Ok(backup::sync_parent(to)?)
}

#[cfg(test)]
#[path = "rebuild_tests.rs"]
mod tests;
