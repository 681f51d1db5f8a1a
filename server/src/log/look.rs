//! What can be known of a data directory, whichever store keeps its log.

use super::Failure;
use crate::store;
use coracle::in_full;
use coracle::raft::{Index, LogId};
use coracle::storage::disk::{Disk, ReadOnlyDir};
use coracle::storage::identity::{self, IDENTITY};
use coracle::storage::keyed::Inspected;
use coracle::storage::snapshots::{self, Kept, SnapshotFile};
use coracle::storage::wal::{self, Damage, SegmentFile, Stretch};
use coracle::storage::{Identity, ReadLogError, Recovered, StoreError, engine};
use std::path::{Path, PathBuf};

/// A data directory, looked at.
pub(super) struct Look {
    pub(super) dir: PathBuf,
    /// Whose it is, if that can be read.
    pub(super) identity: Option<Identity>,
    /// The name of the store that keeps the log.
    pub(super) store: String,
    /// What a start would find; of a damaged log, what is known of it.
    pub(super) recovered: Recovered,
    /// The entries after it are in doubt.
    pub(super) attested: LogId,
    pub(super) hard_state_in_doubt: bool,
    /// Of the write-ahead log only.
    pub(super) segments: Vec<SegmentFile>,
    /// Files of the log that do not count.
    pub(super) others: Vec<String>,
    /// What is wrong.
    pub(super) flaws: Vec<Damage>,
    /// The snapshots that are whole, newest first, with the names of their files.
    pub(super) snapshots: Vec<(String, Kept)>,
    /// Those that are damaged, and that a start passes over since it needs none of them.
    pub(super) passed_over: Vec<StoreError>,
    /// The entries that can be read.
    pub(super) stretches: Vec<Stretch>,
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Failure {
        Failure::Unreadable(in_full(&error))
    }
}

impl Look {
    /// Reads and verifies all that is there.
    pub(super) fn at(dir: &Path) -> Result<Look, Failure> {
        let disk = ReadOnlyDir::open(dir)?;
        let list = |source| StoreError::Io { action: "list", path: dir.to_owned(), source };
        let names = disk.list().map_err(list)?;
        let engines: Vec<&str> =
            names.iter().filter_map(|name| name.strip_prefix(engine::DIRECTORY)).collect();
        let has_wal = wal::exists(&disk)?;
        let named = names.iter().any(|name| name == IDENTITY);
        if !named && !has_wal && engines.is_empty() {
            let problem = format!("{} is no data directory: it has no log and no identity", dir.display());
            return Err(Failure::Unreadable(problem));
        }
        let mut flaws = Vec::new();
        let known = match identity::inspect(&disk) {
            Ok(known) => Some(known),
            Err(error @ StoreError::Damaged { .. }) => {
                flaws.push(Damage { error, forgiven: false });
                None
            }
            Err(_) if !named => {
                let (path, detail) = (dir.join(IDENTITY), "it is missing, but there is a log".to_owned());
                flaws.push(Damage { error: StoreError::Identity { path, detail }, forgiven: false });
                None
            }
            Err(error) => return Err(error.into()),
        };
        let (identity, store) = match known {
            Some((identity, store)) => (Some(identity), store),
            None if has_wal => (None, engine::WAL.to_owned()),
            None => (None, engines.first().unwrap_or(&engine::WAL).to_string()),
        };
        let mut look = Look {
            dir: dir.to_owned(),
            identity,
            recovered: Recovered::default(),
            attested: LogId::ZERO,
            hard_state_in_doubt: false,
            segments: vec![],
            others: vec![],
            flaws,
            snapshots: vec![],
            passed_over: vec![],
            stretches: vec![],
            store,
        };
        if look.store == engine::WAL {
            look.take_wal(wal::inspect(&disk, look.identity.as_ref())?);
        } else {
            let path = engine::directory(dir, &look.store);
            match store::inspect(&look.store, &path).map_err(Failure::Unreadable)? {
                Ok(found) => look.take_keyed(&path, found),
                Err(error @ StoreError::Damaged { .. }) => look.flaws.push(Damage { error, forgiven: false }),
                Err(error) => return Err(error.into()),
            }
        }
        // After the log: what it was purged up to, the snapshots that are there by then reach.
        look.take_snapshots(snapshots::inspect(&disk)?);
        look.others.extend(names.into_iter().filter(|name| snapshots::is_unfinished(name)));
        Ok(look)
    }

