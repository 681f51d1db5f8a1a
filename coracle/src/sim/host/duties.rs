//! The effects that a node is to carry out.

use super::Running;
use crate::applier::Applier;
use crate::outstanding::{Effect, Outstanding, Place};
use crate::pending::Token;
use crate::sim::machine::Kv;
use crate::work::RequestId;
use coracle_core::Broken;

/// A node's machine, with those who wait for it.
pub(in crate::sim) type Turned = Applier<Kv, RequestId, RequestId>;

/// Those that are pending, and up to where they were given to it.
pub(in crate::sim) struct Duties {
    outstanding: Outstanding,
    place: Place,
}

impl Duties {
    /// Where a machine begins.
    pub(super) fn of(applier: &mut Turned, broken: Broken) -> Duties {
        let mut duties = Duties { outstanding: Outstanding::breaking(broken), place: Place::default() };
        duties.learn(applier);
        duties
    }

    /// The machine has got on.
    pub(super) fn learn(&mut self, applier: &mut Turned) {
        self.outstanding.take(applier.changed_effects(), applier.progress().applied.term);
    }

    /// Those that are pending.
    pub(in crate::sim) fn pending(&self) -> impl Iterator<Item = Token> {
        self.outstanding.tokens()
    }
}

impl Running {
    /// The next effect that it is to carry out.
    pub(in crate::sim) fn next_effect(&mut self) -> Option<Effect> {
        self.duties.outstanding.next(self.driver.office(), &mut self.duties.place)
    }
}
