//! What a simulated node promises while a cluster is founded, written to its disk.

use super::Running;
use crate::error::in_full;
use crate::storage::identity;
use crate::storage::mem_disk::MemDisk;
use coracle_core::ClusterId;

impl Running {
    /// The identity keeps the next promise.
    pub(in crate::sim) fn keep_promise(&mut self, disk: &MemDisk) -> Result<(), String> {
        let Some(promise) = self.promises.pop_front() else { return Ok(()) };
        let kept = promise.map(|promise| promise.to_kept());
        identity::set_promise(disk, kept).map_err(|error| in_full(&error))
    }

    /// Names the cluster in the identity, after all promises that it was given before.
    pub(super) fn name(&mut self, disk: &MemDisk, cluster: ClusterId) -> Result<(), String> {
        while !self.promises.is_empty() {
            self.keep_promise(disk)?;
            self.driver.on_promised();
        }
        identity::set_cluster(disk, cluster).map_err(|error| in_full(&error))?;
        self.driver.on_named(cluster);
        Ok(())
    }
}
