//! What becomes of a node's writes: each is done after a while, and the node hears of it then or later.

use super::{Happening, NO_ROOM_PAUSE, QUIET, World};
use crate::sim::chance::Kind;
use crate::sim::ghost::Verdict;
use crate::sim::host::Event;
use crate::sim::host::Written;
use crate::sim::plan::ELECTION;
use crate::sim::plan::MS;
use crate::sim::situations::Rare;
use crate::sim::story;
use coracle_core::WriteId;

impl World {
    pub(super) fn on_written(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Written { node, run });
            return Ok(());
        }
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let batch = up.writing.as_ref().map(|(_, batch)| batch.clone()).unwrap_or_default();
        let id = match up.write(self.now) {
            Ok(Written::Whole(id)) => id,
            Ok(Written::Nothing) => return Ok(()),
            Ok(Written::Part) => {
                self.ghost.on_durable(node, &batch)?;
                self.purge(node)?;
                self.work(node);
                return Ok(());
            }
            // As the log's writer does, until the fault is over.
            Ok(Written::NoRoom) => {
                self.met.count(Rare::DiskFull);
                self.at(NO_ROOM_PAUSE, Happening::Written { node, run });
                return Ok(());
            }
            Err(error) => return self.on_disk_refused(node, &error),
        };
        self.step(3, node, id.0);
        self.tell(|| format!("node {} has on disk: {}", node + 1, story::batch(&batch)));
        self.ghost.on_durable(node, &batch)?;
        if self.chance.happens(Kind::LateWord, node, self.plan.late).is_none() {
            return self.on_reported(node, run, id);
        }
        // The disk goes on; the node hears of this write at some later time.
        let (_, mut dice) = self.chance.next(Kind::LateWord, node);
        let limit = *dice.pick(&[5 * MS, 50 * MS, ELECTION]);
        let delay = dice.within(1, limit);
        // Some gather, as words for a node that was busy do.
        let gathers = if dice.chance(500) { 10 * MS - (self.now + delay) % (10 * MS) } else { 0 };
        let delay = delay + gathers;
        self.at(delay, Happening::Reported { node, run, id });
        self.purge(node)?;
        self.work(node);
        Ok(())
    }

    pub(super) fn on_reported(&mut self, node: usize, run: u64, id: WriteId) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Reported { node, run, id });
            return Ok(());
        }
        let now = self.now;
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let stale = id < up.reported;
        up.reported = up.reported.max(id);
        let twice = up.last_report == now;
        up.last_report = now;
        let before = up.raft().persisted();
        self.met.count_if(stale, Rare::StaleDone);
        self.met.count_if(twice, Rare::TwoDone);
        self.turn(node, Event::Persisted(id))?;
        if let Some(up) = &mut self.hosts[node].up {
            let gone = up.truncated_at.take_if(|truncated| id <= *truncated).is_some();
            let gone = gone && up.raft().persisted() <= before;
            self.met.count_if(gone, Rare::GoneDone);
        }
        Ok(())
    }

    pub(super) fn on_seal(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let quiet = up.unsealed.is_some_and(|since| self.now - since >= QUIET);
        if up.writing.is_some() || !quiet {
            return Ok(());
        }
        self.met.count(Rare::Sealed);
        match up.seal() {
            Ok(()) => Ok(()),
            Err(error) => self.on_disk_refused(node, &error),
        }
    }
}
