//! Whether a node can serve, and why not.

use coracle::Status;
use coracle::raft::RoleName;

/// What stands in the way of serving; nothing if the node is ready: it has caught up with what its log held at the start, its
/// machine answers, and it knows who leads.
pub(crate) fn unready(status: &Status) -> Vec<String> {
    let mut why = Vec::new();
    if status.raft.role == RoleName::Unconfigured {
        return vec![
            "it has no cluster yet: form one by `coracle members init`, or start it with --join".to_owned(),
        ];
    }
    if status.raft.leader.is_none() {
        why.push(
            "it knows no leader: no majority of the voters answers, or an election is under way".to_owned(),
        );
    }
    if let Some(coming) = &status.snapshots.receiving {
        why.push(format!(
            "a snapshot comes from node {}: {} of {} bytes",
            coming.peer, coming.done, coming.bytes
        ));
    }
    if !status.caught_up {
        let bytes = status.unapplied_bytes;
        why.push(format!(
            "its machine has not caught up yet since the start: {bytes} bytes of entries wait for it"
        ));
    }
    if let Some(index) = status.fenced {
        why.push(format!("its machine differs from that of a majority since entry {index}: coracle rebuild"));
    }
    if let Some(stopped) = &status.machine_stopped {
        why.push(format!("its machine has stopped before entry {}, which it cannot apply", stopped.entry));
    }
    why
}
