//! Machines that are not what they were: who notices, who is not used for that, and how they are rebuilt.

use super::World;
use crate::digests::Finding;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::Event;
use crate::sim::plan::ELECTION;
use crate::sim::situations::Rare;
use coracle_core::NodeId;

impl World {
    /// What a machine holds changes by itself: at a minority of the nodes, and so that only a comparison shows it. Or an
    /// operator has one rebuilt, be it right or not.
    pub(super) fn rot(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let spoilt = self.spoilt();
        let own_disk = self.plan.own_disk;
        let host = &mut self.hosts[node];
        if host.fenced {
            return self.turn(node, Event::Rebuild);
        }
        if host.is_spoilt() || host.twin.is_some() || spoilt >= (self.plan.nodes - 1) / 2 {
            return Ok(());
        }
        let Some(up) = &mut host.up else { return Ok(()) };
        // (What rots in memory would be kept on a disk of its own.)
        if dice.chance(200) || own_disk {
            host.wrong = true;
            return self.turn(node, Event::Rebuild);
        }
        up.applier.rot(dice.bits() | 1);
        (host.rotten, host.rotted, host.wrong) = (Some(up.applied()), true, true);
        self.met.count(Rare::Rotten);
        self.tell(|| format!("the machine of node {} rots", node + 1));
        Ok(())
    }

    /// Only a machine that rotted is told from others, and whoever knows it of his own does not use it.
    pub(super) fn watch_fence(&self, node: usize, findings: &[Finding], uses: bool) -> Verdict {
        let rotted = |id: NodeId| self.node(id).is_some_and(|node| self.hosts[node].rotted);
        // What two nodes said that rotted one after the other may leave no majority.
        let sound = self.hosts.iter().filter(|host| !host.rotted).count();
        let split = sound <= self.hosts.len() / 2;
        for finding in findings {
            let true_word = match finding {
                Finding::Differs(id, _) => rotted(*id),
                Finding::NoMajority(_) => split,
            };
            if !true_word {
                return broken(
                    "S5",
                    format!("node {} found machines unlike each other: {finding:?}", node + 1),
                );
            }
        }
        let leads = self.hosts[node].up.as_ref().is_some_and(|up| up.raft().is_leader());
        if self.hosts[node].fenced && (uses || leads) {
            return broken(
                "S5",
                format!("node {} goes on with a machine that it knows to be wrong", node + 1),
            );
        }
        Ok(())
    }

    /// A node knows that its machine differs from that of a majority, and has said so durably.
    pub(super) fn on_fenced(&mut self, node: usize, led: bool) -> Verdict {
        self.tell(|| format!("the machine of node {} is fenced", node + 1));
        let host = &mut self.hosts[node];
        host.fenced = true;
        // It may have taken another state since, from a snapshot, and give that up for what the old one looked like.
        if !host.wrong {
            return broken("S5", format!("node {} gives up a machine that is right", node + 1));
        }
        self.met.count(Rare::Fenced);
        self.met.count_if(led, Rare::FencedLeader);
        self.met.count_if(host.rebuilt, Rare::FencedAgain);
        Ok(())
    }

    /// A node uses its machine again, and has said so durably; or could not write that down, and stops.
    pub(super) fn on_mended(&mut self, node: usize, durable: bool) -> Verdict {
        let host = &mut self.hosts[node];
        if !durable {
            host.unsure = true;
            return Ok(());
        }
        if host.rotten.is_some() {
            return broken(
                "S35",
                format!("node {} uses a machine that is wrong as if it were rebuilt", node + 1),
            );
        }
        (host.fenced, host.wrong, host.rebuilt) = (false, false, true);
        self.met.count(Rare::Rebuilt);
        self.tell(|| format!("the machine of node {} is rebuilt", node + 1));
        Ok(())
    }

    /// Whoever said that its machine is wrong knows it after a start. (What failed while it was written down, and stopped
    /// the node, may be there all the same.)
    pub(super) fn watch_start(&mut self, node: usize) -> Verdict {
        let host = &mut self.hosts[node];
        let fenced = host.up.as_ref().is_some_and(|up| up.driver.fenced().is_some());
        let sure = !host.put_back && host.twin.is_none();
        if host.fenced && !fenced && sure && !host.unsure {
            return broken("S5", format!("node {} forgot that its machine is wrong", node + 1));
        }
        if fenced && !host.wrong && sure {
            return broken("S5", format!("node {} gives up a machine that is right", node + 1));
        }
        if host.fenced && !fenced && host.unsure {
            (host.fenced, host.wrong) = (false, false);
        }
        host.unsure = false;
        host.fenced |= fenced;
        self.met.count_if(fenced, Rare::FencedStart);
        Ok(())
    }

    /// S35: in the end every machine that was given up is rebuilt, by itself or by the operator's word.
    pub(super) fn rebuild_all(&mut self) -> Verdict {
        for node in 0..self.hosts.len() {
            if self.hosts[node].fenced && self.hosts[node].up.is_some() {
                self.turn(node, Event::Rebuild)?;
            }
        }
        self.until("S35", 40 * ELECTION, "machine that is right everywhere", |world| {
            world.hosts.iter().all(|host| host.dead || !host.fenced)
        })?;
        self.until("L2", 20 * ELECTION, "equal machines after rebuilds", World::agree)
    }
}
