//! Timers: what fires, and that a leader has it fire in time.

use super::World;
use crate::entry::{Entry, Kind};
use crate::proposal::Proposal;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::machine::Kv;
use crate::sim::plan::MS;
use crate::sim::situations::Rare;
use crate::state_machine::StateMachine;
use coracle_core::LogId;

impl World {
    /// A machine was given an entry, and these timers fired.
    pub(in crate::sim) fn watch_fired(
        &mut self,
        node: usize,
        entry: &Entry,
        effect: bool,
        fired: &[u64],
    ) -> Verdict {
        let stamp = entry.stamp();
        let proposal = Proposal::read(entry.kind(), stamp.session, stamp.sequence, &entry.payload());
        let command = proposal.as_ref().and_then(Proposal::command).filter(|_| effect);
        let ask = command.and_then(|command| Kv::decode_command(command).ok());
        self.met.count_if(!fired.is_empty(), Rare::TimerFired);
        self.met.count_if(fired.len() > 1, Rare::TimersFired);
        self.met.count_if(entry.kind() == Kind::Timer && fired.is_empty(), Rare::TimerVoid);
        if self.plan.effects > 0 {
            self.effects.on_applied(entry, ask.as_ref(), fired);
        }
        self.timers.on_applied(node, entry, ask.as_ref(), fired)
    }

    /// The newest entry that the machine of this leader has applied, if a timer of it is due and it is to write an entry for
    /// that at its next tick.
    pub(in crate::sim) fn has_to_fire(&self, node: usize) -> Option<LogId> {
        let up = self.hosts[node].up.as_ref().filter(|_| self.turns[node].is_none())?;
        let now = self.hosts[node].clock.moment(self.now);
        let (raft, progress) = (up.raft(), up.driver.progress());
        let ready = raft.is_leader()
            && !raft.holds_proposals()
            && up.driver.no_space().is_none()
            && up.driver.machine_stop().is_none()
            && progress.applied.term == raft.term();
        let (due, _) = progress.due.filter(|_| ready)?;
        (due <= up.driver.replica().cluster_time(now)).then_some(progress.applied)
    }

    /// It had a tick, and must have written one, whatever else waits (S30).
    pub(in crate::sim) fn watch_firing(&mut self, node: usize, applied: Option<LogId>) -> Verdict {
        let (Some(applied), Some(up)) = (applied, &self.hosts[node].up) else { return Ok(()) };
        let raft = up.raft();
        let gone = !raft.is_leader() || raft.term() != applied.term || raft.holds_proposals();
        if gone || self.turns[node].is_some() || self.ghost.has_timer_after(node, applied.index) {
            return Ok(());
        }
        broken(
            "S30",
            format!(
                "leader {} has a timer that is due, has applied {applied}, and at {} ms has nothing fire",
                node + 1,
                self.now / MS
            ),
        )
    }
}
