//! The leader's care for voters that are gone for good: [`Config::replace_dead_after`](crate::Config::replace_dead_after).

use crate::config::TICK;
use crate::error::in_full;
use crate::inner::Inner;
use crate::members::MemberChange;
use coracle_core::{NodeId, PeerStatus, Status};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::sleep;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(1);

/// How long the leader waits for the change. What was not done then is tried again.
const LIMIT: Duration = Duration::from_secs(10);

/// Replaces voters that are silent for too long, until the node ends.
pub(crate) async fn look_after(inner: Arc<Inner>) {
    let Some(limit) = inner.config.replace_dead_after else { return };
    let mut ending = inner.ending.clone();
    let looks = async {
        loop {
            sleep(PAUSE.min(limit)).await;
            if inner.leader.borrow().as_ref().is_none_or(|leader| leader.id != inner.me.id) {
                continue;
            }
            let Ok(status) = inner.status().await else { return };
            if let Some((dead, ready)) = exchange(&status.raft, limit) {
                replace(&inner, &status.raft, dead, ready).await;
            }
        }
    };
    tokio::select! {
        () = looks => {}
        _ = ending.wait_for(Option::is_some) => {}
    }
}

async fn replace(inner: &Inner, status: &Status, dead: NodeId, ready: NodeId) {
    let Some(address) = status.membership.members.get(&ready).map(|member| member.address.clone()) else {
        return;
    };
    let node = inner.me.id;
    // In one joint change; the core refuses it where too few of those who would vote answer.
    match inner.change_members(MemberChange::Replace { old: dead, new: ready, address }, LIMIT).await {
        Ok(_) => {
            tracing::warn!(%node, "node {dead} was silent for too long: node {ready} votes in its place");
        }
        Err(error) => tracing::warn!(
            %node,
            "node {dead} is silent for too long, and node {ready} could not take its place yet: {}",
            in_full(&error)
        ),
    }
}

/// Who is to be replaced, and by whom: a voter that was silent for that long while this node leads, and a learner that
/// answers and has the log but for what came within the last moments.
fn exchange(status: &Status, limit: Duration) -> Option<(NodeId, NodeId)> {
    let membership = &status.membership;
    if membership.is_joint() || status.membership_id.index > status.commit {
        return None;
    }
    let silent = |peer: &PeerStatus| TICK.saturating_mul(u32::try_from(peer.silent_for).unwrap_or(u32::MAX));
    let (voters, learners): (Vec<&PeerStatus>, Vec<&PeerStatus>) =
        status.peers.iter().partition(|peer| membership.voters.contains(&peer.id));
    let dead = voters.into_iter().filter(|peer| silent(peer) >= limit).max_by_key(|peer| peer.silent_for)?;
    let lives =
        |peer: &&PeerStatus| silent(peer) < limit && peer.matched >= status.commit && !peer.lost_entries;
    let ready = learners.into_iter().filter(lives).max_by_key(|peer| peer.matched)?;
    membership.members.contains_key(&ready.id).then_some((dead.id, ready.id))
}
