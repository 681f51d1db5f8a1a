//! The membership knows the newest certificate of each node, so that those before it, and those of nodes that were removed, are
//! nobody's (design rule D5.3.6).
//!
//! The leader writes down what members show on their connections, and what it shows itself. Whoever shows a newer one than
//! is known has renewed its own: only the authority makes those. Until that is committed both are believed.

use crate::inner::Inner;
use crate::requests::Request;
use crate::status::Status;
use crate::wire::MAX_MARKS;
use coracle_core::{Broken, Mark, Membership, NodeId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(250);

/// How long a member waits until it shows its certificate again that the membership does not know yet.
const AGAIN: Duration = Duration::from_secs(2);

/// How long the leader waits for a change of its own. What was not done then is tried again.
const LIMIT: Duration = Duration::from_secs(10);

/// Looks after the certificates of the members, until the node ends.
pub(crate) async fn look_after(inner: Arc<Inner>) {
    let Some(tls) = inner.config.tls.clone() else { return };
    let mut ending = inner.ending.clone();
    let looks = async {
        loop {
            sleep(PAUSE).await;
            let Some(leader) = inner.leader.borrow().clone() else { continue };
            let Ok(Status { raft, .. }) = inner.status().await else { return };
            if leader.id == inner.me.id {
                write_down(&inner, &raft).await;
            } else if raft.membership.marks.get(&inner.me.id).is_none_or(|it| it.issued < tls.mark().issued) {
                // A connection that is there has shown the certificate of before: the leader sees the new one here.
                let _ = timeout(LIMIT, inner.transport.probe(&leader.address, leader.id)).await;
                sleep(AGAIN).await;
            }
        }
    };
    tokio::select! {
        () = looks => {}
        _ = ending.wait_for(Option::is_some) => {}
    }
}

async fn write_down(inner: &Inner, status: &coracle_core::Status) {
    let Some(shown) = inner.transport.marks() else { return };
    let (now, at) = (&status.membership, status.membership_id);
    if now.is_joint() || at.index > status.commit {
        return;
    }
    let Some(to) = marked(now, &shown, Broken::default()) else { return };
    let (answer, answered) = oneshot::channel();
    let request = Request::Change { expected: at, to: Box::new(to), answer };
    if inner.requests.send_always(request).await.is_ok() {
        // Whatever came of it shows at the next look.
        let _ = timeout(LIMIT, answered).await;
    }
}

/// What a membership becomes by the certificates that its members have shown, if anything changes.
pub(crate) fn marked(now: &Membership, shown: &BTreeMap<NodeId, Mark>, broken: Broken) -> Option<Membership> {
    let mut to = now.clone();
    for id in now.members.keys() {
        let Some(mark) = shown.get(id) else { continue };
        let renews = |known: &Mark| known.issued < mark.issued && !broken.is("renewal-not-written-down");
        if now.marks.get(id).is_none_or(renews) {
            to.marks.insert(*id, *mark);
        }
    }
    forget_oldest(&mut to);
    (to != *now).then_some(to)
}

/// Keeps as many certificates as a membership may know of. The oldest of somebody who was removed goes first: it is the next to
/// expire.
pub(crate) fn forget_oldest(of: &mut Membership) {
    while of.marks.len() > MAX_MARKS {
        let removed = of.marks.iter().filter(|(id, _)| !of.members.contains_key(id));
        let Some(oldest) = removed.min_by_key(|(_, mark)| mark.issued).map(|(id, _)| *id) else { return };
        of.marks.remove(&oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::{ClusterId, Incarnation, Member};

    fn member(id: u64) -> Member {
        Member { id: NodeId(id), incarnation: Incarnation(7), address: String::new() }
    }

    fn mark(issued: u64) -> Mark {
        Mark { issued, key: [issued as u8; 32] }
    }

    #[test]
    fn newer_certificates_of_members_are_written_down_and_no_others() {
        let mut now = Membership::of_voters(ClusterId(1), (1..=3).map(member));
        now.marks = [(NodeId(1), mark(5)), (NodeId(9), mark(4))].into();
        let sound = Broken::default();
        let shown = |of: &[(u64, u64)]| of.iter().map(|(id, at)| (NodeId(*id), mark(*at))).collect();
        assert_eq!(marked(&now, &shown(&[(1, 5), (9, 9)]), sound), None, "as it is known, and of no member");
        assert_eq!(marked(&now, &shown(&[(1, 4)]), sound), None, "an older one");
        let to = marked(&now, &shown(&[(1, 6), (2, 1)]), sound).unwrap();
        let marks: Vec<_> = to.marks.iter().map(|(id, mark)| (id.0, mark.issued)).collect();
        assert_eq!(marks, [(1, 6), (2, 1), (9, 4)]);
        assert_eq!((&to.members, &to.voters), (&now.members, &now.voters));
        now.marks = (10..10 + MAX_MARKS as u64).map(|id| (NodeId(id), mark(1))).collect();
        let to = marked(&now, &shown(&[(2, 1)]), sound).unwrap();
        assert_eq!((to.marks.len(), to.marks.contains_key(&NodeId(10))), (MAX_MARKS, false));
    }
}
