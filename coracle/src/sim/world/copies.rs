//! A directory that is copied, and two processes that run on it and on its copy.
//!
//! They share the node's address, so that one of them is in front and the other waits, with all that it has in memory;
//! then they change places, and all connections break. Which of them counts is decided by production's own rule, at
//! whoever is met (D5.2.10): the copy lacks the start in which the original was met, so what it says counts with
//! nobody. At last the original is in front, and the copy gone.

use super::turns::Turn;
use super::{Happening, World};
use crate::sim::ghost::Verdict;
use crate::sim::host::Twin;
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::storage::mem_disk::MemDisk;

/// What the world holds for the process that waits at a node, until it is in front.
#[derive(Default)]
pub(in crate::sim) struct Aside {
    turn: Option<Turn>,
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
            | Happening::Filed { node, run }
            | Happening::Saved { node, run, .. }
            | Happening::Restart { node, run } => Some((node, run)),
            Happening::Duty(duty) => Some(duty.process()),
            _ => None,
        }
    }
}

impl World {
    /// A process starts on an old image of a node's directory, and the node's own goes on.
    pub(in crate::sim) fn copy(&mut self, node: usize, image: MemDisk) -> Verdict {
        self.tell(|| format!("a copy of the directory of node {} is used too", node + 1));
        self.met.count(Rare::Copied);
        self.hosts[node].twin = Some(Box::new(Twin::on(image)));
        self.aside[node] = Aside::default();
        let changes = self.chance.plain(16, node, self.now).within(1, 8);
        self.change_places(node, changes * 2 - 1)
    }

    /// The two processes of a node change places, and will so many times more.
    pub(in crate::sim) fn change_places(&mut self, node: usize, more: u64) -> Verdict {
        if self.hosts[node].twin.is_none() {
            return Ok(());
        }
        self.exchange(node);
        self.met.count_if(!self.hosts[node].copied(), Rare::OriginalBack);
        if self.hosts[node].up.is_none() {
            self.at(1, Happening::Start { node });
        }
        if more == 0 {
            self.end_copy(node);
            return Ok(());
        }
        let pause = self.chance.plain(17, node, self.now).within(MS, 2 * ELECTION);
        self.at(pause, Happening::ChangePlaces { node, more: more - 1 });
        Ok(())
    }

    /// At the end of all faults the original is in front, and the copy gone.
    pub(in crate::sim) fn end_copies(&mut self) {
        for node in 0..self.hosts.len() {
            if self.hosts[node].copied() {
                self.exchange(node);
            }
            self.end_copy(node);
        }
    }

    fn end_copy(&mut self, node: usize) {
        self.hosts[node].twin = None;
        self.aside[node] = Aside::default();
        self.ghost.forget_copy(node);
    }

    fn exchange(&mut self, node: usize) {
        let host = &mut self.hosts[node];
        host.disk.clear_faults();
        (host.faulty, host.frozen_until) = (false, 0);
        if !host.change_places() {
            return;
        }
        let aside = &mut self.aside[node];
        std::mem::swap(&mut self.turns[node], &mut aside.turn);
        let copied = host.copied();
        let due = std::mem::take(&mut aside.due);
        due.into_iter().for_each(|what| self.at(1, what));
        self.tell(|| format!("node {} is its {} now", node + 1, if copied { "copy" } else { "original" }));
        self.ghost.exchange(node, copied);
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.network.reset(node, other);
            self.disconnect(node, other);
        }
        self.clients.on_crash(node);
    }

    /// Keeps what is due to a process that is not in front. None: it waits.
    pub(in crate::sim) fn due(&mut self, what: Happening) -> Option<Happening> {
        let Some((node, run)) = what.process() else { return Some(what) };
        if !self.hosts[node].runs_aside(run) {
            return Some(what);
        }
        self.aside[node].due.push(what);
        None
    }
}
