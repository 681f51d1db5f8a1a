//! Members of older versions: what they do not know they are not asked for.

use super::Runtime;
use crate::alarms;
use crate::driver::Knowing;
use crate::transport::tcp::Introduction;
use crate::wire;
use coracle_core::{Member, Peer};
use std::collections::BTreeSet;

/// Who lacks what.
#[derive(Default)]
pub(super) struct Old {
    /// Members that know no snapshots.
    snapshots: BTreeSet<Peer>,
    /// Members that know no transfers of leadership.
    transfers: BTreeSet<Peer>,
}

fn knows_sessions(met: &Introduction) -> bool {
    met.features & wire::SESSIONS != 0
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
        let snapshots = lacks(wire::SNAPSHOTS, &self.old.snapshots);
        let transfers = lacks(wire::TRANSFERS, &self.old.transfers);
        // Whoever was never met may be of any version.
        let knows = |(peer, met): &(Peer, Option<_>)| match met {
            Some(met) => knows_sessions(met),
            None => self.parts.driver.knowing.has(*peer),
        };
        let knowing = met.iter().filter(|it| knows(it)).map(|(peer, _)| *peer).collect();
        self.parts.driver.knowing = Knowing::These(knowing);
        let node = self.parts.config.id;
        if snapshots != self.old.snapshots {
            for peer in snapshots.difference(&self.old.snapshots) {
                tracing::warn!(%node, "{}", alarms::no_snapshots(peer.id));
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
