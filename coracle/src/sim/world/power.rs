//! Processes that start, stop and crash, and what their disks keep of it.

use super::{Happening, World};
use crate::entry::Entry;
use crate::replica::{Load, Purpose};
use crate::sim::chance::Kind;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::storage::mem_disk::Op;
use coracle_core::{Index, LogId};

impl World {
    pub(in crate::sim) fn start(&mut self, node: usize) -> Verdict {
        if self.hosts[node].up.is_some() || self.hosts[node].dead || self.hosts[node].is_nameless() {
            return Ok(());
        }
        if self.hosts[node].run > 0
            && let Some(mut dice) = self.chance.happens(Kind::Cut, node, self.plan.cut)
        {
            return self.cut_start(node, &mut dice);
        }
        let host = &mut self.hosts[node];
        host.told = Index::ZERO;
        let mut dice = self.chance.plain(5, node, host.newest_run);
        let (recovered, (snapshot, digest)) = match host.start(self.now, &self.plan, &mut dice) {
            Ok(began) => began,
            Err(error) => return self.refuse_start(node, &error, true),
        };
        let run = host.run;
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let first = entries.last().map_or(recovered.purged.index, Entry::index).next();
            if first > recovered.last.index {
                break;
            }
            let load =
                Load { first, last: recovered.last.index, max_bytes: 1 << 20, purpose: Purpose::Apply };
            let Some(up) = &self.hosts[node].up else { break };
            match up.load(&load) {
                Ok(more) => entries.extend(more),
                Err(error) => {
                    self.hosts[node].up = None;
                    return self.refuse_start(node, &error.to_string(), false);
                }
            }
        }
        self.watch_start(node)?;
        self.watch_stop_at_start(node)?;
        self.watch_kept_places(node)?;
        self.step(5, node, recovered.last.index.0);
        self.tell(|| {
            let state = recovered.hard_state;
            format!("node {} starts in term {} with entries up to {}", node + 1, state.term, recovered.last)
        });
        self.met.count_if(recovered.purged != LogId::ZERO, Rare::BeginsLate);
        if run > 1 {
            let known = self.ghost.durable(node).0;
            self.met.count_if(recovered.last.index > known, Rare::TailRewritten);
            let torn = self.hosts[node].torn && recovered.last.index == known;
            self.met.count_if(torn, Rare::TornDropped);
        }
        self.hosts[node].torn = false;
        self.ghost.on_start(node, &recovered, &entries, snapshot)?;
        if snapshot != LogId::ZERO {
            self.ghost.on_state(node, snapshot, digest)?;
        }
        let committed = self.ghost.durable_prefix(node);
        if let Some(up) = &mut self.hosts[node].up {
            up.committed = committed;
        }
        let first = self.chance.plain(6, node, run).below(10 * MS);
        self.at(first, Happening::Tick { node, run });
        Ok(())
    }

    /// The power goes while a process starts.
    fn cut_start(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let host = &mut self.hosts[node];
        let cut = host.disk.operations() + dice.below(32);
        host.disk.fail_from(cut);
        let mut names = self.chance.plain(7, node, host.run);
        let started = host.start(self.now, &self.plan, &mut names).is_ok();
        host.up = None;
        self.met.count_if(!started, Rare::CrashStarting);
        let last = host.disk.trace().get(cut as usize).copied();
        self.met.count_if(!started && last == Some(Op::Write), Rare::CrashCheckpoint);
        self.tell(|| format!("node {} crashes while it starts ({last:?})", node + 1));
        self.lose(node, dice.chance(self.plan.power.max(300)), dice);
        let delay = dice.within(MS, ELECTION);
        self.at(delay, Happening::Start { node });
        Ok(())
    }

    /// A start failed. Of a faulty disk that was to be expected, and it gets better; of a damaged one too,
    /// and it does not. `at_once`: not only what reads all entries noticed it.
    fn refuse_start(&mut self, node: usize, error: &str, at_once: bool) -> Verdict {
        self.tell(|| format!("node {} does not start: {error}", node + 1));
        let host = &mut self.hosts[node];
        if host.faulty && host.disk.clear_faults() {
            host.faulty = false;
            self.at(ELECTION, Happening::Start { node });
            return Ok(());
        }
        if host.damaged {
            host.dead = true;
            self.met.count(Rare::Refused);
            // What a start refuses, the next one must not take for whole.
            for again in 0..if at_once { 2 } else { 0 } {
                let mut dice = self.chance.plain(10, node, again);
                let started = self.hosts[node].start(self.now, &self.plan, &mut dice).is_ok();
                self.hosts[node].up = None;
                if started {
                    let detail =
                        format!("node {} starts on a disk that it refused before: {error}", node + 1);
                    return broken("S20", detail);
                }
            }
            self.met.count_if(at_once, Rare::RefusedTwice);
            return Ok(());
        }
        broken("S20", format!("node {} does not start: {error}", host.me.id))
    }

    /// The disk has refused something, and so the node must stop.
    pub(in crate::sim) fn on_disk_refused(&mut self, node: usize, error: &str) -> Verdict {
        self.tell(|| format!("node {} stops: {error}", node + 1));
        let host = &mut self.hosts[node];
        let bitten = host.faulty && host.disk.clear_faults();
        // A machine that keeps its own disk and has failed is where it was after a start.
        let starts_again = host.stop.is_none() && error.contains("start the node again");
        if !bitten && !host.damaged && !starts_again {
            return broken("disk", format!("node {} stops: {error}", host.me.id));
        }
        host.faulty = false;
        if bitten {
            self.met.count(match host.fault {
                Some(Op::Write) => Rare::WriteFailed,
                Some(Op::Sync) => Rare::SyncFailed,
                Some(_) => Rare::NameFailed,
                None if error.contains("read") => Rare::ReadFailed,
                None => Rare::DiskFull,
            });
        }
        self.step(9, node, u64::from(bitten));
        host_down(self, node);
        let mut dice = self.chance.plain(8, node, self.now);
        let power = dice.chance(self.plan.power);
        self.lose(node, power, &mut dice);
        let delay = dice.within(MS, 4 * ELECTION);
        self.at(delay, Happening::Start { node });
        if dice.chance(500) {
            self.met.count(Rare::StartedTwice);
            let again = delay + dice.within(1, ELECTION / 4);
            let run = self.hosts[node].newest_run + 1;
            self.at(again, Happening::Restart { node, run });
        }
        Ok(())
    }

    /// Ends a process, or its power, in the middle of whatever its disk is doing.
    pub(in crate::sim) fn crash(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let power = dice.chance(self.plan.power);
        // Mostly at the write or the sync of a batch; where the log turns, there are more operations.
        let operations = if dice.chance(600) { dice.below(2) } else { dice.below(8) };
        let delay = dice.within(MS, 4 * ELECTION);
        let host = &mut self.hosts[node];
        let Some(mut up) = host.up.take() else { return Ok(()) };
        self.watch_stop(node, &mut up)?;
        let host = &mut self.hosts[node];
        self.met.count_if(up.driver.rebuilding().is_some(), Rare::RebuildCut);
        let open = up.raft().is_leader() && up.raft().commit() < up.raft().last().index;
        self.met.count_if(open, Rare::LeaderCrash);
        let (state, durable) = (up.raft().hard_state(), self.ghost.durable(node).1);
        let vote = state.vote.filter(|_| state != durable);
        let own = vote.map(|vote| vote.id == host.me.id);
        host.disk.clear_faults();
        host.faulty = false;
        if up.files_are_due() && dice.chance(500) {
            self.met.count(Rare::CrashFiling);
            // Whoever writes snapshots waits for nobody who writes the log.
            host.disk.fail_from(host.disk.operations() + dice.below(16));
            while up.files_are_due() && up.file().is_ok() {}
            host.disk.clear_faults();
        }
        let before = host.disk.operations();
        if up.writing.is_some() {
            self.met.count(Rare::CrashWriting);
            host.torn = true;
            // Some of its operations happen, and the one at which it is cut may happen in part.
            host.disk.fail_from(before + operations);
            // Whether it failed or got through in time: nobody is there to hear of it.
            drop(up.write(self.now));
            let turned = host.disk.trace().iter().skip(before as usize).any(|op| *op == Op::Create);
            self.met.count_if(turned, Rare::CrashTurning);
        } else if up.unsealed.is_some() && dice.chance(500) {
            self.met.count(Rare::CrashSealing);
            host.disk.fail_from(before + operations % 2);
            drop(up.seal());
        }
        drop(up);
        self.met.count(if power { Rare::PowerLoss } else { Rare::ProcessCrash });
        self.lose(node, power, dice);
        self.met.count_if(own == Some(true), Rare::VoteLost);
        self.met.count_if(own == Some(false), Rare::GrantLost);
        host_down(self, node);
        self.step(6, node, u64::from(power));
        self.tell(|| format!("node {} {}", node + 1, if power { "loses its power" } else { "crashes" }));
        self.at(delay, Happening::Start { node });
        Ok(())
    }

    /// A process ends and comes back so soon that its leader does not notice.
    pub(in crate::sim) fn restart(&mut self, node: usize, run: u64) -> Verdict {
        if self.healed || !self.lives(node, run) {
            return Ok(());
        }
        let mut dice = self.chance.plain(9, node, run);
        self.crash(node, &mut dice)?;
        self.at(dice.within(1, 20 * MS), Happening::Start { node });
        Ok(())
    }

    /// What the disk keeps once the process is gone.
    fn lose(&mut self, node: usize, power: bool, dice: &mut Dice) {
        let odds: u64 = *dice.pick(&[0, 300, 700, 1000]);
        let disk = &mut self.hosts[node].disk;
        if power {
            // Nothing relies on sectors: checksums alone tell what is whole.
            let sector = *dice.pick(&[64, 512, 4096]);
            // A disk that writes in order keeps the front of what it was given: a header without its body.
            let (in_order, mut so_far) = (dice.chance(500), true);
            *disk = disk.power_cut(sector, || {
                let survives = dice.chance(odds);
                so_far &= survives;
                if in_order { so_far } else { survives }
            });
        } else {
            // The page cache outlives the process.
            disk.clear_faults();
        }
    }
}

/// The process is gone, and with it its connections.
fn host_down(world: &mut World, node: usize) {
    let host = &mut world.hosts[node];
    host.up = None;
    host.frozen_until = 0;
    for other in (0..world.hosts.len()).filter(|other| *other != node) {
        world.disconnect(node, other);
    }
    world.clients.on_crash(node);
    let up = world.hosts.iter().filter(|host| host.up.is_some()).count();
    world.met.count_if(up == 0, Rare::AllDown);
    world.met.count_if(up <= world.hosts.len() / 2, Rare::QuorumDown);
}
