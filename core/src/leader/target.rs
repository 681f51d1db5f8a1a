//! What a leader remembers of a transfer of its leadership that is under way (`transfer.rs` has the steps).

use crate::{Index, Peer, Tick, Ticket};

/// Why a leader hands over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Cause {
    /// Somebody wants it.
    Asked(Ticket),
    /// Its disk does not finish a write (D5.1.10).
    Disk,
    /// It does not vote any more (D5.1.16).
    Left,
}

/// A transfer that is under way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Transfer {
    pub(crate) cause: Cause,
    pub(crate) to: Peer,
    pub(crate) since: Tick,
    /// How far the target's machine must have come before the leader stops taking commands.
    pub(crate) upto: Index,
    pub(crate) step: Step,
}

/// How far it has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Step {
    /// The target is brought up to date, and commands are taken meanwhile.
    CatchUp,
    /// No commands are taken since then. When TimeoutNow was sent last, if it was.
    Hold { since: Tick, asked: Option<Tick> },
}

/// For what a leader has tried by itself to hand over: once for each trouble that it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct GaveWay {
    /// Since its disk does not finish a write. One that did since may be in trouble again.
    pub(crate) disk: bool,
    left: bool,
}

impl GaveWay {
    pub(crate) fn has_tried(self, cause: Cause) -> bool {
        match cause {
            Cause::Asked(_) => false,
            Cause::Disk => self.disk,
            Cause::Left => self.left,
        }
    }

    pub(crate) fn tries(&mut self, cause: Cause) {
        match cause {
            Cause::Asked(_) => {}
            Cause::Disk => self.disk = true,
            Cause::Left => self.left = true,
        }
    }
}

impl Transfer {
    pub(crate) fn holds(&self) -> bool {
        matches!(self.step, Step::Hold { .. })
    }

    pub(crate) fn was_asked(&self) -> bool {
        matches!(self.step, Step::Hold { asked: Some(_), .. })
    }
}
