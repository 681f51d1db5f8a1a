//! What a node knows of machines that have stopped before an entry, and of rulings about that (D5.5.5): what its disk says at a
//! start, and what it hears then. What it does about it is in [`skipping`](crate::skipping).

use crate::entry::Entry;
use crate::rulings::{InLog, Ruling, Skips, ruling_in};
use crate::storage::disk::Disk;
use crate::storage::identity::{self, KeptStop};
use crate::storage::{LogReader, ReadLogError, StoreError};
use coracle_core::{Index, LogId, MachineStop, Peer};
use std::collections::BTreeMap;

/// Under which name this node itself asks for a transfer.
pub(crate) const OWN: u64 = u64::MAX;

/// Bytes of the log that are read at once for rulings.
const PIECE: usize = 4 << 20;

/// What a start knows of stopped machines and rulings.
#[derive(Default)]
pub(crate) struct Found {
    /// Before which entry the machine has stopped in an earlier boot.
    pub(crate) stop: Option<KeptStop>,
    /// The rulings in the log.
    pub(crate) ruled: InLog,
    /// Whether the identity says that there may be some.
    pub(crate) rules: bool,
}

impl Found {
    /// What the identity says, and then the log after `purged`.
    pub(crate) fn on(
        disk: &dyn Disk,
        log: &dyn LogReader,
        purged: Index,
        last: Index,
    ) -> Result<Found, StoreError> {
        let (stop, rules) = (identity::stop(disk)?, identity::rules(disk)?);
        let ruled = if rules { in_log(log, purged, last)? } else { InLog::new() };
        Ok(Found { stop, ruled, rules })
    }
}

/// The rulings in a log.
fn in_log(log: &dyn LogReader, purged: Index, last: Index) -> Result<InLog, StoreError> {
    let (mut ruled, mut next) = (InLog::new(), purged.next());
    while next <= last {
        let entries = log.entries(next, last, PIECE).map_err(|error| match error {
            ReadLogError::Store(error) => error,
            other => StoreError::Refused(format!("entry {next} cannot be read: {other}")),
        })?;
        ruled.extend(entries.iter().filter_map(ruling_in));
        next = entries.last().map_or(last, Entry::index).next();
    }
    Ok(ruled)
}

/// What is known of machines that have stopped, and of rulings.
#[derive(Default)]
pub(crate) struct Skipping {
    /// Before which entry this node's machine has stopped, and why.
    pub(crate) own: Option<KeptStop>,
    /// Whether that is durable.
    pub(crate) durable: bool,
    /// Whether the machine has failed in this boot, so that what it holds is not its state.
    pub(crate) failed: bool,
    /// What members have said of theirs.
    pub(crate) reported: BTreeMap<Peer, MachineStop>,
    /// Whether the identity says that there may be some.
    pub(crate) rules: bool,
    /// What the machine was told last.
    pub(crate) told: Skips,
    /// Who asks for a ruling, and who waits until one is committed that stands there.
    pub(crate) asked: Vec<(u64, Ruling)>,
    pub(crate) waiting: Vec<(u64, LogId)>,
}
