//! Who waits for a change of the membership, and when it is over. The core decides what may be changed, and goes through
//! the steps by itself.

use crate::driver::Driver;
use crate::effects::{Event, NotDone};
use crate::work::{Changed, Waits};
use coracle_core::{LogId, Membership};

impl<W: Waits, R: Waits> Driver<W, R> {
    /// A caller, under this name, wants the membership changed that stands at entry `expected`.
    pub(crate) fn on_change(&mut self, caller: u64, expected: LogId, to: Membership) {
        self.events.push(Event::Change(caller, expected, to));
    }

    /// The core took changes into the log, or did not.
    pub(crate) fn on_changes_taken(&mut self, changes: Vec<(u64, Result<LogId, NotDone>)>) {
        for (caller, outcome) in changes {
            match outcome {
                Ok(at) => {
                    // There is one at a time: the one before was taken back, or is over.
                    self.end_change(Changed::Unknown);
                    self.changing = Some((caller, at));
                }
                Err(NotDone::Refused(reason)) => {
                    self.actions.changed.push((caller, Changed::Refused(reason)));
                }
                Err(NotDone::Busy(why)) => self.actions.changed.push((caller, Changed::Busy(why))),
            }
        }
    }

    /// Tells whoever waits that the change is over, or that nobody here can tell any more.
    pub(crate) fn look_after_changes(&mut self) {
        let Some((_, at)) = self.changing else { return };
        let raft = self.replica.raft();
        let (id, membership) = raft.committed_membership();
        if *id >= at && !membership.is_joint() && raft.term_at(at.index).is_none_or(|term| term == at.term) {
            self.end_change(Changed::Done(*id));
        } else if !raft.is_leader() {
            self.end_change(Changed::Unknown);
        }
    }

    fn end_change(&mut self, outcome: Changed) {
        if let Some((caller, _)) = self.changing.take() {
            self.actions.changed.push((caller, outcome));
        }
    }
}