    fn take_snapshots(&mut self, files: Vec<SnapshotFile>) {
        let mut damaged = Vec::new();
        for SnapshotFile { name, found } in files {
            match found {
                Ok(kept) => self.snapshots.push((name, kept)),
                Err(error) => damaged.push(error),
            }
        }
        let purged = self.recovered.purged;
        let reaches = self.snapshots.first().map_or(LogId::ZERO, |(_, kept)| kept.meta.id);
        if purged.index <= reaches.index {
            return self.passed_over = damaged;
        }
        let detail = format!("the log begins after {purged}, and no snapshot reaches it");
        damaged.push(StoreError::Damaged { path: self.dir.clone(), offset: 0, detail });
        self.flaws.extend(damaged.into_iter().map(|error| Damage { error, forgiven: false }));
    }

    fn take_wal(&mut self, found: wal::Inspection) {
        self.identity = found.identity;
        self.recovered = found.recovered;
        self.attested = found.attested;
        self.hard_state_in_doubt = found.hard_state_in_doubt;
        self.segments = found.segments;
        self.others = found.others;
        self.flaws.extend(found.damage);
        self.stretches = found.stretches;
    }

    fn take_keyed(&mut self, path: &Path, found: Option<Inspected>) {
        let mut refuse = |detail: String| {
            let error = StoreError::Identity { path: path.to_owned(), detail };
            self.flaws.push(Damage { error, forgiven: false });
        };
        let Some(found) = found else {
            if self.identity.is_some_and(|identity| identity.cluster.is_some()) {
                refuse("the node has joined a cluster, but its log is gone".to_owned());
            }
            return;
        };
        let owner = self.identity.map(|identity| (identity.node, identity.incarnation));
        if owner.is_some_and(|owner| owner != (found.node, found.incarnation)) {
            refuse(format!("the log is of node {}, incarnation {:016x}", found.node, found.incarnation.0));
        }
        self.attested = found.stretches.last().map_or(found.recovered.last, |(_, last)| *last);
        for (first, last) in found.stretches {
            let reader = found.reader.clone();
            self.stretches.push(Stretch { first: first.index, last: last.index, reader });
        }
        self.recovered = found.recovered;
        self.flaws.extend(found.damage.into_iter().map(|error| Damage { error, forgiven: false }));
    }

    /// Whether a start would succeed.
    pub(super) fn intact(&self) -> bool {
        self.flaws.iter().all(|flaw| flaw.forgiven)
    }

    /// Whether the segment that this error is about is not the same any more in a later look.
    pub(super) fn lost(&self, later: &Look, error: &ReadLogError) -> bool {
        let ReadLogError::Store(StoreError::Damaged { path, .. }) = error else { return false };
        let named = path.file_name().map(|name| name.to_string_lossy());
        let generation = |look: &Look| {
            let segment = look.segments.iter().find(|segment| named.as_deref() == Some(&*segment.name));
            segment.map(|segment| segment.generation)
        };
        generation(self).is_some() && generation(self) != generation(later)
    }

    /// The newest entry that can be read.
    pub(super) fn last(&self) -> Index {
        self.stretches.last().map_or(Index::ZERO, |stretch| stretch.last)
    }

    /// Its entries in a few words.
    pub(super) fn range(&self) -> String {
        let mut parts: Vec<String> = self
            .stretches
            .iter()
            .map(|stretch| format!("entries {} to {}", stretch.first, stretch.last))
            .collect();
        if parts.is_empty() {
            parts.push("no entries".to_owned());
        }
        if self.recovered.purged != LogId::ZERO {
            parts.push(format!("purged up to {}", self.recovered.purged.index));
        }
        if let Some((_, newest)) = self.snapshots.first() {
            parts.push(format!("a snapshot up to {}", newest.meta.id.index));
        }
        if self.last() > self.attested.index {
            parts.push(format!(
                "those after {} were written last, and a loss of power may take them: the next start makes them durable",
                self.attested.index
            ));
        }
        parts.join(", ")
    }
}
