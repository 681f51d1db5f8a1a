//! Founding a cluster as its caller sees it: the list is checked, all its nodes are asked who they are, and the lowest
//! of them is asked to found ([`founding`](crate::founding)). It is asked again and again until the time is up.
//!
//! Any node of the list may be asked, and several at once: they ask the same one for the same.

use crate::error::ConfigurationError;
use crate::founding::{founder, proposal};
use crate::inner::{Boxed, Inner};
use crate::requests::Request;
use crate::status::Status;
use crate::transport::tcp::{Introduction, ProbeError};
use crate::wire::{
    Answer, Ask, MAX_LIST, Objection, RefusedReason, Step, check_membership, encode_membership,
};
use coracle_core::{ClusterId, Incarnation, Member, Membership, NodeId};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout_at};

/// The pause between two questions to a node that is not ready to be bootstrapped. Where two lists compete, they are
/// drawn between half of it and three times as much, so that their founders do not stay in step.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

/// Why a node cannot be in the list.
const OF_ANOTHER: &str = "it belongs to a cluster already";

/// What an incarnation takes in an encoded list at most, in bytes.
const INCARNATION: usize = 9;

/// How long a founder waits, once the membership is committed, until all members hold it.
const EVERYWHERE: Duration = Duration::from_secs(1);

impl Inner {
    /// Founds a cluster of these members, and waits a moment until all of them hold the membership.
    pub(crate) fn bootstrap(
        &self,
        members: Vec<(NodeId, String)>,
    ) -> Boxed<'_, Result<Membership, ConfigurationError>> {
        Box::pin(self.found_everywhere(members))
    }

    async fn found_everywhere(
        &self,
        members: Vec<(NodeId, String)>,
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
        let deadline = Instant::now() + self.config.bootstrap_timeout;
        // What came of the last attempt that there was time for: one that is cut off finds nobody.
        let mut before = None;
        loop {
            // Another member may have been asked too, and be ahead.
            if let Some(existing) = self.existing(addresses, deadline).await? {
                return Ok(existing);
            }
            let refused = match self.introduce(addresses, deadline).await {
                Ok(list) => self.ask_founder(list, addresses, deadline).await,
                Err(missing) => Err(ConfigurationError::NotReady(missing)),
            };
            match refused {
                Ok(membership) => return Ok(membership),
                Err(
                    error @ (ConfigurationError::NotReady(_) | ConfigurationError::PromisedToAnother { .. }),
                ) => {
                    let part = f64::from(getrandom::u32().unwrap_or_default()) / f64::from(u32::MAX);
                    let pause = PROBE_PAUSE.mul_f64(0.5 + 2.5 * part);
                    if Instant::now() >= deadline {
                        return Err(before.unwrap_or(error));
                    }
                    if Instant::now() + pause >= deadline {
                        return Err(error);
                    }
                    before = Some(error);
                    sleep(pause).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the list's lowest node to found its cluster, and waits until its membership is committed here.
    async fn ask_founder(
        &self,
        list: Membership,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
    ) -> Result<Membership, ConfigurationError> {
        let Some(founder) = founder(&list).cloned() else {
            return Err(ConfigurationError::Invalid("it is empty".to_owned()));
        };
        let ask = Ask::new(Step::Found, list, 0);
        let not_ready = |node, why| Err(ConfigurationError::NotReady(vec![(node, why)]));
        let answer = if founder.peer() == self.me {
            let (answer, answered) = oneshot::channel();
            if self.requests.send_always(Request::Found { ask: Box::new(ask), answer }).await.is_err() {
                return Err(ConfigurationError::Stopped(self.stop_reason()));
            }
            match timeout_at(deadline, answered).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => return Err(ConfigurationError::Stopped(self.stop_reason())),
                Err(_) => return not_ready(founder.id, "no answer in time".to_owned()),
            }
        } else {
            let asked = self.transport.ask(&founder.address, founder.peer(), &ask);
            match timeout_at(deadline, asked).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => return not_ready(founder.id, error.to_string()),
                Err(_) => return not_ready(founder.id, "no answer in time".to_owned()),
            }
        };
        match answer {
            Answer::Founded => loop {
                if let Some(existing) = self.existing(addresses, deadline).await? {
                    return Ok(existing);
                }
                if Instant::now() >= deadline {
                    return Err(ConfigurationError::Timeout);
                }
                sleep(PROBE_PAUSE / 10).await;
            },
            Answer::Refused(node, Objection::Cluster(_)) => not_ready(node, OF_ANOTHER.to_owned()),
            Answer::Refused(node, Objection::Promised(other)) => {
                let members = other.members.into_values().map(|member| (member.id, member.address)).collect();
                Err(ConfigurationError::PromisedToAnother { node, members, cluster: other.cluster })
            }
            Answer::Refused(node, Objection::Other(text)) => not_ready(node, text),
            _ => not_ready(founder.id, "its answer makes no sense".to_owned()),
        }
    }

    fn check_list(
        &self,
        members: Vec<(NodeId, String)>,
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
            let length = encode_membership(&membership).len() + addresses.len() * INCARNATION;
            if length > MAX_LIST {
                return invalid(format!("it takes {length} bytes, and at most {MAX_LIST} are kept"));
            }
        }
        let me = self.me.id;
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

    /// Shakes hands with all nodes, itself included, since others will dial its address too. The proposal that they
    /// make, if they are there and have no other cluster; or which do not fit, and why.
    async fn introduce(
        &self,
        addresses: &BTreeMap<NodeId, String>,
        deadline: Instant,
    ) -> Result<Membership, Vec<(NodeId, String)>> {
        let me = self.me;
        let (mut missing, mut clusters, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for (id, address) in addresses {
            let (id, address) = (*id, address.clone());
            let why = match timeout_at(deadline, self.transport.probe(&address, id)).await {
                // Whoever dials itself is told that its name is taken: so the address is right.
                Ok(Err(ProbeError::Refused { reason: RefusedReason::OwnName, .. })) if id == me.id => {
                    members.push(Member { id, incarnation: me.incarnation, address });
                    continue;
                }
                Ok(Ok(Introduction { peer, cluster, .. })) => {
                    clusters.extend(cluster.map(|cluster| (id, cluster)));
                    members.push(Member { id, incarnation: peer.incarnation, address });
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            missing.push((id, why));
        }
        let list = proposal(members);
        // One that belongs to the cluster of this very list has heard of its founding before this node.
        clusters.retain(|(_, cluster)| *cluster != list.cluster || !missing.is_empty());
        missing.extend(clusters.into_iter().map(|(id, _)| (id, OF_ANOTHER.to_owned())));
        missing.sort_unstable();
        if missing.is_empty() { Ok(list) } else { Err(missing) }
    }
}
