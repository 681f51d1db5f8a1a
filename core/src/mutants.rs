//! Rules that can be broken on purpose, so that a simulator can show that it would notice.
//!
//! A *mutant* is this very code with one rule broken. Which one is decided at run time, by name, for each
//! node on its own; the names stand where the rules do. Without the feature `mutants` nothing can be
//! broken: every question is answered by a constant, and what it guards is gone from the program.

use crate::{Membership, Message, Peer};
use alloc::vec::Vec;

/// The rule that is broken, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Broken {
    #[cfg(feature = "mutants")]
    name: Option<&'static str>,
}

impl Broken {
    /// The rule with this name is broken.
    #[cfg(feature = "mutants")]
    pub fn rule(name: Option<&'static str>) -> Broken {
        Broken { name }
    }

    /// Whether it is this one.
    #[inline(always)]
    pub fn is(self, name: &str) -> bool {
        #[cfg(feature = "mutants")]
        return self.name == Some(name);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = name;
            false
        }
    }

    /// Whether one vote less than a quorum elects, and is there.
    pub(crate) fn elects_too_early(
        self,
        membership: &Membership,
        vote_of: impl Fn(Peer) -> Option<bool>,
    ) -> bool {
        self.is("election-quorum-too-small")
            && too_few(membership, |peer| vote_of(peer) == Some(true)).unwrap_or(false)
    }

    /// What a quorum has reached; where the rule `name` is broken, what one voter less has.
    pub(crate) fn lower_quorum<T: Ord + Copy>(
        self,
        name: &str,
        membership: &Membership,
        value_of: impl Fn(Peer) -> T,
        reached: T,
    ) -> T {
        if self.is(name) { too_few(membership, value_of).unwrap_or(reached) } else { reached }
    }
}

/// The largest value that one voter fewer than a quorum has reached.
fn too_few<T: Ord + Copy>(membership: &Membership, value_of: impl Fn(Peer) -> T) -> Option<T> {
    let mut values: Vec<T> = membership.voting_peers().map(value_of).collect();
    values.sort_unstable();
    values.get(values.len() - values.len() / 2).copied()
}

impl Message {
    /// The rule that keeps it from leaving before the disk has done what came before it.
    pub(crate) fn rule_that_holds_it(&self) -> &'static str {
        match self {
            Message::RequestVote(_) => "vote-request-not-held",
            _ => "vote-not-held",
        }
    }
}
