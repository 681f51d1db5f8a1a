//! The end of all faults; then what must happen must happen within bounds.
//!
//! Before that, in some runs, only a partition is left: one in which a node with an up-to-date log still
//! reaches a quorum. As long as it lasts, the cluster must go on (L7).

use super::{Happening, World};
use crate::sim::chance::Kind;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::{Host, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use coracle_core::{Index, Raft, Status};

impl World {
    pub(in crate::sim) fn heal(&mut self) -> Verdict {
        let ticks = self.ticks;
        self.report.pace("leaderless", ticks.0, ticks.1 * 1000);
        self.calm()?;
        self.find_each_other()?;
        self.bring_all_back()?;
        self.only_the_moved_live()?;
        self.go_on_everywhere()?;
        self.siege()?;
        let term = |world: &World| world.living().map(Raft::term).max().unwrap_or_default().0;
        let (began, elected) = (self.now, term(self));
        self.network.cut_where(|_, _| false);
        // L1: a leader within 10 election timeouts (and those on the way, held by up to ten more).
        self.until("L1", 20 * ELECTION, "a leader that all follow", |world| {
            let mut leaders = world.living().map(Raft::leader);
            let first = leaders.next().flatten();
            first.is_some() && leaders.all(|leader| leader == first)
        })?;
        self.pace("leader", (self.now - began) / MS);
        // L4: everybody who asked knows by then.
        self.clients.stop_asking();
        self.until("L4", 20 * ELECTION, "an answer to every request", |world| world.clients.idle())?;
        // L3: new writes are acknowledged.
        let before = self.clients.acknowledged();
        let began = self.now;
        self.clients.ask_again();
        self.until("L3", 20 * ELECTION, "a new write acknowledged", |world| {
            world.clients.acknowledged() > before
        })?;
        self.pace("write", (self.now - began) / MS);
        self.clients.stop_asking();
        // L12: no timer is lost.
        self.until("L12", self.plan.timers * MS + 20 * ELECTION, "end of all timers", |world| {
            world.timers.is_empty()
        })?;
        self.settle_effects()?;
        self.know_all_marks()?;
        let began = self.now;
        // L2 and L5: nobody is stuck.
        let patience = 30 * ELECTION + self.catching_up();
        self.until("L2", patience, "equal machines everywhere", World::agree)?;
        self.pace("equal", (self.now - began) / MS);
        self.watch_counts()?;
        // S5: nobody goes on with a machine that others saw to be wrong.
        self.until("S5", 30 * ELECTION, "fence around each machine that rotted", |world| {
            !world.is_rot_overlooked() || world.is_no_majority_right()
        })?;
        if self.is_rot_overlooked() {
            // One was given up late, for what it looked like once, and another one has rotted since: nobody can tell which of
            // the others is right, and so none is rebuilt.
            return Ok(());
        }
        self.rebuild_all()?;
        self.stay()?;
        let elections = term(self).saturating_sub(elected);
        self.pace("elections", elections * 1000);
        Ok(())
    }

    fn is_rot_overlooked(&self) -> bool {
        self.hosts.iter().any(Host::is_rot_overlooked)
    }

    /// Whether those that are right and used are too few to say what is right.
    fn is_no_majority_right(&self) -> bool {
        let right = self.hosts.iter().filter(|host| !host.dead && !host.is_spoilt()).count();
        2 * right <= self.hosts.len()
    }

    /// How long something took, in a cluster that is whole: where nodes are dead, the others are slower, and how many
    /// are is chance.
    fn pace(&mut self, name: &'static str, time: u64) {
        if self.hosts.iter().all(|host| !host.dead) {
            self.report.pace(name, 1, time);
        }
    }

    /// The cores of the nodes that are not dead.
    fn living(&self) -> impl Iterator<Item = &Raft> {
        self.hosts.iter().filter_map(|host| host.up.as_ref()).map(Running::raft)
    }

    pub(super) fn agree(world: &World) -> bool {
        let commit = world.ghost.committed();
        world.clients.idle()
            && world.hosts.iter().filter(|host| !host.dead).all(|host| {
                let stands = |up: &Running| up.raft().last().index == commit && up.raft().commit() == commit;
                host.up.as_ref().is_some_and(|up| stands(up) && (host.fenced || up.applied() == commit))
            })
    }

    /// No new faults; every node that can runs.
    fn calm(&mut self) -> Verdict {
        self.healed = true;
        self.tell(|| "all faults end".to_owned());
        self.plan.heal();
        self.upgrade_all();
        self.end_copies();
        self.end_asking();
        self.end_corner();
        for node in 0..self.hosts.len() {
            let host = &mut self.hosts[node];
            host.frozen_until = 0;
            host.disk.clear_faults();
            host.faulty = false;
            if self.plan.changes && host.damaged {
                let mut dice = self.chance.plain(21, node, self.now);
                self.wipe_now(node, &mut dice)?;
            } else if host.damaged || host.put_back {
                // It would stop sooner or later, whenever it looked at the place; or nobody talks to it.
                host.up = None;
                host.dead = true;
                self.clients.on_crash(node);
            }
            self.set_clock(node, 1000, 0);
            if self.hosts[node].up.is_none() && !self.starts_soon(node) {
                self.start(node)?;
            }
        }
        Ok(())
    }

    /// How long whoever lags the most takes to catch up: it may be sent one entry at a time, a round trip for each.
    fn catching_up(&self) -> u64 {
        let last = self.living().map(|raft| raft.last().index.0).max().unwrap_or_default();
        let least = self.living().map(|raft| raft.commit().0).min().unwrap_or_default();
        last.saturating_sub(least) * 50 * MS
    }

    /// A partition that lasts, and leaves one node with an up-to-date log a quorum.
    fn siege(&mut self) -> Verdict {
        let size = self.hosts.len();
        let Some(mut dice) = self.chance.happens(Kind::Siege, 0, self.plan.siege) else { return Ok(()) };
        // A quorum that has never heard of the membership elects nobody.
        if size < 3
            || self.ghost.committed() == Index::ZERO
            || self.hosts.iter().any(|host| host.dead || host.is_spoilt())
        {
            return Ok(());
        }
        self.until("S20", 10 * ELECTION, "all nodes started", |world| world.living().count() == size)?;
        let node = dice.below(size as u64) as usize;
        let other = (node + 1 + dice.below(size as u64 - 1) as usize) % size;
        let shape = dice.below(5);
        if shape == 3 {
            return self.hang();
        }
        if shape == 4 {
            return self.hang_followers();
        }
        let newest = (0..size).map(|node| self.ghost.last(node)).max().unwrap_or_default();
        let best: Vec<usize> = (0..size).filter(|&node| self.ghost.last(node) == newest).collect();
        let best = *dice.pick(&best);
        let inside = |at: usize| (at + size - node) % size <= size / 2;
        self.network.cut_where(|from, to| match shape {
            // A majority keeps together.
            0 => inside(from) != inside(to),
            // One link is gone.
            1 => (from, to) == (node, other) || (from, to) == (other, node),
            // A star: only the node with the newest log hears all.
            _ => from != best && to != best,
        });
        for a in 0..size {
            for b in 0..a {
                if self.network.cut[a][b] {
                    self.network.reset(a, b);
                    self.disconnect(a, b);
                }
            }
        }
        self.tell(|| format!("a partition that lasts, of shape {shape} around {} ({})", node + 1, best + 1));
        let before = self.ghost.committed();
        let began = self.now;
        // The quorum may need the one that lags.
        let (patience, behind) = (60 * ELECTION, self.catching_up());
        self.until("L7", patience + behind, "a leader that commits in a partition with a quorum", |world| {
            world.ghost.committed() > before
        })?;
        if behind < patience {
            self.report.pace("besieged", 1, (self.now - began) / MS);
        }
        self.met.count(Rare::Besieged);
        Ok(())
    }

    /// The leader's disk hangs, though nothing else is wrong: somebody else takes over (OV-4).
    fn hang(&mut self) -> Verdict {
        self.network.cut_where(|_, _| false);
        self.until("L1", 20 * ELECTION, "a leader", |world| world.living().any(Raft::is_leader))?;
        let leads =
            |host: &Host| host.up.as_ref().filter(|up| up.raft().is_leader()).map(|up| up.raft().term());
        let Some(leader) = (0..self.hosts.len()).max_by_key(|&node| leads(&self.hosts[node])) else {
            return Ok(());
        };
        self.tell(|| format!("the disk of the leader {} hangs", leader + 1));
        self.hosts[leader].hung = true;
        self.pass(5 * ELECTION)?;
        let before = self.clients.acknowledged();
        let result = self.until("L3", 15 * ELECTION, "a write acknowledged beside a hung disk", |world| {
            world.clients.acknowledged() > before
        });
        self.hosts[leader].hung = false;
        // What it was given meanwhile gets done now, and not when the hanging disk would have come to it.
        let run = self.hosts[leader].run;
        self.at(MS, Happening::Written { node: leader, run });
        result
    }

    /// The disks of all followers hang, though nothing else is wrong: they still hear their leader, and it hears
    /// them, so that it stays (OV-4, L6).
    fn hang_followers(&mut self) -> Verdict {
        self.network.cut_where(|_, _| false);
        // What was held may still bring a newer term.
        self.pass(11 * ELECTION)?;
        self.until("L1", 20 * ELECTION, "a leader in a durable term that all follow", |world| {
            let hosts = world.hosts.iter().enumerate();
            let mut leaders = hosts.map(|(node, host)| {
                let raft = host.up.as_ref().map(Running::raft)?;
                raft.leader().filter(|_| raft.hard_state() == world.ghost.durable(node).1)
            });
            let first = leaders.next().flatten();
            first.is_some() && leaders.all(|leader| leader == first)
        })?;
        let stands = |world: &World| world.living().find(|raft| raft.is_leader()).map(Raft::status);
        let Some(Status { me, term, .. }) = stands(self) else { return Ok(()) };
        self.tell(|| format!("the disks of all but the leader {} hang", me.id));
        self.hosts.iter_mut().filter(|host| host.me != me).for_each(|host| host.hung = true);
        self.pass(5 * ELECTION)?;
        for node in 0..self.hosts.len() {
            if std::mem::take(&mut self.hosts[node].hung) {
                let run = self.hosts[node].run;
                self.at(MS, Happening::Written { node, run });
            }
        }
        self.met.count(Rare::FollowersHung);
        match stands(self).filter(|now| (now.me, now.term) == (me, term)) {
            Some(_) => Ok(()),
            None => broken("L6", format!("leader {} of {term} was deposed while other disks hung", me.id)),
        }
    }

    /// L6: a healthy leader stays, once the last message that was held has arrived; also when a node
    /// comes back that was alone.
    fn stay(&mut self) -> Verdict {
        self.pass(11 * ELECTION)?;
        let term = |world: &World| world.living().map(Raft::term).max();
        let before = term(self);
        let size = self.hosts.len();
        let follower =
            (0..size).find(|&node| self.hosts[node].up.as_ref().is_some_and(|up| !up.raft().is_leader()));
        if let Some(alone) = follower
            && self.living().count() - 1 > size / 2
        {
            self.network.cut_where(|from, to| (from == alone) != (to == alone));
            self.pass(4 * ELECTION)?;
            self.network.cut_where(|_, _| false);
            self.met.count(Rare::Returned);
        }
        self.pass(5 * ELECTION)?;
        if term(self) != before {
            return broken("L6", format!("a healthy leader was deposed: {before:?} became {:?}", term(self)));
        }
        self.until("L2", 20 * ELECTION, "equal machines after a return", World::agree)
    }

    pub(super) fn pass(&mut self, time: u64) -> Verdict {
        let until = self.now + time;
        while self.now < until {
            self.happen()?;
        }
        Ok(())
    }

    pub(super) fn until(
        &mut self,
        invariant: &'static str,
        bound: u64,
        what: &str,
        mut holds: impl FnMut(&World) -> bool,
    ) -> Verdict {
        let until = self.now + bound;
        while !holds(self) {
            if self.now > until {
                let states: Vec<String> = self.hosts.iter().map(Host::describe).collect();
                let (time, states) = (bound / MS / 1000, states.join("; "));
                return broken(invariant, format!("no {what} after {time} s: {states}"));
            }
            self.happen()?;
        }
        Ok(())
    }
}
