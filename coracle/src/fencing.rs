//! Machines that are not alike, as the driver acts on it (D5.1.14): each node finds out about its own machine, and
//! one that differs from that of a majority is fenced. What is compared is in [`digests`](crate::digests).

use crate::driver::Driver;
use crate::replica::Event;
use crate::work::{Order, Waits, Work};
use coracle_core::{Digest, Index, Peer};

impl<W: Waits, R: Waits> Driver<W, R> {
    /// Its links are authenticated: what peers say of machines is acted on.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn authenticated(mut self) -> Driver<W, R> {
        self.authenticated = true;
        self
    }

    /// In an earlier boot its machine turned out to differ from that of a majority, there.
    pub(crate) fn fenced_at(mut self, index: Option<Index>) -> Driver<W, R> {
        if let Some(index) = index {
            self.fence(index);
        }
        self
    }

    /// A member says what its machine looks like. What others say would take memory and mean nothing.
    pub(crate) fn on_digest(&mut self, of: Peer, digest: Digest) {
        let raft = self.replica.raft();
        if !raft.membership().contains(of) || !self.digests.report(of, digest) {
            return;
        }
        if raft.is_leader() {
            let (findings, right) = self.digests.compare(raft.membership(), digest.index);
            self.actions.findings.extend(findings);
            let own =
                self.digests.newest(raft.me()).filter(|_| raft.broken().is("leader-holds-itself-right"));
            if let Some(right) = own.or(right) {
                self.digests.agree(right);
            }
        }
        self.look_at_own();
    }

    /// A leader says what the machines of a majority look like.
    pub(crate) fn on_agreed(&mut self, right: Digest) {
        self.digests.agree(right);
        self.look_at_own();
    }

    /// Whoever finds that its own machine differs from that of a majority uses it no more (D5.1.14), from now
    /// on and after every start.
    fn look_at_own(&mut self) {
        let (me, broken) = (self.replica.raft().me(), self.replica.raft().broken());
        let Some(index) = self.digests.compare_own(me) else { return };
        self.actions.findings.extend(self.digests.name(me.id, index));
        if self.authenticated && self.fenced.is_none() && !broken.is("diverged-not-fenced") {
            self.give_up_machine(index);
        }
    }

    /// The machine is not to be used any more, from now on and after every start.
    pub(crate) fn give_up_machine(&mut self, index: Index) {
        if !self.raft().broken().is("fence-not-durable") {
            self.actions.orders.push(Order::Fence(index));
        }
        self.fence(index);
    }

    fn fence(&mut self, index: Index) {
        self.fenced = Some(index);
        self.events.push(Event::Fence);
        self.actions.work.push(Work::Fence);
    }
}
