//! A node that finds its cluster by itself, whichever start this is of it ([`Config::join`](crate::Config::join)), and the
//! leader's part in that.
//!
//! - A node that *has* a cluster looks for members at the addresses that it was given: so a node that was moved finds
//!   others that were moved too. Once it knows a leader there is nothing left to do.
//! - A blank node that meets a cluster asks to be taken in, at the leader: it learns, and then votes. That it asked is noted
//!   in its directory, so that a restart in between goes on; what an operator demoted is left alone. If the cluster knows
//!   its name on another disk, its disk was wiped: the old one is removed first, and what it has forgotten is not counted.
//! - With [`Config::found`](crate::Config::found), nodes that are all blank form a cluster: the one of the lowest name founds
//!   it, once all of them have answered. That no two are founded is the founding's own work ([`founding`](crate::founding)).

use crate::error::{ChangeError, in_full};
use crate::founding::proposal;
use crate::inner::Inner;
use crate::members::MemberChange;
use crate::status::Status;
use crate::storage::disk::Disk;
use crate::storage::{StoreError, newcomer};
use crate::transport::Newcomer;
use crate::wire::{Answer, Ask, Objection, Step};
use coracle_core::{ClusterId, Member, Membership, NodeId, Peer};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// The pause between two looks around.
const PAUSE: Duration = Duration::from_millis(500);

/// How long another node may take to say who it is.
const LOOK: Duration = Duration::from_secs(2);

/// How long the leader works at it before it says what it waits for; an answer may take twice as long.
const LIMIT: Duration = Duration::from_secs(5);

/// From how many nodes one goes on to whom they say that leads, before it looks around again.
const HOPS: usize = 3;

/// After how many looks in vain the log says again why.
const SAID: u32 = 20;

/// Goes on until the node has its place and knows a leader, or ends.
pub(crate) async fn look_after(inner: Arc<Inner>, disk: Option<Arc<dyn Disk>>) {
    if inner.config.join.is_empty() {
        return;
    }
    let mut ending = inner.ending.clone();
    let mut newcomer = Joiner { inner: &inner, disk, asks: None };
    tokio::select! {
        () = newcomer.run() => {}
        _ = ending.wait_for(Option::is_some) => {}
    }
}

/// Somebody who was met at one of the addresses.
struct Met {
    address: String,
    peer: Peer,
    cluster: Option<ClusterId>,
}

struct Joiner<'a> {
    inner: &'a Inner,
    disk: Option<Arc<dyn Disk>>,
    /// Whether it has asked to be taken in, and does not vote yet, once that was looked up.
    asks: Option<bool>,
}

