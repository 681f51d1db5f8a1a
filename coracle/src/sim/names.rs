//! Which node answers to which name. A node that joins anew takes a name that the cluster never had, or is given one; what is
//! meant for its old name then finds another disk there.

use coracle_core::NodeId;
use std::collections::BTreeMap;

/// No node has a greater name: one that none has is greater.
const GREATEST: u64 = 90;

/// The newest bearer of each name.
pub(super) struct Names {
    bearers: BTreeMap<NodeId, usize>,
    /// The greatest that was promised to somebody.
    promised: NodeId,
}

impl Names {
    /// So many nodes, from 1.
    pub(super) fn of(nodes: usize) -> Names {
        let bearers = (0..nodes).map(|node| (NodeId(node as u64 + 1), node)).collect();
        Names { bearers, promised: NodeId(0) }
    }

    /// The node that has, or had last, this name. A name may be given to whoever never hears of it.
    pub(super) fn node(&self, id: NodeId) -> Option<usize> {
        self.bearers.get(&id).copied()
    }

    /// From now on this is a node's name.
    pub(super) fn give(&mut self, id: NodeId, node: usize) {
        self.bearers.insert(id, node);
    }

    /// A leader is about to give this name to somebody, who may never hear of it.
    pub(super) fn promise(&mut self, id: NodeId) {
        self.promised = self.promised.max(id);
    }

    /// A name that nobody ever had, and that was promised to nobody.
    pub(super) fn fresh(&self) -> Option<NodeId> {
        let newest = self.bearers.last_key_value().map_or(0, |(id, _)| id.0).max(self.promised.0);
        (newest < GREATEST).then_some(NodeId(newest + 1))
    }
}
