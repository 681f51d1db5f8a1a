//! Whose certificates were seen, and which of them the newest membership knows (D5.3.6).

use super::super::certificate::Known;
use super::{Shared, State};
use crate::wire;
use coracle_core::{Broken, Mark, Membership, NodeId, Peer};
use std::collections::BTreeMap;

impl Shared {
    /// The own certificate, and the newest that members have shown. None if a member that is connected knows of no marks, or
    /// nothing is encrypted.
    pub(in crate::transport) fn marks(&self) -> Option<BTreeMap<NodeId, Mark>> {
        let own = self.config.tls.as_ref()?.mark();
        let state = self.state();
        let mut members = state.links.values().filter(|link| state.is_member(link.peer));
        if members.any(|link| link.who.features & wire::MARKS == 0) {
            return None;
        }
        Some(state.shown.with(self.me.id, own))
    }

    /// Somebody has shown this certificate. It counts if it is a member's, on its disk: that of a double, which will not be
    /// let in, must not take the member's place.
    pub(in crate::transport) fn has_shown(&self, peer: Peer, mark: Mark) {
        let mut state = self.state();
        if state.is_member(peer) {
            state.shown.take(peer.id, mark);
        }
    }

    /// The newest certificate that this member has shown.
    pub(in crate::transport) fn shown_by(&self, id: NodeId) -> Option<Mark> {
        self.state().shown.of(id)
    }

    /// The newest membership says who is a member, and by which certificate.
    pub(super) fn knows(&self, state: &mut State, membership: &Membership) {
        let State { members, shown, .. } = state;
        shown.keep(membership);
        if let Some(tls) = &self.config.tls {
            let members = members.keys().copied().collect();
            tls.set_known(Known { marks: membership.marks.clone(), members, broken: Broken::default() });
        }
    }
}
