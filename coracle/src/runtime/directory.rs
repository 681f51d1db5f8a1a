//! What clients are told of this node: who leads, and who else is there.

use crate::driver::Driver;
use crate::requests::{Reader, Writer};
use crate::wire::Directory;
use coracle_core::{LogId, Member};
use std::sync::Arc;

/// Brings the directory up to date. Whether it has changed.
pub(super) fn renew(
    told: &mut (LogId, Arc<Directory>),
    driver: &Driver<Writer, Reader>,
    machine: u16,
) -> bool {
    let raft = driver.raft();
    let (newest, leader) = (raft.membership_id(), raft.leader_member().map(Member::peer));
    if (told.0, told.1.term, told.1.leader, told.1.machine) == (newest, raft.term(), leader, machine) {
        return false;
    }
    let membership = raft.membership();
    let membership = (!membership.is_empty()).then(|| (newest, membership.clone()));
    *told = (newest, Arc::new(Directory { term: raft.term(), leader, membership, machine }));
    true
}
