//! What a start finds, and what it makes of it: opens the store, reads the log, and judges whether this node
//! may go on from there.

use crate::config::{Config, Storage};
use crate::error::StartError;
use crate::founding::Promise;
use crate::place::Place;
use crate::stopped_machines::Found;
use crate::storage::disk::{DirDisk, Disk, failed};
use crate::storage::engine::{self, Engine, WAL};
use crate::storage::identity::{self, Boots, IDENTITY};
use crate::storage::mem_disk::MemDisk;
use crate::storage::memory::MemoryStore;
use crate::storage::met::{self, Met};
use crate::storage::moved;
use crate::storage::snapshots::{self, Kept, Meta};
use crate::storage::wal::{self, Wal, WalConfig};
use crate::storage::{
    Change, Identity, LogReader, LogStore, ReadLogError, Recovered, StoreError, WriteBatch,
};
use crate::wire::decode_membership;
use coracle_core::{
    Boot, Broken, ClusterId, HardState, Incarnation, Index, LogId, Membership, NodeId, Restored, Term,
};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a store gave when it was opened.
pub(crate) struct Opened {
    pub(crate) store: Box<dyn LogStore>,
    pub(crate) recovered: Recovered,
    pub(crate) disk: Option<Arc<dyn Disk>>,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: Option<ClusterId>,
    /// The starts of the directory, this one last.
    pub(crate) boots: Boots,
    /// Where, in an earlier boot, its machine turned out to differ from that of a majority.
    pub(crate) fenced: Option<Index>,
    /// Before which entry its machine has stopped, and what was ruled about such entries.
    pub(crate) found: Found,
    /// In which boots the disks of other members were met before this start.
    pub(crate) met: Vec<Met>,
    /// Where members were found before this start that are not where the membership says.
    pub(crate) places: Vec<Place>,
    /// To which list the node has promised itself.
    pub(crate) promise: Option<Promise>,
    /// Where snapshots are, and the newest of them.
    pub(crate) files: Arc<dyn Disk>,
    pub(crate) snapshot: Option<Kept>,
    /// Where the machine stands, if it keeps its own disk and is after that snapshot.
    pub(crate) stands: Option<LogId>,
}

/// Opens and recovers the store. A long log takes a while.
pub(crate) fn open(config: &Config) -> Result<Opened, StartError> {
    let incarnation = config.incarnation.map_or_else(|| random().map(Incarnation), Ok)?;
    let boots = Boots { count: 1, newest: vec![Boot(random()?)] };
    match &config.storage {
        Storage::Memory => {
            let mut store = MemoryStore::new();
            let recovered = store.load(&mut |_| {})?;
            let store = Box::new(store);
            Ok(Opened {
                store,
                recovered,
                disk: None,
                incarnation,
                cluster: None,
                boots,
                fenced: None,
                found: Found::default(),
                met: Vec::new(),
                places: Vec::new(),
                promise: None,
                files: Arc::new(MemDisk::new()),
                snapshot: None,
                stands: None,
            })
        }
        Storage::Dir(dir) | Storage::Engine { dir, .. } => {
            let disk: Arc<dyn Disk> = Arc::new(DirDisk::open(dir)?);
            open_disk(config.id, incarnation, disk, &Keeper::of(config), config.broken)
        }
    }
}

/// What keeps the log of a data directory.
pub(crate) enum Keeper {
    Wal { segment_bytes: u64, broken: Broken },
    Engine(Arc<dyn Engine>),
}

impl Keeper {
    /// What these settings say.
    pub(crate) fn of(config: &Config) -> Keeper {
        match &config.storage {
            Storage::Engine { engine, .. } => Keeper::Engine(engine.clone()),
            Storage::Dir(_) | Storage::Memory => {
                Keeper::Wal { segment_bytes: config.segment_bytes, broken: config.broken }
            }
        }
    }

    pub(crate) fn name(&self) -> &str {
        match self {
            Keeper::Wal { .. } => WAL,
            Keeper::Engine(engine) => engine.name(),
        }
    }

