//! What operators ask a node: `CORACLE STATUS`, `CORACLE SNAPSHOT`, `CORACLE MEMBERS INIT id=address …`, the other
//! changes of [`members`], and what becomes of [`entries`] that cannot be applied.
//!
//! They travel as commands on the client port, so `coracle status`, `coracle snapshot` and `coracle members init` are
//! ordinary clients, and redis-cli will do in their place. Status is answered locally, also without a leader, and so is
//! a snapshot taken.

use crate::commands::unknown_subcommand;
use crate::entries;
use crate::kv::Machine;
use crate::members;
use crate::rebuild;
use crate::report::{Health, Report, ReportedSnapshot};
use crate::resp::{Command, Replies};
use crate::secret::Secret;
use crate::transfer;
use coracle::{ConfigurationError, Node, SnapshotError, StopReason, in_full};
use serde::Serialize;

/// The most members that can be named at once: far more than any cluster has.
const MAX_MEMBERS: usize = 100;

/// Answers a `CORACLE …` command. Whoever changes who takes part must give the token, if one is asked for.
pub async fn answer<M: Machine>(
    node: &Node<M>,
    command: &Command,
    token: Option<&Secret>,
    replies: &mut Replies,
) {
    if command.is(1, "status") && command.len() == 2 {
        let status = node.status().await.map_err(|reason| stopped(&reason));
        show(status.map(|status| Report::new(&status)), replies);
    } else if command.is(1, "health") && command.len() == 2 {
        let status = node.status().await.map_err(|reason| stopped(&reason));
        show(status.map(|status| Health::new(&status)), replies);
    } else if command.is(1, "snapshot") && command.len() == 2 {
        let taken = node.snapshot().await.map_err(|error| no_snapshot(&error));
        show(taken.map(|taken| ReportedSnapshot::new(&taken)), replies);
    } else if command.is(1, "members") {
        match members(node, command, token).await {
            Ok(done) => replies.simple(&done),
            Err(error) => replies.error(&error),
        }
    } else if command.is(1, "rebuild") {
        let rebuilt = match members::authorised(command, token) {
            Ok(words) => rebuild::rebuild(node, &words).await,
            Err(error) => Err(error),
        };
        match rebuilt {
            Ok(done) => replies.simple(&done),
            Err(error) => replies.error(&error),
        }
    } else if command.is(1, "entry") {
        let words = members::authorised(command, token);
        let ruled = match words {
            Ok(words) => entries::rule(node, &words).await,
            Err(error) => Err(error),
        };
        match ruled {
            Ok(done) => replies.simple(&done),
            Err(error) => replies.error(&error),
        }
    } else {
        replies.error(&unknown_subcommand(command));
    }
}

/// As JSON, or why not.
fn show(found: Result<impl Serialize, String>, replies: &mut Replies) {
    let json = found.and_then(|found| serde_json::to_string(&found).map_err(|error| format!("ERR {error}")));
    match json {
        Ok(json) => replies.bulk(json.as_bytes()),
        Err(error) => replies.error(&error),
    }
}

async fn members<M: Machine>(
    node: &Node<M>,
    command: &Command,
    token: Option<&Secret>,
) -> Result<String, String> {
    let words = members::authorised(command, token)?;
    match words.split_first() {
        Some((first, rest)) if first.eq_ignore_ascii_case("init") => init(node, rest).await,
        Some((first, rest)) if first.eq_ignore_ascii_case("transfer") => transfer::transfer(node, rest).await,
        _ => members::change(node, &words).await,
    }
}

async fn init<M: Machine>(node: &Node<M>, words: &[String]) -> Result<String, String> {
    if words.is_empty() || words.len() > MAX_MEMBERS {
        return Err(format!("ERR name 1 to {MAX_MEMBERS} members as id=host:port"));
    }
    let named = words.iter().map(|word| {
        members::member(word).ok_or_else(|| format!("ERR '{word}' is not a member: write id=host:port"))
    });
    match node.set_configuration(named.collect::<Result<Vec<_>, _>>()?).await {
        Ok(_) => Ok("OK".to_owned()),
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
        other => format!("ERR {other}"),
    }
}

/// What the first word says of a snapshot that was not taken.
fn no_snapshot(error: &SnapshotError) -> String {
    match error {
        SnapshotError::Stopped(reason) => stopped(reason),
        other => format!("ERR {other}"),
    }
}

fn stopped(reason: &StopReason) -> String {
    format!("CLUSTERDOWN the node has stopped: {}", in_full(reason))
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
}
