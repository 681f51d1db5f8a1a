//! Machines that cannot apply an entry, in a simulated world, and operators who rule what becomes of it (S33).
//!
//! Some commands are too much for the program that most nodes begin with, and not for the one that they are upgraded to.
//! So of the machines of a cluster some may stop before an entry that others pass. An operator has entries skipped or tried
//! again, at any time and however little sense it makes.

use super::{Happening, World};
use crate::entry::{Entry, Kind as Of};
use crate::rulings::{Ruled, Ruling, Verdict as What};
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::{Event, Heard, Host, Stop};
use crate::sim::plan::ELECTION;
use crate::sim::situations::Rare;
use crate::storage::{Change, WriteBatch};
use crate::work::RequestId;
use coracle_core::{Index, LogId, MachineStop, Member, Peer, Term};
use std::collections::BTreeMap;

/// Every ruling that ever was in a log.
pub(in crate::sim) type Rulings = BTreeMap<(Index, Term), Ruling>;

impl World {
    /// An operator does something about machines that have stopped, or about entries that nothing is wrong with.
    pub(in crate::sim) fn rule(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        if dice.chance(300) {
            self.upgrade(node);
        }
        let stopped: Vec<LogId> =
            self.hosts.iter().filter_map(|host| host.stop.map(|stop| stop.at)).collect();
        let any = LogId {
            index: Index(1 + dice.below(self.ghost.committed().0.max(1))),
            term: Term(1 + dice.below(3)),
        };
        let entry = if stopped.is_empty() || dice.chance(50) { any } else { *dice.pick(&stopped) };
        // Nobody has an entry skipped that somebody has passed who is a member no more: what that one has answered would
        // be untrue.
        let unsure = self.plan.changes && (self.plan.gather > 0 || self.ghost.passed(entry.index));
        let verdict = if dice.chance(600) && !unsure { What::Skip } else { What::Retry };
        let node = if dice.chance(900) { self.newest_leader().unwrap_or(node) } else { node };
        self.tell(|| format!("node {} is asked to {verdict:?} entry {entry}", node + 1));
        self.turn(node, Event::Rule(Ruling { entry, verdict }))
    }

    /// From now on the program of this node can apply everything.
    fn upgrade(&mut self, node: usize) {
        self.hosts[node].fails.store(0, std::sync::atomic::Ordering::Relaxed);
        self.tell(|| format!("the program of node {} is upgraded", node + 1));
    }

    /// All programs can apply everything from now on. (A machine that keeps its own disk and has failed needs another start to try
    /// an entry again. Were it to fail each time, an operator who has it tried again and again would keep its node down.)
    pub(in crate::sim) fn upgrade_all(&mut self) {
        if self.plan.poison > 0 {
            (0..self.hosts.len()).for_each(|node| self.upgrade(node));
        }
    }

    /// All machines go on (L13).
    pub(in crate::sim) fn go_on_everywhere(&mut self) -> Verdict {
        if self.plan.poison == 0 {
            return Ok(());
        }
        self.network.cut_where(|_, _| false);
        self.until("L13", 100 * ELECTION, "end of all stops of machines", |world| {
            let goes_on = |host: &Host| host.dead || host.stop.is_none() && host.up.is_some();
            world.newest_leader().is_some() && world.hosts.iter().all(goes_on)
        })
    }

    /// Rulings come into logs: a skip only where every member has durably stopped.
    pub(in crate::sim) fn watch_rulings(&mut self, node: usize, queued: &[WriteBatch]) -> Verdict {
        for change in queued.iter().flat_map(|batch| &batch.changes) {
            let Change::Append(entries) = change else { continue };
            for entry in entries.iter().filter(|entry| entry.kind() == Of::Ruling) {
                self.watch_ruling(node, entry)?;
            }
        }
        Ok(())
    }

    fn watch_ruling(&mut self, node: usize, entry: &Entry) -> Verdict {
        let Some(ruling) = Ruling::decode(&entry.payload()) else {
            return broken("S33", format!("the ruling {} makes no sense", entry.id()));
        };
        let place = (entry.index(), entry.term());
        if self.rulings.insert(place, ruling).is_some() || ruling.verdict == What::Retry {
            return Ok(());
        }
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        for peer in up.raft().membership().members.values().map(Member::peer) {
            // A disk that was wiped since it gave its word passes nothing.
            let Some(host) = self.hosts.iter().find(|host| host.me == peer) else { continue };
            let bound = host.stop;
            if bound.is_none_or(|stop| stop.at != ruling.entry) {
                let (at, about, id) = (entry.id(), ruling.entry, peer.id);
                return broken("S33", format!("{at} skips {about}, before which node {id} has not stopped"));
            }
        }
        // Whoever is no member, has the entry, and has given no word may pass it: such a disk is not to come back.
        let members = up.raft().membership();
        let outside = |(node, host): &(usize, &Host)| {
            !members.contains(host.me)
                && host.stop.is_none_or(|stop| stop.at != ruling.entry)
                && self.ghost.last(*node).index >= ruling.entry.index
        };
        let outsiders = self.hosts.iter().enumerate().filter(outside).map(|(node, host)| (node, host.me));
        for (node, peer) in outsiders.collect::<Vec<_>>() {
            self.at(0, Happening::Outsider { node, peer });
        }
        Ok(())
    }

