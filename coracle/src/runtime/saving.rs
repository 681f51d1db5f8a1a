//! Snapshots, at the side of those who wait for one: handles, backups, and the log.

use super::Runtime;
use crate::backup::{self, Backup, BackupError};
use crate::error::{SnapshotError, StopReason};
use crate::files::Filed;
use crate::status::SnapshotTransfer;
use coracle_core::LogId;
use std::sync::Arc;

/// How often the log says how far snapshots have come, in ticks.
const TOLD: u64 = 500;

impl Runtime {
    /// Answers those who wanted a snapshot that is there now, or that will not be.
    pub(super) fn answer_snapshots(&mut self) {
        if self.snapshots.is_empty() {
            return;
        }
        let (newest, unsaved) = (self.parts.driver.snapshots.newest(), self.parts.driver.unsaved());
        for (wanted, answer) in std::mem::take(&mut self.snapshots) {
            match newest.filter(|newest| newest.last.index >= wanted) {
                Some(newest) => drop(answer.send(Ok(newest))),
                None => match &unsaved {
                    Some(why) => drop(answer.send(Err(why.clone()))),
                    None => self.snapshots.push((wanted, answer)),
                },
            }
        }
    }

    /// Answers those who wait for a snapshot that is there by now, and has another taken for the rest.
    pub(super) fn look_who_waits(&mut self) {
        let driver = &mut self.parts.driver;
        if let Some(why) = driver.unread() {
            self.waiting.refuse(&BackupError::Unconfirmed(why));
        }
        let newest = driver.snapshots.newest().map_or(LogId::ZERO, |newest| newest.last);
        let served = self.waiting.served_by(newest.index);
        if let Some(reaches) = self.waiting.wants(driver.machine_applied()) {
            driver.snapshots.want(reaches);
        }
        for answer in served {
            self.give_out(newest, None, answer);
        }
    }

    /// Opens a snapshot for somebody, on another thread.
    pub(super) fn give_out(&self, snapshot: LogId, file: Option<u64>, answer: backup::Answer) {
        // The sender goes along so that a stop waits for this too.
        let (files, under_way) = (self.parts.snapshots.files.clone(), self.loads.clone());
        tokio::task::spawn_blocking(move || {
            let opened = Backup::open(&*files, snapshot, file);
            drop((files, under_way));
            drop(answer.send(opened));
        });
    }

    /// Writes into the log, now and then, how far snapshots have come that are on their way.
    pub(super) fn tell_of_snapshots(&self) {
        if !self.met.1.is_multiple_of(TOLD) {
            return;
        }
        let shown = self.parts.driver.snapshots.shown();
        let transfers = shown.sending.iter().map(|it| ("to", it));
        for (way, it) in transfers.chain(shown.receiving.iter().map(|it| ("from", it))) {
            let SnapshotTransfer { peer, last, done, bytes, .. } = it;
            let node = self.parts.config.id;
            tracing::info!(%node, "a snapshot up to {last} {way} node {peer}: {done} of {bytes} bytes");
        }
    }

    /// The disk has done what was asked of the files of snapshots.
    pub(super) fn on_filed(&mut self, filed: Filed) {
        let driver = &mut self.parts.driver;
        match filed {
            Filed::Piece(to, piece) => driver.on_piece(to, piece),
            Filed::Stored(from, reply) => driver.on_stored(from, reply),
            Filed::NoRoom => driver.on_no_room(),
            Filed::Cleared => driver.on_cleared(),
            Filed::Received(kept) => driver.on_received(kept),
            Filed::Saved(saved) => {
                if let Err(problem) = &saved {
                    tracing::error!("a snapshot could not be written; the log grows until one is: {problem}");
                    for (_, answer) in self.snapshots.drain(..) {
                        drop(answer.send(Err(SnapshotError::Failed(problem.clone()))));
                    }
                    self.waiting.refuse(&BackupError::NotWritten(problem.clone()));
                }
                driver.on_saved(saved.ok());
            }
            Filed::Failed(error) => self.end = Some(StopReason::Storage(Arc::new(error))),
        }
    }
}
