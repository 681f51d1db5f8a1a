//! The rules of linearizable reads by ReadIndex (thesis, section 6.4).

use super::Rules;
use crate::{Boot, Index, RoleName, Round};

impl Rules {
    /// 1. "If the leader has not yet marked an entry from its current term committed, it waits until it has done so."
    pub(crate) fn knows_commit(self, commit: Index, start_of_term: Index) -> bool {
        commit >= start_of_term || self.broken.is("read-before-own-commit")
    }

    /// 2. "The leader saves the current value of its commit index in a local variable readIndex."
    pub(crate) fn read_index(self, commit: Index) -> Index {
        if self.broken.is("read-granted-at-zero") { Index::ZERO } else { commit }
    }

    /// 3. "The leader needs to make sure it hasn't been superseded by a newer leader of which it is unaware. It issues
    ///    a new round of heartbeats".
    pub(crate) fn is_confirmed(self, awaited: Round, echoed: Round) -> bool {
        awaited <= echoed || self.broken.is("read-without-round")
    }

    /// 3. "new": a read waits for a round that starts after it came; one that has started already may have been echoed
    ///    before (D5.4.1).
    pub(crate) fn round_to_await(self, newest: Round, under_way: Option<Round>) -> Round {
        let joins = self.broken.is("read-joins-round-under-way");
        under_way.filter(|_| joins).unwrap_or(newest.next())
    }

    /// Whoever waits for an index hears that it will not come, when a role ends or cannot give one (D5.4.1).
    pub(crate) fn answers_reads(self, role: RoleName) -> bool {
        match role {
            RoleName::Leader => !self.broken.is("leader-forgets-reads"),
            RoleName::Candidate | RoleName::PreCandidate => !self.broken.is("candidate-forgets-reads"),
            _ => !self.broken.is("follower-forgets-reads"),
        }
    }

    /// A follower's question is of one boot of its process, and an answer to another boot is none (D5.4.1).
    pub(crate) fn is_of_this_run(self, boot: Boot, own: Boot) -> bool {
        boot == own || self.broken.is("answer-to-another-run")
    }

    /// Only the answer to the newest question counts: an older one was given before the reads came (D5.4.1).
    pub(crate) fn question_answered(self, sequence: u64, newest: Option<u64>) -> u64 {
        if self.broken.is("answer-to-any-question") { newest.unwrap_or(sequence) } else { sequence }
    }
}
