//! Members that were started at another address than the membership says (D5.3.5).
//!
//! Each node compares at its start, and whenever the membership changes. Its own address counts as another one only if
//! nothing at the membership's address is this very boot of it: two names of one place are no move. The leader takes a
//! new address over, by a change of the membership, once it has found there the very boot that it talks to, and never
//! met that boot at home. Finding each other until then is the transport's work.

use crate::error::in_full;
use crate::inner::{Boxed, Inner};
use crate::members::MemberChange;
use crate::place::Place;
use crate::transport::tcp::ProbeError;
use coracle_core::{NodeId, Peer};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The pause between two looks. 250 ms: a moved member is known within a second, and a look takes a lock and no more.
const PAUSE: Duration = Duration::from_millis(250);

/// How long the leader waits for a change of its own. What was not done then is tried again.
const LIMIT: Duration = Duration::from_secs(10);

/// After how many looks without an answer this node is held to be elsewhere than where the membership says.
const DOUBTS: u32 = 30;

/// After how many looks an address that did not hold is tried again.
const AGAIN: u32 = 8;

/// Looks after the addresses of the members, until the node ends.
pub(crate) async fn look_after(inner: Arc<Inner>) {
    let mut ending = inner.ending.clone();
    let looks = async {
        // What was found out of this node's own address, and for which.
        let (mut own, mut doubts, mut refused) = (None, 0, 0);
        loop {
            sleep(PAUSE).await;
            compare(&inner, &mut own, &mut doubts).await;
            refused = u32::saturating_sub(refused, 1);
            if refused == 0 && leads(&inner) && !take_over(&inner).await {
                refused = AGAIN;
            }
        }
    };
    tokio::select! {
        () = looks => {}
        _ = ending.wait_for(Option::is_some) => {}
    }
}

fn leads(inner: &Inner) -> bool {
    inner.leader.borrow().as_ref().is_some_and(|leader| leader.id == inner.me.id)
}

/// Looks for this node where the membership says that it is, and says so if it is not there.
async fn compare(inner: &Inner, own: &mut Option<String>, doubts: &mut u32) {
    let Some(home) = inner.transport.other_home() else {
        inner.transport.set_away(false);
        return *own = None;
    };
    if own.as_ref() == Some(&home) {
        return;
    }
    let away = match inner.transport.who_is_at(&home).await {
        Ok(who) => who != (inner.me, inner.transport.boot()),
        Err(ProbeError::Nobody(_)) => true,
        // A name that cannot be resolved yet, or a host that does not answer: the node may be there all the same.
        Err(_) => {
            *doubts += 1;
            if *doubts < DOUBTS {
                return;
            }
            true
        }
    };
    *doubts = 0;
    inner.transport.set_away(away);
    if away {
        tracing::warn!(
            node = %inner.me.id,
            "this node is at {}, and the membership says {home}, where it is not: the leader takes the new address over when \
             it has found this node there. If no other node is found, name one by --join",
            inner.transport.advertised()
        );
    }
    *own = Some(home);
}

/// The leader's part. Whether all is well, or was made so.
async fn take_over(inner: &Inner) -> bool {
    let mut well = true;
    for place in moved(inner) {
        let found = timeout(LIMIT, inner.transport.who_is_at(&place.address)).await;
        if !inner.transport.is_there(&place, found.ok().and_then(Result::ok)) {
            well = false;
            continue;
        }
        let Place { peer, address, .. } = place;
        match inner.change_members(MemberChange::Move(peer.id, address.clone()), LIMIT).await {
            Ok(_) => tracing::info!(
                node = %inner.me.id,
                "node {} has moved to {address}, and the membership says so now",
                peer.id
            ),
            Err(error) => {
                well = false;
                tracing::info!(
                    node = %inner.me.id,
                    "node {} has moved to {address}, which could not be put into the membership yet: {}",
                    peer.id,
                    in_full(&error)
                );
            }
        }
    }
    well
}

/// Who is away from home, and where.
fn moved(inner: &Inner) -> Vec<Place> {
    let mut moved = inner.transport.claims();
    if inner.transport.is_away() {
        let (boot, address) = (inner.transport.boot(), inner.transport.advertised());
        moved.push(Place { peer: inner.me, boot, address });
    }
    moved
}

impl Inner {
    /// Asks who is at a peer address. A member that is found there is dialed there too from now on.
    pub(crate) fn meet<'a>(&'a self, address: &'a str) -> Boxed<'a, Result<NodeId, ProbeError>> {
        Box::pin(async move {
            let (peer, boot): (Peer, _) = self.transport.who_is_at(address).await?;
            let place = Place { peer, boot, address: address.to_owned() };
            if peer != self.me && self.transport.look_for(place) {
                tracing::info!(node = %self.me.id, "node {} is looked for at {address}", peer.id);
            }
            Ok(peer.id)
        })
    }
}
