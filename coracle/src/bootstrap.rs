//! Founding a cluster: the list is checked, all its nodes are asked who they are, and the first membership is
//! proposed.
//!
//! It may be asked of several members at once: what they found is the same, to the last byte of its first entry.

use crate::error::*;
use crate::node::Node;
use crate::requests::{Request, Status};
use crate::state_machine::StateMachine;
use crate::transport::tcp::ProbeError;
use crate::wire::{RefusedReason, check_membership};
use coracle_core::*;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};
use xxhash_rust::xxh3::Xxh3Default;

/// The pause between two questions to a node that is not ready to be bootstrapped.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// How long a founder waits, once the membership is committed, until all members hold it.
const EVERYWHERE: Duration = Duration::from_secs(1);

impl<S: StateMachine> Node<S> {
    /// Founds a cluster of these members, and waits a moment until all of them hold the membership.
    pub(crate) async fn bootstrap(
        &self,
        members: impl Iterator<Item = (NodeId, String)>,
    ) -> Result<Membership, ConfigurationError> {
        let addresses = self.check_list(members)?;
        let membership = self.found(&addresses).await?;
        let until = Instant::now() + EVERYWHERE;
        while let Ok(Status { raft, .. }) = self.status().await
            && raft.peers.iter().any(|peer| peer.matched < raft.membership_id.index)
            && Instant::now() < until
        {
            sleep(PROBE_PAUSE / 10).await;
        }
        Ok(membership)
    }

    /// Founds the cluster. Returns the membership once it is committed.
    async fn found(&self, addresses: &BTreeMap<NodeId, String>) -> Result<Membership, ConfigurationError> {
        let deadline = Instant::now() + self.inner.config.bootstrap_timeout;
        let mut incarnations = BTreeMap::new();
        loop {
            // Another member may have been asked too, and be ahead.
            if let Some(existing) = self.existing(addresses, deadline).await? {
                return Ok(existing);
            }
            let missing = self.introduce(addresses, deadline, &mut incarnations).await;
            if missing.is_empty() {
                break;
            }
            if Instant::now() + PROBE_PAUSE >= deadline {
                return Err(ConfigurationError::NotReady(missing));
            }
            sleep(PROBE_PAUSE).await;
        }
        let members = addresses.iter().map(|(id, address)| Member {
            id: *id,
            incarnation: incarnations[id],
            address: address.clone(),
        });
        let members: Vec<Member> = members.collect();
        let membership = Membership::of_voters(name_cluster(&members), members);
        let (answer, answered) = oneshot::channel();
        let request = Request::Bootstrap { membership, answer };
        if self.inner.requests.send_always(request).await.is_err() {
            return Err(ConfigurationError::Stopped(self.stop_reason()));
        }
        match timeout_at(deadline, answered).await {
            // Between our question and the request somebody else may have founded the same cluster.
            Ok(Ok(Err(ConfigurationError::AlreadyConfigured))) | Ok(Ok(Ok(()))) => {
                self.existing(addresses, deadline).await?.ok_or(ConfigurationError::AlreadyConfigured)
            }
            Ok(Ok(Err(ConfigurationError::Timeout))) => {
                self.existing(addresses, deadline).await?.ok_or(ConfigurationError::Timeout)
            }
            Ok(Ok(Err(error))) => Err(error),
            Ok(Err(_)) => Err(ConfigurationError::Stopped(self.stop_reason())),
            Err(_) => Err(ConfigurationError::Timeout),
        }
    }

    fn check_list(
        &self,
        members: impl Iterator<Item = (NodeId, String)>,
    ) -> Result<BTreeMap<NodeId, String>, ConfigurationError> {
        let invalid = |problem: String| Err(ConfigurationError::Invalid(problem));
        let mut addresses = BTreeMap::new();
        for (id, address) in members {
            if id.0 == 0 {
                return invalid("a node's name is at least 1".to_owned());
            }
            if address.rsplit_once(':').is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return invalid(format!("the address {address:?} of node {id} is not host:port"));
            }
            if addresses.insert(id, address).is_some() {
                return invalid(format!("node {id} is in it twice"));
            }
        }
        let member = |(id, address): (&NodeId, &String)| Member {
            id: *id,
            incarnation: Incarnation::default(),
            address: address.clone(),
        };
        if !addresses.is_empty() {
            let membership = Membership::of_voters(ClusterId::default(), addresses.iter().map(member));
            check_membership(&membership).map_err(|error| ConfigurationError::Invalid(error.to_string()))?;
        }
        let me = self.inner.me.id;
        if addresses.contains_key(&me) {
            Ok(addresses)
        } else {
            invalid(format!("node {me}, which is asked, is not in it"))
        }
    }

    /// The membership, if the node has one already: the same list is waited for until it is committed.
    async fn existing(
        &self,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
    ) -> Result<Option<Membership>, ConfigurationError> {
        loop {
            let status = self.status().await.map_err(ConfigurationError::Stopped)?;
            let membership = status.raft.membership;
            if status.cluster.is_none() {
                return Ok(None);
            }
            if !membership.is_empty() {
                let members = membership.members.values();
                let same = members.map(|m| (&m.id, &m.address)).eq(addresses.iter());
                if !same || membership.voters.len() != addresses.len() {
                    return Err(ConfigurationError::AlreadyConfigured);
                }
                if status.raft.commit >= status.raft.membership_id.index {
                    return Ok(Some(membership));
                }
            }
            // It belongs to a cluster, but what is in force was not committed or received yet.
            if Instant::now() >= deadline {
                return Err(ConfigurationError::Timeout);
            }
            sleep(PROBE_PAUSE / 10).await;
        }
    }

    /// Shakes hands with all nodes that are not known yet, itself included, since others will dial its address
    /// too. Takes down the incarnations of those that are there and blank; returns the others, and why.
    async fn introduce(
        &self,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
        incarnations: &mut BTreeMap<NodeId, Incarnation>,
    ) -> Vec<(NodeId, String)> {
        let me = self.inner.me;
        let mut missing = Vec::new();
        for (id, address) in addresses {
            if incarnations.contains_key(id) {
                continue;
            }
            let why = match timeout_at(deadline, self.inner.transport.probe(address, *id)).await {
                // Whoever dials itself is told that its name is taken: so the address is right.
                Ok(Err(ProbeError::Refused { reason: RefusedReason::OwnName, .. })) if *id == me.id => {
                    incarnations.insert(*id, me.incarnation);
                    continue;
                }
                Ok(Ok(introduction)) if introduction.cluster.is_none() => {
                    incarnations.insert(*id, introduction.peer.incarnation);
                    continue;
                }
                Ok(Ok(_)) => "it belongs to a cluster already".to_owned(),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            missing.push((*id, why));
        }
        missing
    }
}

/// The name of the cluster that these members, on these disks, found.
///
/// It is as random as their incarnations, and the same whichever of them is asked: so two that are asked at
/// once found one cluster, with the very same first entry, and not two that exclude each other.
fn name_cluster(members: &[Member]) -> ClusterId {
    let mut hash = Xxh3Default::new();
    hash.update(b"coracle cluster");
    for Member { id, incarnation, address } in members {
        hash.update(&id.0.to_le_bytes());
        hash.update(&incarnation.0.to_le_bytes());
        hash.update(&(address.len() as u64).to_le_bytes());
        hash.update(address.as_bytes());
    }
    ClusterId(hash.digest128())
}
