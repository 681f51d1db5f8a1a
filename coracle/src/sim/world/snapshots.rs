//! The files of snapshots in a simulated world: they take their time, and what is sent of them may be lost.

use super::network::Parcel;
use super::{Happening, World};
use crate::files::Filed;
use crate::sim::chance::Kind;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::Event;
use crate::sim::plan::MS;
use crate::sim::situations::Rare;
use crate::storage::disk::Disk;
use crate::transport::PeerMessage;
use crate::wire;
use bytes::Bytes;
use coracle_core::{Envelope, LogId};

impl World {
    /// Gives the disk what it is to do with snapshots, and judges what was restored from them.
    pub(in crate::sim) fn look_after_files(
        &mut self,
        node: usize,
        restored: &[(LogId, [u8; 16])],
        saves: bool,
    ) -> Verdict {
        // What a rotten machine would write is never restored from: it is replaced, not started again.
        let sound = self.hosts[node].rotten.is_none();
        for (id, digest) in restored {
            let applied = self.ghost.applied(node);
            if id.index <= applied && self.hosts[node].rested {
                // It has failed, and goes on from before that.
                self.hosts[node].told = applied;
                self.ghost.on_gone_back(node, *id);
                self.tell(|| format!("the machine of node {} goes back to {id}", node + 1));
                if *id != LogId::ZERO {
                    self.ghost.on_state(node, *id, *digest)?;
                }
                continue;
            }
            self.met.count(Rare::SnapshotInstalled);
            self.tell(|| format!("node {} takes the state up to {id} from a snapshot", node + 1));
            self.step(11, node, id.index.0);
            // Whatever became of its machine by itself is gone with the old state.
            self.hosts[node].rotten = None;
            self.ghost.on_restored(node, *id, *digest)?;
        }
        let run = self.hosts[node].run;
        if saves {
            let delay = self.chance.within(Kind::SlowDisk, node, 1, 4 * self.plan.disk);
            self.at(delay, Happening::Saved { node, run, sound });
        }
        if let Some(up) = self.hosts[node].up.as_mut().filter(|up| up.files_wait()) {
            up.files_busy = true;
            let delay = self.chance.within(Kind::SlowRead, node, 1, self.plan.load.max(1));
            self.at(delay, Happening::Filed { node, run });
        }
        Ok(())
    }

