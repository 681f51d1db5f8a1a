//! The judge's own record of certificates: which are nobody's by each membership, whatever that itself says (S37).

use super::{Ghost, Verdict, broken};
use coracle_core::{LogId, Mark, Membership, NodeId};
use std::collections::BTreeMap;

/// Of each name, the second before which, or, of a node that was removed, up to which all certificates are nobody's.
pub(super) type Floors = BTreeMap<NodeId, u64>;

/// What follows from those of the membership before. A certificate that was known once is not forgotten, and no older one
/// becomes good; but that with which a node comes back on another disk may stay.
pub(super) fn floors_of(before: Option<(&Membership, &Floors)>, next: &Membership) -> Floors {
    let mut floors = before.map(|(_, floors)| floors.clone()).unwrap_or_default();
    for (id, Mark { issued, .. }) in &next.marks {
        let floor = floors.entry(*id).or_default();
        let goes = before.is_some_and(|(before, _)| lowers(before, next, *id));
        *floor = (*issued).max(floor.saturating_sub(u64::from(goes)));
    }
    floors
}

/// Whether this disk goes, and another one may come with its certificate.
fn lowers(before: &Membership, next: &Membership, id: NodeId) -> bool {
    before.members.contains_key(&id) && !next.members.contains_key(&id)
}

impl Ghost {
    /// What a leader makes of the certificates.
    pub(super) fn judge_marks(
        &self,
        leader: usize,
        at: LogId,
        before: &Membership,
        next: &Membership,
    ) -> Verdict {
        let (name, floors) = (self.ids[leader], self.memberships.floors(at));
        let floor = |id: &NodeId| {
            let floor = floors.get(id).copied().unwrap_or_default();
            floor - u64::from(floor > 0 && lowers(before, next, *id))
        };
        let known = |id: &NodeId| next.marks.get(id).map_or(0, |mark| mark.issued);
        match floors.keys().find(|id| known(id) < floor(id)) {
            Some(id) => {
                let detail =
                    format!("leader {name} has certificates of node {id} be good again that were not");
                broken("S37", detail)
            }
            None => Ok(()),
        }
    }

    /// A node has believed a certificate: by the newest membership that it has taken into its log it is somebody's. Of a log that
    /// a snapshot has just replaced on disk it may not have heard yet.
    pub(in crate::sim) fn judge_certificate(
        &self,
        node: usize,
        newest: (LogId, &Membership),
        id: NodeId,
        mark: Mark,
    ) -> Verdict {
        let (at, newest) = newest;
        let Some(floor) = self.memberships.floors(at).get(&id) else { return Ok(()) };
        let member = newest.all().any(|member| member.id == id);
        if mark.issued > *floor || (member && mark.issued == *floor) {
            return Ok(());
        }
        let (name, issued) = (self.ids[node], mark.issued);
        let what = if member { "was replaced" } else { "is that of a node that was removed" };
        broken(
            "S37",
            format!("node {name} believes a certificate of node {id}, of {issued}, that {what} ({floor})"),
        )
    }
}
