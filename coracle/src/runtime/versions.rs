//! Members of older versions: what they do not know they are not asked for.

use super::Runtime;
use crate::alarms;
use crate::driver::Knowing;
use crate::wire;
use coracle_core::{Member, Peer};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;

/// Who lacks what.
#[derive(Default)]
pub(super) struct Old {
    /// Members that know no snapshots.
    snapshots: BTreeSet<Peer>,
    /// Members that know no transfers of leadership.
    transfers: BTreeSet<Peer>,
    /// Of which version the machines of others are that were met.
    machines: BTreeMap<Peer, u16>,
}

/// The version of the machine of whoever was not met, or does not say.
const FIRST: u16 = 1;

/// Up to which level whoever has these features knows the entries of a log (D5.5.1).
fn level(features: u64) -> u16 {
    let has = |feature: &&u64| features & **feature != 0;
    [wire::SESSIONS, wire::TIMERS, wire::RULINGS].iter().take_while(has).count() as u16
}

impl Runtime {
    /// Tells the driver, and the log, which members lack what. One that is away knows what it knew.
    pub(super) fn look_for_old_versions(&mut self) {
        let raft = self.parts.driver.raft();
        let members = raft.membership().members.values().map(Member::peer);
        let others = members.filter(|peer| *peer != raft.me());
        let met: Vec<_> = others.map(|peer| (peer, self.parts.transport.peer(peer))).collect();
        let lacks = |feature: u64, before: &BTreeSet<Peer>| -> BTreeSet<Peer> {
            let lacking = met.iter().filter(|(peer, met)| match met {
                Some(met) => met.features & feature == 0,
                None => before.contains(peer),
            });
            lacking.map(|(peer, _)| *peer).collect()
        };
        let mut snapshots = lacks(wire::SNAPSHOTS, &self.old.snapshots);
        let transfers = lacks(wire::TRANSFERS, &self.old.transfers);
        // Whoever was never met may be of any version.
        let knowing = met.iter().filter_map(|(peer, met)| match met {
            Some(met) => Some((*peer, level(met.features))),
            None => self.parts.driver.knowing.level(*peer).map(|level| (*peer, level)),
        });
        self.parts.driver.knowing = Knowing::These(knowing.collect());
        let own = self.parts.config.machine.0;
        self.old.machines.retain(|peer, _| met.iter().any(|(member, _)| member == peer));
        let told = met.iter().filter_map(|(peer, met)| Some((*peer, met.as_ref()?.machine)));
        self.old.machines.extend(told.filter(|(_, machine)| *machine > 0));
        let machines = &self.old.machines;
        let of_others = met.iter().map(|(peer, _)| machines.get(peer).copied().unwrap_or(FIRST));
        let all_have = of_others.fold(own, u16::min).max(self.parts.driver.machine.version).max(FIRST);
        let older = machines.iter().filter(|(_, machine)| **machine < own).map(|(peer, _)| *peer);
        let older: BTreeSet<Peer> = older.collect();
        snapshots.extend(&older);
        self.parts.driver.set_machine_version(all_have.min(own));
        self.parts.machine_version.store(all_have, Ordering::Relaxed);
        let node = self.parts.config.id;
        if snapshots != self.old.snapshots {
            for peer in snapshots.difference(&self.old.snapshots) {
                let say = if older.contains(peer) { alarms::older_machine } else { alarms::no_snapshots };
                tracing::warn!(%node, "{}", say(peer.id));
            }
            self.parts.driver.without_snapshots(snapshots.clone());
            self.old.snapshots = snapshots;
        }
        if transfers != self.old.transfers {
            for peer in transfers.difference(&self.old.transfers) {
                tracing::warn!(%node, "{}", alarms::no_transfers(peer.id));
            }
            self.parts.driver.without_transfers(transfers.clone());
            self.old.transfers = transfers;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_lacks_a_feature_knows_no_entries_of_its_level() {
        let older = wire::FEATURES & !wire::RULINGS;
        let oldest = older & !wire::TIMERS;
        assert_eq!(
            [wire::FEATURES, older, oldest, oldest & !wire::SESSIONS, wire::TIMERS, 0].map(level),
            [3, 2, 1, 0, 0, 0]
        );
        assert_eq!(u32::from(level(wire::FEATURES)), wire::LEVEL_MAX);
    }
}