    pub(in crate::sim) fn on_filed(&mut self, node: usize, run: u64) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Filed { node, run });
            return Ok(());
        }
        let host = &mut self.hosts[node];
        let full = host.disk.is_full();
        let Some(up) = &mut host.up else { return Ok(()) };
        let filed = match up.file() {
            Ok(filed) => filed,
            // A full disk is waited for (ST-5).
            Err(error) if full => return broken("disk", format!("full, node {} stops: {error}", node + 1)),
            Err(error) => return self.on_disk_refused(node, &error),
        };
        if let Some(mut dice) = self.strikes_before_install(node, &filed) {
            self.met.count(Rare::CrashInstalling);
            return self.crash(node, &mut dice);
        }
        for filed in filed {
            if !self.lives(node, run) {
                break;
            }
            self.turn(node, Event::Filed(filed))?;
        }
        if self.lives(node, run) { self.look_after_files(node, &[], false) } else { Ok(()) }
    }

    /// Whether the process ends when a snapshot has come whole, before anybody knows. Mostly where it is durable before
    /// the term in which it came (D5.1.9).
    fn strikes_before_install(&mut self, node: usize, filed: &[Filed]) -> Option<Dice> {
        let kept = filed.iter().find_map(|filed| match filed {
            Filed::Received(kept) => Some(kept.meta.id),
            _ => None,
        })?;
        if self.healed || self.plan.crash == 0 {
            return None;
        }
        let early = kept.term > self.ghost.durable(node).1.term;
        self.met.count_if(early, Rare::SnapshotBeforeTerm);
        self.chance.happens(Kind::Strike, node + 1, if early { 800 } else { 50 })
    }

    pub(in crate::sim) fn on_saved(&mut self, node: usize, run: u64, sound: bool) -> Verdict {
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Saved { node, run, sound });
            return Ok(());
        }
        let file = self.chance.plain(16, node, self.now).bits();
        let host = &mut self.hosts[node];
        let Some(saved) = host.up.as_mut().and_then(|up| up.save(&host.disk, file, sound)) else {
            return Ok(());
        };
        match &saved {
            _ if !sound => {}
            Filed::Saved(Ok(kept)) => {
                let (id, digest) = (kept.meta.id, kept.meta.digest);
                self.met.count(Rare::SnapshotSaved);
                self.tell(|| format!("node {} has a snapshot up to {id}", node + 1));
                self.step(12, node, id.index.0);
                self.ghost.on_state(node, id, digest)?;
            }
            Filed::Saved(Err(error)) => {
                let bitten = host.faulty && host.disk.clear_faults();
                if !bitten && !host.damaged {
                    return broken("disk", format!("node {} cannot write a snapshot: {error}", node + 1));
                }
                host.faulty &= !bitten;
            }
            _ => {}
        }
        self.turn(node, Event::Filed(saved))
    }

    /// Purges a node's log, if that is due.
    pub(in crate::sim) fn purge(&mut self, node: usize) -> Verdict {
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        let purged = match up.purge() {
            Ok(purged) => purged,
            Err(error) => return self.on_disk_refused(node, &error),
        };
        if let Some(upto) = purged {
            self.met.count(Rare::Purged);
            let recycled =
                self.hosts[node].disk.list().is_ok_and(|names| names.iter().any(|n| n.starts_with("spare")));
            self.met.count_if(recycled, Rare::Recycled);
            self.step(10, node, upto.index.0);
            self.tell(|| format!("node {} purges its log up to {upto}", node + 1));
        }
        Ok(())
    }

    /// Sends a piece of a snapshot, which may be lost and may come twice, as any message.
    pub(in crate::sim) fn send_piece(&mut self, from: usize, envelope: Envelope, bytes: Bytes) {
        self.report.messages += 1;
        let Some(to) = self.reached(from, envelope.to.id) else { return };
        let link = (from + 1) * 10 + to + 1;
        let said = envelope.message.to_string();
        let lost = self.network.cut[from][to]
            || !self.connects(from, to)
            || self.chance.happens(Kind::Drop, link, self.plan.drop).is_some();
        if lost {
            self.met.count(Rare::SnapshotLost);
            self.tell(|| format!("lost: node {} to {}: {said}", from + 1, to + 1));
            return;
        }
        let copies = match self.chance.happens(Kind::Duplicate, link, self.plan.duplicate) {
            Some(mut dice) => dice.within(2, 3),
            None => 1,
        };
        let runs = (self.hosts[from].run, self.hosts[to].run);
        let connection = self.network.connection[from][to];
        let (cluster, names) = self.handshake(from, to);
        let bytes = wire::encode(&PeerMessage::Piece { envelope, bytes }).to_bytes();
        for _ in 0..copies {
            let delay = self.chance.within(Kind::Delay, link, MS / 5, self.plan.latency.max(MS));
            let parcel = Parcel { from, to, runs, connection, cluster, names, bytes: bytes.clone() };
            self.at(delay, Happening::Deliver(parcel));
        }
    }

    pub(in crate::sim) fn on_piece(&mut self, parcel: &Parcel, message: PeerMessage) -> Verdict {
        let Parcel { from, to, connection, cluster, names, .. } = *parcel;
        let PeerMessage::Piece { envelope, .. } = &message else { return Ok(()) };
        if connection != self.network.connection[from][to] || self.hosts[to].up.is_none() {
            return Ok(());
        }
        self.met.count(Rare::SnapshotPiece);
        self.step(2, to, parcel.bytes.len() as u64);
        self.tell(|| format!("node {} to {}: {}", from + 1, to + 1, envelope.message));
        self.hand(from, to, cluster, names, message)
    }
}