    /// Whether the directory holds a log. Where there is no identity, a log of whatever store counts: a new
    /// identity must not begin a second log beside it.
    fn log_exists(&self, disk: &dyn Disk) -> Result<bool, StoreError> {
        let names = disk.list().map_err(failed("list", disk.path()))?;
        if !names.iter().any(|name| name == IDENTITY) {
            let engines = names.iter().any(|name| name.starts_with(engine::DIRECTORY));
            return Ok(engines || wal::exists(disk)?);
        }
        match self {
            Keeper::Wal { .. } => wal::exists(disk),
            Keeper::Engine(engine) => engine.exists(&engine::directory(disk.path(), engine.name())),
        }
    }

    pub(crate) fn open(
        &self,
        disk: &Arc<dyn Disk>,
        identity: Identity,
    ) -> Result<Box<dyn LogStore>, StoreError> {
        match self {
            Keeper::Wal { segment_bytes, broken } => {
                let config = WalConfig { segment_bytes: *segment_bytes, ..WalConfig::default() };
                let mut wal = Wal::open(disk.clone(), identity, config);
                wal.broken = *broken;
                Ok(Box::new(wal))
            }
            Keeper::Engine(engine) => engine.open(&engine::directory(disk.path(), engine.name()), identity),
        }
    }
}

/// Opens what is in a directory, as a start does.
pub(crate) fn open_disk(
    id: NodeId,
    fresh: Incarnation,
    disk: Arc<dyn Disk>,
    keeper: &Keeper,
    broken: Broken,
) -> Result<Opened, StartError> {
    wal::tidy(&*disk)?;
    let exists = keeper.log_exists(&*disk)?;
    let mut identity = identity::open_or_create_with(&*disk, id, keeper.name(), exists, || fresh)?;
    let mut store = keeper.open(&disk, identity)?;
    let began = Instant::now();
    let mut told = Duration::ZERO;
    let mut recovered = store.load(&mut |share| {
        // Most starts take no time worth a line.
        if began.elapsed() >= told + Duration::from_secs(1) {
            told = began.elapsed();
            tracing::info!(node = %id, percent = (share * 100.0) as u32, "reading the log");
        }
    })?;
    let snapshot = newest_snapshot(&*disk, &mut *store, &mut recovered, broken)?;
    // A founder names the cluster in its identity only after its first entry was durable.
    if identity.cluster.is_none()
        && let Some((entry, payload)) = recovered.memberships.last()
    {
        let membership = decode(*entry, payload)?;
        identity = identity::set_cluster(&*disk, membership.cluster)?;
    }
    let promise = promise(&*disk)?;
    let draw = || Boot(getrandom::u64().expect("the system gives random bits"));
    let boots = identity::begin_run(&*disk, draw)?;
    let found = Found::on(&*disk, &*store.reader(), recovered.purged.index, recovered.last.index)?;
    Ok(Opened {
        found,
        store,
        recovered,
        boots,
        fenced: identity::fenced(&*disk)?,
        met: met::load(&*disk)?,
        places: moved::load(&*disk)?,
        promise,
        files: disk.clone(),
        snapshot,
        stands: None,
        disk: Some(disk),
        incarnation: identity.incarnation,
        cluster: identity.cluster,
    })
}

