//! What a node's disk does with snapshots: it writes them, reads and takes pieces of them, and lets the log go.

use super::{Running, Wants};
use crate::entry::Entry;
use crate::error::in_full;
use crate::files::Filed;
use crate::replica::Load;
use crate::storage::identity;
use crate::storage::mem_disk::MemDisk;
use crate::storage::snapshots::{self, KEPT, Pace};
use crate::storage::wal::PlannedRead;
use crate::storage::{LogStore, ReadLogError, StoreError};
use coracle_core::LogId;
use std::time::Duration;

/// Small parts, of which even small snapshots have several.
pub(in crate::sim) const PACE: Pace = Pace { part: 256, pause: Duration::ZERO, stops: None };

impl Running {
    /// Purges the log, if that is due and the disk is idle. Up to where.
    pub(in crate::sim) fn purge(&mut self) -> Result<Option<LogId>, String> {
        if self.writing.is_some() {
            return Ok(None);
        }
        let Some(upto) = self.purge.take() else { return Ok(None) };
        match self.log.purge(upto) {
            Ok(()) => self.changes += 1,
            Err(StoreError::NoSpace { .. }) => {}
            Err(error) => return Err(in_full(&error)),
        }
        Ok(Some(upto))
    }

    /// Writes down that the machine was rebuilt. False if it could not.
    pub(super) fn mend(&mut self, disk: &MemDisk, wants: &mut Wants) -> bool {
        match identity::lift_fence(disk) {
            Ok(()) => self.driver.on_mended(),
            Err(error) => wants.fatal = Some(in_full(&error)),
        }
        wants.fatal.is_none()
    }

    /// Whether something is to be done with the files of snapshots, and nothing is.
    pub(in crate::sim) fn files_wait(&self) -> bool {
        !self.files_busy && !self.filing.is_empty()
    }

    /// Whether anything is still to be done with them, begun or not.
    pub(in crate::sim) fn files_are_due(&self) -> bool {
        !self.filing.is_empty()
    }

    /// Does the next thing with the files of snapshots.
    pub(in crate::sim) fn file(&mut self) -> Result<Vec<Filed>, String> {
        self.files_busy = false;
        let Some(order) = self.filing.pop_front() else { return Ok(Vec::new()) };
        self.files.carry_out(order).map_err(|error| in_full(&error))
    }

    /// Writes the snapshot that was taken, under this name, unless the machine is known not to be sound.
    pub(in crate::sim) fn save(&mut self, disk: &MemDisk, file: u64, sound: bool) -> Option<Filed> {
        let (meta, save) = self.saving.take()?;
        if !sound {
            return Some(Filed::Saved(Err("the machine is not sound".to_owned())));
        }
        let saved = snapshots::save(disk, &meta, file, &PACE, save);
        let saved = saved.and_then(|kept| snapshots::tidy(disk, KEPT).map(|()| kept));
        Some(Filed::Saved(saved.map_err(|error| in_full(&error))))
    }
}

/// What it does with reads of its log.
impl Running {
    /// What was asked of the store.
    pub(in crate::sim) fn load(&self, load: &Load) -> Result<Vec<Entry>, ReadLogError> {
        self.reader.entries(load.first, load.last, load.max_bytes as usize)
    }

    /// Decides what to read from the store, and reads nothing.
    pub(in crate::sim) fn plan_load(&self, load: &Load) -> Result<PlannedRead, ReadLogError> {
        self.log.plan_read(load.first, load.last, load.max_bytes as usize)
    }
}
