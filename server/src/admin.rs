//! What operators ask a node: `CORACLE STATUS` and `CORACLE MEMBERS INIT id=address …`.
//!
//! They travel as commands on the client port, so `coracle status` and `coracle members init` are ordinary
//! clients, and redis-cli will do in their place. Status is answered locally, also without a leader.

use crate::commands::unknown_subcommand;
use crate::kv::Machine;
use crate::resp::{Command, Replies};
use coracle::raft::Membership;
use coracle::{ConfigurationError, Node, Status, StopReason};
use serde::{Deserialize, Serialize};

/// The most members that can be named at once: far more than any cluster has.
const MAX_MEMBERS: usize = 100;

/// A node as it sees itself: what `CORACLE STATUS` answers, as JSON.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The node's id.
    pub id: u64,
    /// leader, follower, candidate, learner or unconfigured.
    pub role: String,
    /// Its term.
    pub term: u64,
    /// The node that it holds for the leader, if any.
    pub leader: Option<u64>,
    /// The newest index that it knows to be committed.
    pub commit: u64,
    /// The newest index that its machine has applied.
    pub applied: u64,
    /// The newest index of its log.
    pub last_index: u64,
    /// Its cluster.
    pub members: Vec<ReportedMember>,
    /// The digest of everything that it applied, at exactly `applied`: 32 hexadecimal digits. Two nodes
    /// that applied the same entries show the same.
    pub digest: String,
    /// Bytes that its log takes on disk, spare files included; 0 if it uses no disk.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Whether its machine has come, since the start, as far as the log was then. Until then reads may take long.
    #[serde(default)]
    pub caught_up: bool,
    /// Bytes of committed entries that its machine has not applied yet.
    #[serde(default)]
    pub unapplied_bytes: u64,
    /// Why its log has no room for more, while that is so: writes are refused as BUSY.
    #[serde(default)]
    pub no_space: Option<String>,
    /// Known to the leader: nodes whose machine is another one than that of a majority. They answer wrongly.
    #[serde(default)]
    pub diverged: Vec<u64>,
    /// Where this node's machine turned out to differ from that of a majority. It answers nothing since.
    #[serde(default)]
    pub fenced: Option<u64>,
}

/// One member of the cluster.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReportedMember {
    /// Its id.
    pub id: u64,
    /// Where its peers reach it.
    pub address: String,
    /// Whether it votes.
    pub voter: bool,
}

impl Report {
    /// Tells what operators want to know of a status.
    pub fn new(status: &Status) -> Report {
        let raft = &status.raft;
        Report {
            id: raft.me.id.0,
            role: raft.role.to_string(),
            term: raft.term.0,
            leader: raft.leader.map(|leader| leader.0),
            commit: raft.commit.0,
            applied: status.applied.index.0,
            last_index: raft.last.index.0,
            members: members(&raft.membership),
            digest: status.digest.iter().map(|byte| format!("{byte:02x}")).collect(),
            disk_bytes: status.disk_bytes,
            caught_up: status.caught_up,
            unapplied_bytes: status.unapplied_bytes,
            no_space: status.no_space.clone(),
            diverged: status.diverged.keys().map(|id| id.0).collect(),
            fenced: status.fenced.map(|index| index.0),
        }
    }
}

fn members(membership: &Membership) -> Vec<ReportedMember> {
    let report = |member: &coracle::raft::Member| ReportedMember {
        id: member.id.0,
        address: member.address.clone(),
        voter: membership.is_voter(member.peer()),
    };
    membership.members.values().map(report).collect()
}

/// Answers a `CORACLE …` command.
pub async fn answer<M: Machine>(node: &Node<M>, command: &Command, replies: &mut Replies) {
    if command.is(1, "status") && command.len() == 2 {
        match node.status().await {
            Ok(status) => match serde_json::to_string(&Report::new(&status)) {
                Ok(json) => replies.bulk(json.as_bytes()),
                Err(error) => replies.error(&format!("ERR {error}")),
            },
            Err(reason) => replies.error(&stopped(&reason)),
        }
    } else if command.is(1, "members") && command.is(2, "init") {
        match init(node, command).await {
            Ok(()) => replies.simple("OK"),
            Err(error) => replies.error(&error),
        }
    } else {
        replies.error(&unknown_subcommand(command));
    }
}

async fn init<M: Machine>(node: &Node<M>, command: &Command) -> Result<(), String> {
    let words = 3..command.len();
    if words.is_empty() || words.len() > MAX_MEMBERS {
        return Err(format!("ERR name 1 to {MAX_MEMBERS} members as id=host:port"));
    }
    let members = words
        .map(|i| {
            let word = String::from_utf8_lossy(command.argument(i));
            member(&word).ok_or_else(|| format!("ERR '{word}' is not a member: write id=host:port"))
        })
        .collect::<Result<Vec<_>, _>>()?;
    match node.set_configuration(members).await {
        Ok(_) => Ok(()),
        Err(error) => Err(refusal(&error)),
    }
}

/// What the first word says of a cluster that was not founded.
fn refusal(error: &ConfigurationError) -> String {
    match error {
        ConfigurationError::Invalid(_) | ConfigurationError::AlreadyConfigured => format!("ERR {error}"),
        ConfigurationError::NotReady(_) | ConfigurationError::PromisedToAnother { .. } => {
            format!("CLUSTERDOWN {error}")
        }
        ConfigurationError::Timeout => format!("UNKNOWN {error}"),
        ConfigurationError::Stopped(reason) => stopped(reason),
    }
}

/// Reads `id=host:port`.
pub fn member(word: &str) -> Option<(u64, String)> {
    let (id, address) = word.split_once('=')?;
    let (host, port) = address.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    let id: u64 = id.parse().ok()?;
    (id > 0 && !host.is_empty()).then(|| (id, address.to_owned()))
}

fn stopped(reason: &StopReason) -> String {
    format!("CLUSTERDOWN the node has stopped: {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle::raft::{ClusterId, NodeId};

    /// A disagreement between two lists is named, with the way out of it.
    #[test]
    fn a_node_that_promised_itself_to_another_list_is_named_with_that_list() {
        let members = vec![(NodeId(1), "a:1".to_owned()), (NodeId(3), "c:1".to_owned())];
        let cluster = ClusterId(0xab);
        let error = refusal(&ConfigurationError::PromisedToAnother { node: NodeId(3), members, cluster });
        let named = format!(
            "CLUSTERDOWN node 3 has promised itself to another list: 1=a:1 3=c:1 (cluster {cluster})"
        );
        assert!(error.starts_with(&named), "{error}");
        assert!(
            error.contains("if that node is gone for good, stop node 3 and empty its directory"),
            "{error}"
        );
    }

    #[test]
    fn members_are_named_by_id_and_address() {
        assert_eq!(member("1=127.0.0.1:7101"), Some((1, "127.0.0.1:7101".into())));
        assert_eq!(member("20=[::1]:80"), Some((20, "[::1]:80".into())));
        for wrong in
            ["", "1", "1=", "1=host", "1=:80", "0=host:80", "x=host:80", "1=host:port", "1=host:65536"]
        {
            assert_eq!(member(wrong), None, "{wrong}");
        }
    }
}
