//! What a node tells its operator, in sentences: what happened, and what to do.

use crate::config::TICK;
use crate::digests::Finding;
use coracle_core::{Alarm, LogId, NodeId, RoleName, Term};

/// What becomes of a node whose machine is not to be trusted.
pub(crate) const FENCED: &str = "the state machine of this node differs from that of a majority: it applies and \
    answers nothing any more, and the node does not lead; it still stores and votes. The other nodes go on";

/// A machine that cannot apply an entry.
pub(crate) fn machine_stopped(at: LogId, why: &str) -> String {
    format!(
        "the state machine of this node has stopped before entry {at}, and applies and answers nothing: {why}. The node still          stores and votes, and a start changes nothing. If a newer program can apply the entry, start that and have it tried          again; if none ever will, have it skipped"
    )
}

/// An alarm of the core.
pub(crate) fn alarm(alarm: &Alarm) -> String {
    match alarm {
        Alarm::LostEntries { follower, acknowledged, last } => format!(
            "node {follower} has lost entries that it had acknowledged: it had them up to {acknowledged}, and its log \
             ends at {last}. It does not count in this term any more. Check its disk"
        ),
        Alarm::TermTooFar { from, term } => format!(
            "node {from} claims term {term}, which is further ahead than elections can explain; it is believed in part \
             only. Check who can reach the peer ports"
        ),
        Alarm::DiskStalled { ticks } => format!(
            "the disk has not finished a write for {:.1} s, so this node gave up leadership. Check its disk",
            TICK.as_secs_f64() * *ticks as f64
        ),
        // There is none yet.
        other => other.to_string(),
    }
}

/// A member of an older version.
pub(crate) fn no_snapshots(node: NodeId) -> String {
    format!(
        "node {node} runs a version that knows no snapshots. The leader keeps in its log what that node lacks, for a while; \
         if that node lags by more, it gets nothing until it is upgraded. Upgrade it"
    )
}

/// The same, of the state machine.
pub(crate) fn older_machine(node: NodeId) -> String {
    format!(
        "node {node} runs an older version of the state machine, which cannot read this node's snapshots. The leader keeps in its \
         log what that node lacks, for a while; if that node lags by more, it gets nothing until it is upgraded. Upgrade it"
    )
}

/// The same, older than transfers of leadership.
pub(crate) fn no_transfers(node: NodeId) -> String {
    format!(
        "node {node} runs a version that knows no transfers of leadership: none goes to it until it is upgraded, and a leader \
         that stops leaves the others to elect one"
    )
}

/// Machines that are not alike.
pub(crate) fn finding(finding: Finding) -> String {
    match finding {
        Finding::Differs(node, index) => format!(
            "the state machine of node {node} differs from that of a majority at index {index}: `apply` depends on more \
             than the commands, or that node's memory is bad. Have it rebuilt from the leader's (`coracle rebuild`, \
             `Node::rebuild`); if it differs again, `apply` is at fault"
        ),
        Finding::NoMajority(index) => format!(
            "no majority of the state machines agrees at index {index}: `apply` depends on more than the commands"
        ),
    }
}

/// A new role or leader.
pub(crate) fn role(role: RoleName, term: Term, leader: Option<NodeId>) -> String {
    match (role, leader) {
        (RoleName::Leader, _) => format!("leads in term {term}"),
        (RoleName::Follower, Some(leader)) => format!("follows node {leader} in term {term}"),
        (RoleName::Follower, None) => format!("knows no leader in term {term}"),
        (RoleName::Learner, Some(leader)) => {
            format!("learns from node {leader} in term {term}, without a vote")
        }
        (RoleName::Learner, None) => format!("has no vote, and knows no leader in term {term}"),
        (RoleName::PreCandidate, _) => format!("asks whether it would be elected after term {term}"),
        (RoleName::Candidate, _) => format!("campaigns in term {term}"),
        (RoleName::Unconfigured, _) => "waits to be told its cluster".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::Index;

    #[test]
    fn an_alarm_says_what_happened_and_what_to_do() {
        let lost = Alarm::LostEntries { follower: NodeId(3), acknowledged: Index(120), last: Index(90) };
        assert_eq!(
            alarm(&lost),
            "node 3 has lost entries that it had acknowledged: it had them up to 120, and its log ends at 90. It does \
             not count in this term any more. Check its disk"
        );
        assert!(alarm(&Alarm::DiskStalled { ticks: 130 }).contains("for 1.3 s"));
        let far = Alarm::TermTooFar { from: NodeId(2), term: Term(u64::MAX) };
        assert!(alarm(&far).contains("node 2 claims term 18446744073709551615"));
        assert!(
            finding(Finding::Differs(NodeId(2), Index(1024)))
                .contains("node 2 differs from that of a majority")
        );
    }

    #[test]
    fn a_role_is_a_sentence() {
        assert_eq!(role(RoleName::Leader, Term(2), Some(NodeId(1))), "leads in term 2");
        assert_eq!(role(RoleName::Follower, Term(2), Some(NodeId(1))), "follows node 1 in term 2");
        assert_eq!(role(RoleName::Unconfigured, Term(0), None), "waits to be told its cluster");
    }
}