/// The newest snapshot that is whole, and the log as it is with it. A log that it does not belong to goes on after it: a
/// crash came between the two halves of an install (D5.1.9).
pub(crate) fn newest_snapshot(
    disk: &dyn Disk,
    store: &mut dyn LogStore,
    recovered: &mut Recovered,
    broken: Broken,
) -> Result<Option<Kept>, StoreError> {
    let (newest, damaged) = snapshots::newest(disk)?;
    // A crash may have come before old ones were removed, or a loss of power may have brought them back. Damage is no
    // reason to delete.
    if damaged.is_empty() {
        snapshots::tidy(disk, snapshots::KEPT)?;
    }
    for error in damaged {
        tracing::error!(%error, "a snapshot is damaged, and the one before it is used: check the disk");
    }
    let reaches = newest.as_ref().map_or(LogId::ZERO, |kept| kept.meta.id);
    // A log that begins late is right only if a snapshot reaches it.
    if recovered.purged.index > reaches.index {
        let detail = format!("the log begins after {}, and no snapshot reaches it", recovered.purged);
        return Err(StoreError::Damaged { path: disk.path().to_owned(), offset: 0, detail });
    }
    let Some(kept) = newest else { return Ok(None) };
    let Meta { id, membership, .. } = &kept.meta;
    if term_at(recovered, id.index) != Some(id.term) {
        // From now on the log relies on it.
        snapshots::settle(disk, *id)?;
        // The snapshot may have become durable before the term in which it came.
        let later = id.term > recovered.hard_state.term && !broken.is("snapshots-term-forgotten");
        let later = later.then_some(HardState { term: id.term, vote: None, ..recovered.hard_state });
        store.write(&WriteBatch { hard_state: later, changes: vec![Change::Reset(*id)] })?;
        let hard_state = later.unwrap_or(recovered.hard_state);
        *recovered = Recovered { hard_state, purged: *id, last: *id, ..Recovered::default() };
    }
    let at = recovered.memberships.partition_point(|(known, _)| known.index < membership.0.index);
    if recovered.memberships.get(at).is_none_or(|(known, _)| *known != membership.0) {
        recovered.memberships.insert(at, membership.clone());
    }
    Ok(Some(kept))
}

/// The term of the entry at `index`, if the log holds it or begins after it.
pub(crate) fn term_at(log: &Recovered, index: Index) -> Option<Term> {
    if index == log.purged.index {
        return Some(log.purged.term);
    }
    let held = index > log.purged.index && index <= log.last.index;
    let after = log.runs.partition_point(|run| run.first <= index);
    after.checked_sub(1).filter(|_| held).map(|at| log.runs[at].term)
}

/// To which list the node has promised itself.
pub(crate) fn promise(disk: &dyn Disk) -> Result<Option<Promise>, StoreError> {
    let Some(kept) = identity::promise(disk)? else { return Ok(None) };
    let promise = Promise::from_kept(kept).map_err(|error| StoreError::Identity {
        path: disk.path().join(IDENTITY),
        detail: format!("the list that it has promised itself to cannot be read: {error}"),
    })?;
    Ok(Some(promise))
}

pub(crate) fn restore(
    recovered: Recovered,
    snapshot: Option<&Kept>,
    stands: Option<LogId>,
) -> Result<Restored, StartError> {
    let snapshot = snapshot.map_or(LogId::ZERO, |kept| kept.meta.id);
    let Recovered { hard_state, purged, last, runs, memberships } = recovered;
    let memberships = memberships.iter().map(|(id, payload)| Ok((*id, decode(*id, payload)?)));
    let memberships = memberships.collect::<Result<_, StartError>>()?;
    let applied = stands.map(|id| id.index);
    Ok(Restored { hard_state, purged, snapshot, applied, runs, last: last.index, memberships })
}

fn decode(id: LogId, payload: &[u8]) -> Result<Membership, StartError> {
    decode_membership(payload).map_err(|error| StartError::Membership { id, problem: error.to_string() })
}

/// The cluster time of the newest entry, from which a leader's clock goes on.
pub(crate) fn newest_time(reader: &dyn LogReader, recovered: &Recovered) -> Result<u64, StartError> {
    let Recovered { purged, last, .. } = recovered;
    if last.index <= purged.index {
        return Ok(0);
    }
    match reader.entries(last.index, last.index, 0) {
        Ok(entries) => Ok(entries.first().map_or(0, |entry| entry.stamp().cluster_time)),
        Err(ReadLogError::Store(error)) => Err(error.into()),
        Err(error) => Err(StoreError::Refused(format!("the newest entry {last}: {error}")).into()),
    }
}

pub(crate) fn random() -> Result<u64, StartError> {
    getrandom::u64()
        .map_err(|error| StartError::System { action: "draw random bits", source: io::Error::other(error) })
}
