//! A machine that keeps its own disk, at a start: whether it goes on from where it stands there.
//!
//! It does if the log still holds, or ends with, the entry up to which it has applied everything: then what comes after that
//! is applied to it, and nothing twice. If the log begins later, or a snapshot came that it has not taken, it takes the state
//! of the newest snapshot. It can never have more than the log: it is handed only what is durable there (D5.1.8). So if it
//! does, the log or the machine is an older copy, or another's.

use crate::error::StartError;
use crate::open::term_at;
use crate::replicated::Replicated;
use crate::state_machine::StateMachine;
use crate::storage::Recovered;
use crate::storage::disk::Disk;
use crate::storage::snapshots::{self, Kept, Meta};
use crate::wire::decode_membership;
use coracle_core::{ClusterId, LogId};

/// Brings the machine to where it begins: what it has on its own disk, or the state of the newest snapshot, or nothing.
/// Where it stands, if that is after the snapshot.
pub(crate) fn begin<S: StateMachine>(
    replicated: &mut Replicated<S>,
    files: &dyn Disk,
    snapshot: Option<&Kept>,
    recovered: &Recovered,
    cluster: Option<ClusterId>,
) -> Result<Option<LogId>, StartError> {
    let kept = replicated.kept().map_err(StartError::OwnDisk)?;
    let reaches = snapshot.map_or(LogId::ZERO, |kept| kept.meta.id);
    if let Some(kept) = &kept {
        fits(kept, recovered, cluster).map_err(StartError::OwnDisk)?;
    }
    if replicated.broken.is("own-place-forgotten")
        && let Some(snapshot) = snapshot
        && kept.as_ref().is_some_and(|kept| kept.id.index > reaches.index)
    {
        replicated.go_on_from(snapshot.meta.clone()).map_err(StartError::OwnDisk)?;
        return Ok(None);
    }
    match (kept, snapshot) {
        (Some(_), None) if replicated.broken.is("own-place-forgotten") => Ok(None),
        (Some(kept), _) if kept.id.index > reaches.index => {
            let id = kept.id;
            replicated.go_on_from(kept).map_err(StartError::OwnDisk)?;
            Ok(Some(id))
        }
        // With the very state of the snapshot.
        (Some(kept), Some(snapshot)) if kept == snapshot.meta => {
            replicated.go_on_from(kept).map_err(StartError::OwnDisk)?;
            Ok(None)
        }
        (_, Some(snapshot)) => {
            let from = snapshots::open(files, snapshot.meta.id)?;
            replicated.restore(from).map_err(StartError::Machine)?;
            Ok(None)
        }
        (_, None) => Ok(None),
    }
}

/// Whether a machine that stands there belongs to this log.
fn fits(kept: &Meta, log: &Recovered, cluster: Option<ClusterId>) -> Result<(), String> {
    const ADVICE: &str =
        "Give back what belongs to it, or start with an empty machine, which gets its state anew";
    let id = kept.id;
    let membership = decode_membership(&kept.membership.1)
        .map_err(|error| format!("the membership in the library's blob cannot be read: {error}"))?;
    if let Some(cluster) = cluster.filter(|cluster| *cluster != membership.cluster) {
        return Err(format!(
            "it holds the state of cluster {}, and this node is of cluster {cluster}. {ADVICE}",
            membership.cluster
        ));
    }
    if id.index > log.last.index {
        return Err(format!(
            "it holds everything up to entry {id}, and the log ends at {}: the log is an older copy, or another's. {ADVICE}",
            log.last
        ));
    }
    match term_at(log, id.index) {
        Some(term) if term != id.term => Err(format!(
            "it has applied entry {id}, and the log holds an entry of term {term} there: one of the two is another's. {ADVICE}"
        )),
        _ => Ok(()),
    }
}