    /// Its operator empties the directory of a node that was removed.
    pub(in crate::sim) fn on_outsider(&mut self, node: usize, peer: Peer) -> Verdict {
        if self.hosts[node].me != peer {
            return Ok(());
        }
        let mut dice = self.chance.plain(23, node, self.now);
        self.wipe_now(node, &mut dice)
    }

    /// What was ruled by committed entries about this one: where, and what.
    fn ruled(&self, entry: LogId) -> impl Iterator<Item = (Index, What)> {
        let committed = |at: &(Index, Term)| self.ghost.is_committed(LogId { index: at.0, term: at.1 });
        let about = self.rulings.iter().filter(move |(at, it)| it.entry == entry && committed(at));
        about.map(|(at, it)| (at.0, it.verdict))
    }

    /// Whether a committed entry says that a machine which has stopped so may go on.
    fn is_freed(&self, stop: MachineStop) -> bool {
        self.ruled(stop.at).any(|(index, what)| what == What::Skip || index > stop.after)
    }

    /// A machine has stopped, or goes on.
    fn watch_stops(&mut self, node: usize, stops: &[Stop]) -> Verdict {
        for stop in stops {
            match stop {
                Stop::Machine(at) => {
                    self.met.count(Rare::MachineStopped);
                    self.hosts[node].rested = true;
                    let leads = self.hosts[node].up.as_ref().is_some_and(|up| up.raft().is_leader());
                    self.met.count_if(leads, Rare::LeaderMachineStopped);
                    self.tell(|| format!("the machine of node {} stops before {at}", node + 1));
                }
                Stop::Kept(Some(stop)) => self.hosts[node].stop = Some(*stop),
                Stop::Kept(None) => {
                    let Some(MachineStop { at, after }) = self.hosts[node].stop.take() else { continue };
                    let ruled = self.ruled(at).find(|(index, what)| *what == What::Skip || *index > after);
                    let Some((index, what)) = ruled else {
                        let node = node + 1;
                        return broken("S33", format!("the machine of node {node} passes {at} by no ruling"));
                    };
                    self.met.count(if what == What::Skip { Rare::EntrySkipped } else { Rare::EntryRetried });
                    self.tell(|| format!("the machine of node {} goes on: {what:?} at {index}", node + 1));
                }
            }
        }
        Ok(())
    }

    /// A machine has got on, has answered, or has stopped.
    pub(in crate::sim) fn watch_machine(
        &mut self,
        node: usize,
        applied: &[(Entry, bool, [u8; 16], Vec<u64>)],
        heard: &[(RequestId, Heard)],
        (stops, ruled): (&[Stop], &[Ruled]),
    ) -> Verdict {
        self.met.count_if(ruled.iter().any(Result::is_err), Rare::RulingRefused);
        let ids: Vec<LogId> = applied.iter().map(|(entry, ..)| entry.id()).collect();
        self.watch_stopped(node, &ids, (stops, heard))?;
        self.watch_stops(node, stops)
    }

    /// A machine that has stopped does nothing, over starts; and none passes what its log holds open skips of alone.
    fn watch_stopped(
        &self,
        node: usize,
        applied: &[LogId],
        wants: (&[Stop], &[(RequestId, Heard)]),
    ) -> Verdict {
        let (host, (stops, heard)) = (&self.hosts[node], wants);
        // One that goes on may get on at once, also where its disk does not take that down any more.
        let goes_on = stops.iter().any(|stop| matches!(stop, Stop::Kept(None)));
        if let Some(stop) = host.stop.filter(|stop| !goes_on && !self.is_freed(*stop)) {
            let answers = heard.iter().any(|(_, heard)| matches!(heard, Heard::Answer(..)));
            let passed = applied.iter().any(|id| id.index >= stop.at.index);
            if passed || answers && host.rested {
                let what = if passed { "passes" } else { "answers before" };
                return broken("S33", format!("the machine of node {} {what} {}", node + 1, stop.at));
            }
        }
        // Asked twice, operators skip twice: once one of the two is committed, the other one changes nothing.
        let skipped = |id: LogId| self.ruled(id).any(|(_, what)| what == What::Skip);
        let open = |id: &&LogId| {
            !skipped(**id)
                && self.rulings.iter().any(|((index, term), it)| {
                    let at = LogId { index: *index, term: *term };
                    it.entry == **id
                        && it.verdict == What::Skip
                        && self.ghost.holds(node, at)
                        && !self.ghost.is_committed(at)
                })
        };
        match applied.iter().find(open) {
            Some(id) => broken(
                "S33",
                format!("the machine of node {} passes {id}, of which its log holds an open skip", node + 1),
            ),
            None => Ok(()),
        }
    }

    /// What a node has said of its machine it knows after a start.
    pub(in crate::sim) fn watch_stop_at_start(&mut self, node: usize) -> Verdict {
        let host = &mut self.hosts[node];
        let knows = host.up.as_ref().and_then(|up| up.driver.machine_stop().map(|kept| kept.stop));
        host.rested = knows.is_some();
        self.met.count_if(knows.is_some(), Rare::StoppedStart);
        // What failed while it was written down, and stopped the node, may be there all the same.
        let stop = host.stop.take();
        host.stop = knows;
        match (stop, knows) {
            (Some(stop), None) if !self.is_freed(stop) => {
                let detail =
                    format!("node {} forgot that its machine has stopped before {}", node + 1, stop.at);
                broken("S33", detail)
            }
            _ => Ok(()),
        }
    }
}
