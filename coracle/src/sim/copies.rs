//! A directory that is copied, and two processes that run on it and on its copy.
//!
//! They share the node's address, so that one of them is in front and the other waits, with all that it has in memory;
//! then they change places, and all connections break. Which of them counts is decided by production's own rule, at
//! whoever is met (D5.2.10): the copy lacks the start in which the original was met, so what it says counts with
//! nobody. At last the original is in front, and the copy gone.

use super::ghost::Verdict;
use super::host::{Host, Running};
use super::plan::{ELECTION, MS};
use super::situations::Rare;
use super::turns::Turn;
use super::world::{Happening, World};
use crate::storage::identity::Boots;
use crate::storage::mem_disk::MemDisk;

/// The process that waits, or the place of one that does not run.
pub(super) struct Twin {
    disk: MemDisk,
    run: u64,
    up: Option<Running>,
    boots: Boots,
    torn: bool,
    turn: Option<Turn>,
    /// Whether this is the copy.
    copy: bool,
    /// What is due to this process, for when it is in front.
    due: Vec<Happening>,
}

impl Happening {
    /// The process that it happens to, if it is one's own business.
    fn process(&self) -> Option<(usize, u64)> {
        match *self {
            Happening::Tick { node, run }
            | Happening::Written { node, run }
            | Happening::Reported { node, run, .. }
            | Happening::Seal { node, run }
            | Happening::Loaded { node, run, .. }
            | Happening::Apply { node, run }
            | Happening::Turn { node, run }
            | Happening::Restart { node, run } => Some((node, run)),
            _ => None,
        }
    }
}

impl Host {
    /// Whether the copy is in front.
    pub(super) fn copied(&self) -> bool {
        self.twin.as_ref().is_some_and(|twin| !twin.copy)
    }
}

impl World {
    /// A process starts on an old image of a node's directory, and the node's own goes on.
    pub(super) fn copy(&mut self, node: usize, image: MemDisk) -> Verdict {
        self.tell(|| format!("a copy of the directory of node {} is used too", node + 1));
        self.met.count(Rare::Copied);
        let boots = Boots::default();
        let (run, up, torn, turn, due) = (0, None, false, None, Vec::new());
        self.hosts[node].twin =
            Some(Box::new(Twin { disk: image, run, up, boots, torn, turn, copy: true, due }));
        let changes = self.chance.plain(16, node, self.now).within(1, 8);
        self.change_places(node, changes * 2 - 1)
    }

    /// The two processes of a node change places, and will so many times more.
    pub(super) fn change_places(&mut self, node: usize, more: u64) -> Verdict {
        if self.hosts[node].twin.is_none() {
            return Ok(());
        }
        self.exchange(node);
        self.met.count_if(!self.hosts[node].copied(), Rare::OriginalBack);
        if self.hosts[node].up.is_none() {
            self.at(1, Happening::Start { node });
        }
        if more == 0 {
            self.hosts[node].twin = None;
            self.ghost.forget_copy(node);
            return Ok(());
        }
        let pause = self.chance.plain(17, node, self.now).within(MS, 2 * ELECTION);
        self.at(pause, Happening::ChangePlaces { node, more: more - 1 });
        Ok(())
    }

    /// At the end of all faults the original is in front, and the copy gone.
    pub(super) fn end_copies(&mut self) {
        for node in 0..self.hosts.len() {
            if self.hosts[node].copied() {
                self.exchange(node);
            }
            self.hosts[node].twin = None;
            self.ghost.forget_copy(node);
        }
    }

    fn exchange(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.disk.clear_faults();
        (host.faulty, host.frozen_until) = (false, 0);
        let Some(twin) = &mut host.twin else { return };
        std::mem::swap(&mut host.disk, &mut twin.disk);
        std::mem::swap(&mut host.run, &mut twin.run);
        std::mem::swap(&mut host.up, &mut twin.up);
        std::mem::swap(&mut host.boots, &mut twin.boots);
        std::mem::swap(&mut host.torn, &mut twin.torn);
        std::mem::swap(&mut self.turns[node], &mut twin.turn);
        twin.copy = !twin.copy;
        let (copied, id) = (!twin.copy, host.me.id);
        let due = std::mem::take(&mut twin.due);
        due.into_iter().for_each(|what| self.at(1, what));
        self.tell(|| format!("node {} is its {} now", node + 1, if copied { "copy" } else { "original" }));
        self.ghost.exchange(node, copied);
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.network.reset(node, other);
            self.disconnect(node, other);
        }
        self.clients.on_crash(id);
    }

    /// Keeps what is due to a process that is not in front. None: it waits.
    pub(super) fn due(&mut self, what: Happening) -> Option<Happening> {
        let Some((node, run)) = what.process() else { return Some(what) };
        match &mut self.hosts[node].twin {
            Some(twin) if twin.run == run && twin.up.is_some() => {
                twin.due.push(what);
                None
            }
            _ => Some(what),
        }
    }
}
