//! What a start makes of what its disk holds.

use super::{COMPARED_EVERY, Host, Turned};
use crate::applier::Applier;
use crate::config::Config;
use crate::error::in_full;
use crate::open::restore;
use crate::own_disk;
use crate::replicated::{Digest, Replicated};
use crate::sim::machine::{Fired, Kv};
use crate::sim::plan::Plan;
use crate::storage::Recovered;
use crate::storage::disk::Disk;
use crate::storage::snapshots::Kept;
use crate::storage::wal::WalConfig;
use coracle_core::{Boot, ClusterId, LogId, Raft, Restored, Tick};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

impl Host {
    /// The core, as it was when the process ended.
    pub(super) fn core(
        &self,
        boot: Boot,
        config: &Config,
        seed: u64,
        restored: Restored,
        tick: Tick,
    ) -> Result<Raft, String> {
        #[cfg_attr(not(feature = "mutants"), allow(unused_mut, reason = "only mutants change it"))]
        let mut raft = Raft::new(self.me, boot, config.core(), seed, restored, tick)
            .map_err(|error| error.to_string())?;
        #[cfg(feature = "mutants")]
        raft.break_rule(self.broken);
        Ok(raft)
    }

    /// The machine as it begins, on the node's disk or in memory, and what the core finds.
    pub(super) fn machine(
        &self,
        plan: &Plan,
        disk: &Arc<dyn Disk>,
        snapshot: Option<&Kept>,
        recovered: &Recovered,
        cluster: Option<ClusterId>,
    ) -> Result<(Turned, Fired, Restored), String> {
        // Each node takes its snapshots of a guest at other entries.
        let guest = self.guests.as_ref().map(|guests| guests.machine(self.me.id.0 + 1));
        let machine = if plan.own_disk { Kv::on(disk.clone(), guest) } else { Ok(Kv::with(guest)) };
        let (machine, fired) = machine.map_err(|error| error.to_string())?.with_timers(plan.timers);
        let machine = machine.failing(self.fails.clone()).with_effects(plan.effects > 0);
        let mut replicated = Replicated::new(machine);
        replicated.broken = self.broken;
        replicated.compared_every = COMPARED_EVERY;
        replicated.publishes = true;
        let stands = own_disk::begin(&mut replicated, &**disk, snapshot, recovered, cluster)
            .map_err(|error| in_full(&error))?;
        let restored = restore(recovered.clone(), snapshot, stands).map_err(|error| in_full(&error))?;
        Ok((Applier::new(replicated, disk.clone()), fired, restored))
    }
}

/// Where a machine begins.
pub(super) fn stands(applier: &Turned) -> (LogId, Digest) {
    let progress = applier.progress();
    (progress.applied, progress.digest)
}

/// A log without a thread of its own, whose generations follow from a seed.
pub(super) fn wal_config(segment_bytes: u64, seed: u64) -> WalConfig {
    let draws = Arc::new(AtomicU64::new(seed));
    WalConfig {
        segment_bytes,
        prepare_ahead: false,
        spares: 2,
        draw: Arc::new(move || draws.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed)),
    }
}