impl Joiner<'_> {
    async fn run(&mut self) {
        let (mut vain, mut said) = (0_u32, String::new());
        while let Err(why) = self.look().await {
            if why != said || vain.is_multiple_of(SAID) {
                tracing::info!(node = %self.inner.me.id, "joining: {why}");
                said = why;
            }
            vain += 1;
            sleep(PAUSE).await;
        }
    }

    /// Looks around once. An error says what is waited for.
    async fn look(&mut self) -> Result<(), String> {
        let status = self.inner.status().await.map_err(|reason| reason.to_string())?;
        let (met, silent) = self.meet().await;
        let others = || met.iter().filter(|met| met.peer != self.inner.me);
        if status.cluster.is_some() {
            for met in others() {
                let _ = self.inner.meet(&met.address).await;
            }
            if self.asks().await? {
                return self.ask_in(others()).await;
            }
            return settled(&status);
        }
        if others().any(|met| met.cluster.is_some()) {
            self.note(true).await?;
            return self.ask_in(others()).await;
        }
        let silent = if silent.is_empty() { String::new() } else { format!(" ({})", silent.join("; ")) };
        if !self.inner.config.found {
            return Err(format!("none of {} has a cluster{silent}", self.inner.config.join.join(", ")));
        }
        let list = founders(&met, self.inner.config.join.len(), self.inner.me.id);
        match list.map_err(|why| format!("{why}{silent}"))? {
            Some(list) => {
                self.inner.bootstrap(list).await.map_err(|error| in_full(&error))?;
                Err("a leader is to be elected".to_owned())
            }
            None => Err("the node of the lowest name founds the cluster".to_owned()),
        }
    }

    /// Asks at every address who is there. Who answers, and what became of the others.
    async fn meet(&self) -> (Vec<Met>, Vec<String>) {
        let (mut met, mut silent) = (Vec::new(), Vec::new());
        for address in &self.inner.config.join {
            match timeout(LOOK, self.who_is_at(address)).await {
                Ok(Ok(found)) => met.push(found),
                Ok(Err(why)) => silent.push(why),
                Err(_) => silent.push(format!("{address} did not answer within {LOOK:?}")),
            }
        }
        (met, silent)
    }

    async fn who_is_at(&self, address: &str) -> Result<Met, String> {
        let transport = &self.inner.transport;
        let (peer, _) = transport.who_is_at(address).await.map_err(|error| in_full(&error))?;
        let cluster = if peer == self.inner.me {
            None
        } else {
            transport.probe(address, peer.id).await.map_err(|error| in_full(&error))?.cluster
        };
        Ok(Met { address: address.to_owned(), peer, cluster })
    }

    /// Asks the leader of the cluster that some of these have to let this node in.
    async fn ask_in(&mut self, others: impl Iterator<Item = &Met>) -> Result<(), String> {
        let Inner { transport, config, me, .. } = self.inner;
        let address = transport.advertised();
        if address.is_empty() {
            return Err(
                "this node listens on every address of its host, and must be told by Config::advertised \
                        where the others are to dial it"
                    .to_owned(),
            );
        }
        let list = proposal([Member { id: me.id, incarnation: me.incarnation, address }]);
        let token = config.join_token.as_ref().map(|token| token.bytes().clone()).unwrap_or_default();
        let ask = Ask { step: Step::Join, list, round: 0, token };
        let mut why = "nobody who has a cluster answers".to_owned();
        for met in others.filter(|met| met.cluster.is_some()) {
            let (mut address, mut peer) = (met.address.clone(), met.peer);
            for _ in 0..HOPS {
                match transport.ask(&address, peer, &ask).await {
                    Ok(Answer::Joined) => {
                        self.note(false).await?;
                        tracing::info!(node = %self.inner.me.id, "joined the cluster");
                        return Ok(());
                    }
                    Ok(Answer::Refused(_, Objection::NotLeader(leader))) => {
                        let found = timeout(LOOK, transport.who_is_at(&leader)).await;
                        let Ok(Ok((leads, _))) = found else {
                            why = format!("the leader, at {leader}, does not answer");
                            break;
                        };
                        (address, peer) = (leader, leads);
                    }
                    // Another may know better: this one may be cut off, or have been removed.
                    Ok(Answer::Refused(node, Objection::Other(text))) => {
                        why = format!("node {node} says: {text}");
                        break;
                    }
                    Ok(_) => {
                        why = format!("the answer of {address} makes no sense");
                        break;
                    }
                    Err(error) => {
                        why = in_full(&error);
                        break;
                    }
                }
            }
        }
        Err(why)
    }

    async fn asks(&mut self) -> Result<bool, String> {
        if let Some(asks) = self.asks {
            return Ok(asks);
        }
        let asks = self.on_disk(newcomer::is_noted).await?.unwrap_or_default();
        self.asks = Some(asks);
        Ok(asks)
    }

    async fn note(&mut self, asks: bool) -> Result<(), String> {
        self.on_disk(move |disk| newcomer::note(disk, asks)).await?;
        self.asks = Some(asks);
        Ok(())
    }

    /// Off this thread, which is that of consensus. None where there is no disk.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Disk) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, String> {
        let Some(disk) = self.disk.clone() else { return Ok(None) };
        let done = tokio::task::spawn_blocking(move || work(&*disk)).await;
        done.map_err(|error| error.to_string())?.map(Some).map_err(|error| in_full(&error))
    }
}

/// Whether a node that has a cluster has its place there.
fn settled(status: &Status) -> Result<(), String> {
    let raft = &status.raft;
    if raft.membership.is_empty() {
        return Err("the membership is not known yet".to_owned());
    }
    if !raft.membership.contains(raft.me) && raft.membership_id.index <= raft.commit {
        tracing::warn!(
            node = %raft.me.id,
            "this node was removed from its cluster: stop it, or empty its directory so that it joins as a new one, with members in \
             Config::join, and without Config::found"
        );
        return Ok(());
    }
    raft.leader.map(|_| ()).ok_or_else(|| "no leader is known yet".to_owned())
}

/// Whom to found a cluster with, if that is this node's part.
fn founders(met: &[Met], expected: usize, own: NodeId) -> Result<Option<Vec<(NodeId, String)>>, String> {
    if met.len() < expected {
        return Err(format!("{} of {expected} nodes answer", met.len()));
    }
    let list: BTreeMap<NodeId, String> = met.iter().map(|met| (met.peer.id, met.address.clone())).collect();
    if list.len() < expected {
        return Err("two of the nodes have the same name, or one is there twice".to_owned());
    }
    if !list.contains_key(&own) {
        return Err("this node is not among those that it is to found a cluster with".to_owned());
    }
    Ok((list.keys().next() == Some(&own)).then(|| list.into_iter().collect()))
}

/// The changes that let this node in, one after the other, or why none does. `has_cluster`: whether it belongs to one;
/// `connected`: whether the node that the membership knows under its name is.
pub(crate) fn admission(
    now: &Membership,
    newcomer: &Member,
    has_cluster: bool,
    connected: bool,
) -> Result<Vec<MemberChange>, String> {
    let Member { id, incarnation, address } = newcomer;
    match now.members.get(id) {
        Some(known) if known.incarnation == *incarnation => Ok(vec![MemberChange::Promote(*id)]),
        Some(_) if connected => Err(format!("two nodes are called {id}: give this one another name")),
        Some(known) if known.address != *address => Err(format!(
            "it knows node {id} on another disk, at {}. If that is lost, let an operator replace it",
            known.address
        )),
        Some(_) => Ok(vec![MemberChange::Replace { old: *id, new: *id, address: address.clone() }]),
        // One that asks for the first time has none.
        None if has_cluster => {
            Err(format!("node {id} was removed from its cluster: empty its directory first"))
        }
        None => Ok(vec![MemberChange::Add(*id, address.clone()), MemberChange::Promote(*id)]),
    }
}

