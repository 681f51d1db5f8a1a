//! Entries as a leader makes them: each gets its place, its stamp and its bytes here, and nowhere else.

use super::{Moment, Replica};
use crate::entry::{Entry, Kind, Stamp};
use crate::proposal::Proposal;
use coracle_core::{Index, LogId};

impl<W, R> Replica<W, R> {
    /// Commands are stamped with this version of the machine from now on.
    pub(crate) fn set_machine_version(&mut self, version: u16) {
        self.machine.0 = version;
    }

    /// Makes an entry of what somebody wants written.
    pub(super) fn make_proposed(&mut self, now: Moment, id: LogId, proposal: &Proposal) {
        let (version, self_describing) = if proposal.command().is_some() { self.machine } else { (0, false) };
        let ((session, sequence), (prefix, length)) = (proposal.stamp(), proposal.prefix());
        let cluster_time = self.clock.read(now.millis);
        let stamp = Stamp { cluster_time, wall_time: now.wall, session, sequence, version, self_describing };
        let command = proposal.command().map_or(&[][..], |command| command);
        self.tail.push(Entry::of_two(id, proposal.kind(), stamp, &prefix[..length], command));
    }

    /// Makes an entry of this node's own and adds it to the tail.
    pub(super) fn make(&mut self, now: Moment, id: LogId, kind: Kind, payload: &[u8]) {
        let mut stamp = if id.index == Index(1) {
            // The founder's entry is the same however often it begins anew.
            Stamp::default()
        } else {
            let cluster_time = self.clock.read(now.millis);
            Stamp { cluster_time, wall_time: now.wall, ..Stamp::default() }
        };
        if kind == Kind::Timer {
            (self.fires, stamp.version) = (id, self.machine.0);
        }
        self.tail.push(Entry::new(id, kind, stamp, payload));
    }
}
