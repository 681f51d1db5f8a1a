//! What a node knows of a machine that was given up, and of those of others that are (D5.1.14). What it does about it is in
//! [`mending`](crate::mending).

use crate::error::{StopReason, in_full};
use coracle_core::{Index, LogId, Peer};
use std::collections::BTreeMap;

/// After a rebuild by itself, the next one waits for so long, in ticks; each time for twice as long, up to the most.
const PAUSE: u64 = 1_000;
pub(crate) const PAUSE_AT_MOST: u64 = 360_000;

/// Why a machine is not rebuilt.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RebuildError {
    /// The node belongs to no cluster.
    #[error("the node belongs to no cluster")]
    NotConfigured,
    /// There is no other voter, whose machine could give it its state.
    #[error("no other member votes, so there is no machine to rebuild this one from")]
    Alone,
    /// The node leads. Have another one lead first.
    #[error("the node leads: have another node lead first, from whose machine this one is rebuilt")]
    Leads,
    /// No leader is known now. Nothing was changed.
    #[error("there is no leader now from whose machine it could be rebuilt: nothing was changed")]
    NoLeader,
    /// The machine has stopped before this entry. It is to be ruled first what becomes of that.
    #[error("the machine has stopped before entry {0}: have that skipped or tried again first")]
    MachineStopped(LogId),
    /// The time is over. The machine is not used meanwhile, and is rebuilt once what it waits for is there.
    #[error("it is not rebuilt yet, and goes on: {0}")]
    Timeout(String),
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// How far a machine has come that was given up.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Step {
    /// Nobody has it rebuilt.
    #[default]
    Rests,
    /// The leader is asked for a snapshot from after this entry.
    Asks(Index),
    /// One is here, durably.
    Here,
    /// The older ones are being removed.
    Clears,
    /// They are gone.
    Cleared,
    /// The machine takes its state from this one.
    Takes(LogId),
    /// It has it, and the identity is being told.
    Lifts(LogId),
}

/// Machines that are rebuilt: this node's, and at a leader those of others.
#[derive(Debug)]
pub(crate) struct Mending {
    /// Whether that is done by itself.
    pub(crate) by_itself: bool,
    /// Whether somebody has asked for it.
    pub(crate) asked: bool,
    pub(crate) step: Step,
    /// Not by itself before then, and for how long the time after that.
    pub(crate) not_before: u64,
    pub(crate) pause: u64,
    /// Which members want a snapshot, from after which entry.
    pub(crate) wanted: BTreeMap<Peer, Index>,
}

impl Mending {
    pub(crate) fn new(by_itself: bool) -> Mending {
        let (asked, step, wanted) = (false, Step::Rests, BTreeMap::new());
        Mending { by_itself, asked, step, not_before: 0, pause: PAUSE, wanted }
    }

    /// Who wants a snapshot, from after which entry.
    pub(crate) fn wanted(&self) -> &BTreeMap<Peer, Index> {
        &self.wanted
    }
}