/// The leader's part: lets a newcomer learn, and then vote, who [may](admits).
pub(crate) async fn take_in(inner: &Inner, newcomer: &Newcomer) -> Answer {
    let refuse = |why: String| Answer::Refused(inner.me.id, Objection::Other(why));
    let member = newcomer.list.members.values().next().filter(|member| member.peer() == newcomer.from);
    let Some(member) = member else {
        return refuse("it asks for another node than it is".to_owned());
    };
    let id = member.id;
    let Ok(status) = inner.status().await else { return refuse("it stops".to_owned()) };
    let now = &status.raft.membership;
    let known = now.members.get(&id).map(Member::peer);
    let connected = known.is_some_and(|known| inner.transport.peer(known).is_some());
    let changes = match admission(now, member, newcomer.has_cluster, connected) {
        Ok(changes) => changes,
        Err(why) => return refuse(why),
    };
    if known.is_some_and(|known| known != member.peer()) {
        tracing::warn!(node = %inner.me.id, "node {id} has another disk: the old one goes, and the new one learns");
    }
    let address = &member.address;
    for change in changes {
        match inner.change_members(change, LIMIT).await {
            Ok(membership) if membership.contains(newcomer.from) => {}
            // Whoever answers at that address is somebody else.
            Ok(_) => return refuse(format!("another node {id} is at {address}")),
            Err(ChangeError::NotLeader { leader }) => {
                return Answer::Refused(leader.id, Objection::NotLeader(leader.address));
            }
            Err(error) => return refuse(in_full(&error)),
        }
    }
    Answer::Joined
}

/// Whether anybody is let in who asks like that.
pub(crate) fn admits(inner: &Inner, newcomer: &Newcomer) -> Result<(), &'static str> {
    match &inner.config.join_token {
        Some(token) if token.is(&newcomer.token) => Ok(()),
        Some(_) => Err("its cluster has another join token"),
        None if newcomer.authenticated => Ok(()),
        None => Err(
            "its cluster lets in nobody who asks: it has no join token, and connections are not encrypted",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::Incarnation;

    #[test]
    fn the_lowest_of_exactly_as_many_as_are_expected_founds() {
        let all = |ids: &[u64]| {
            let met = |id: &u64| Met {
                address: format!("host-{id}:1"),
                peer: Peer { id: NodeId(*id), incarnation: Incarnation(7) },
                cluster: None,
            };
            ids.iter().map(met).collect::<Vec<_>>()
        };
        let list = founders(&all(&[2, 1, 3]), 3, NodeId(1)).unwrap().unwrap();
        assert_eq!(list[2], (NodeId(3), "host-3:1".to_owned()));
        assert_eq!(founders(&all(&[2, 1, 3]), 3, NodeId(2)), Ok(None));
        assert!(founders(&all(&[1, 2]), 3, NodeId(1)).unwrap_err().contains("2 of 3 nodes answer"));
        assert!(founders(&all(&[1, 2, 2]), 3, NodeId(1)).unwrap_err().contains("the same name"));
        assert!(founders(&all(&[1, 2, 3]), 3, NodeId(4)).unwrap_err().contains("not among those"));
    }

    /// Who asks is let in by steps, promoted where it learns already, put in the place of its own lost disk, and refused where
    /// somebody else may stand there.
    #[test]
    fn a_newcomer_is_let_in_where_it_takes_nobodys_place() {
        let member = |id, disk, address: &str| Member {
            id: NodeId(id),
            incarnation: Incarnation(disk),
            address: address.to_owned(),
        };
        let now = Membership::of_voters(ClusterId(1), [member(1, 7, "one:1"), member(2, 7, "two:1")]);
        let asks = |id, disk, address, has_cluster, connected| {
            admission(&now, &member(id, disk, address), has_cluster, connected)
        };
        let learns_then_votes =
            vec![MemberChange::Add(NodeId(3), "three:1".to_owned()), MemberChange::Promote(NodeId(3))];
        assert_eq!(asks(3, 9, "three:1", false, false), Ok(learns_then_votes));
        assert!(asks(3, 9, "three:1", true, false).unwrap_err().contains("was removed from its cluster"));

        let votes = vec![MemberChange::Promote(NodeId(2))];
        assert_eq!(asks(2, 7, "two:1", true, true), Ok(votes), "the member itself, wherever it is");

        let replaced =
            vec![MemberChange::Replace { old: NodeId(2), new: NodeId(2), address: "two:1".to_owned() }];
        assert_eq!(asks(2, 9, "two:1", false, false), Ok(replaced), "another disk in the same place");
        assert!(asks(2, 9, "two:1", false, true).unwrap_err().contains("two nodes are called 2"));
        assert!(asks(2, 9, "two:2", false, false).unwrap_err().contains("let an operator replace it"));
    }
}
