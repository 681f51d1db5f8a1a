//! Leases (thesis, section 6.4.1; D5.4.3): reads at the leader without asking anybody, for a time.
//!
//! A leader that asks for leases says so in each AppendEntries, and its followers promise: for so long, from receipt on,
//! they neither campaign nor vote. While a quorum is so bound, nobody else can be elected, so nothing is committed that
//! this leader does not know of, and what it has committed is what a read must see. The leader goes by its own clock: it
//! counts from when the round that was answered had *left*, so that it stops before the first follower is free, as long
//! as its clock is not slower than theirs by more than the drift that it allows for.
//!
//! The two halves share no state: [`Promises`] belong to the node, whatever its role, and outlast terms and leaders;
//! [`Lease`] belongs to one leader in one term.

use crate::{HandedOver, Round, Tick};
use alloc::collections::VecDeque;

/// What a node has promised, and until when that binds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Promises {
    /// To which leader, in which term, it gave the newest promise; none since the start.
    to: Option<HandedOver>,
    /// Until when that one binds.
    until: Tick,
    /// Until when those bind that it gave to others, or before its start.
    others: Tick,
}

impl Promises {
    /// After a start it is not known what was promised last, only the longest promise ever: so it may have been that one,
    /// a moment ago, to anybody.
    pub(crate) fn after_start(now: Tick, longest: u64) -> Promises {
        Promises { to: None, until: Tick::default(), others: now.after(longest) }
    }

    /// Promises to `leader` until this moment. What others were promised stays promised.
    pub(crate) fn give(&mut self, leader: HandedOver, until: Tick) {
        if self.to != Some(leader) {
            let others = self.others.max(self.until);
            *self = Promises { to: Some(leader), until: Tick::default(), others };
        }
        self.until = self.until.max(until);
    }

    /// Whether it is bound at this moment: by what it promised to anybody but the leader that gave way itself.
    pub(crate) fn bind(&self, now: Tick, gave_way: Option<HandedOver>) -> bool {
        let spares = gave_way.is_some() && gave_way == self.to;
        now < self.others || (now < self.until && !spares)
    }
}

/// A leader's half.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lease {
    /// When rounds left, oldest first: the first round of a tick, and that tick. None from longer ago than a lease lasts.
    rounds: VecDeque<(Round, Tick)>,
    /// Whether it has told somebody to take over in this term.
    pub(crate) gave_way: bool,
}

impl Lease {
    /// A round leaves now, and asks for so long a lease.
    pub(crate) fn on_round(&mut self, round: Round, now: Tick, asked: u64) {
        while self.rounds.front().is_some_and(|(_, left)| now.since(*left) > asked) {
            self.rounds.pop_front();
        }
        if asked > 0 && self.rounds.back().is_none_or(|(_, left)| *left < now) {
            self.rounds.push_back((round, now));
        }
    }

    /// When this round left; none if that was so long ago that it does not matter.
    pub(crate) fn left(&self, round: Round) -> Option<Tick> {
        let after = self.rounds.partition_point(|(first, _)| *first <= round);
        after.checked_sub(1).and_then(|at| self.rounds.get(at)).map(|(_, left)| *left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NodeId, Peer, Term};

    fn leader(id: u64, term: u64) -> HandedOver {
        HandedOver { by: Peer { id: NodeId(id), ..Peer::default() }, term: Term(term) }
    }

    #[test]
    fn a_promise_to_another_leader_takes_nothing_back() {
        let (a, b) = (leader(1, 1), leader(2, 2));
        let mut promises = Promises::after_start(Tick(0), 0);
        assert!(!promises.bind(Tick(0), None), "it never promised anything");
        promises.give(a, Tick(30));
        promises.give(a, Tick(20));
        assert!(promises.bind(Tick(29), None), "a shorter promise does not shorten it");
        assert!(!promises.bind(Tick(29), Some(a)), "but for whom that very leader told to campaign");
        assert!(promises.bind(Tick(29), Some(leader(1, 2))), "in that very term");
        promises.give(b, Tick(25));
        assert!(
            promises.bind(Tick(29), None)
                && promises.bind(Tick(29), Some(b))
                && promises.bind(Tick(29), Some(a))
        );
        assert!(!promises.bind(Tick(30), None));
    }

    #[test]
    fn a_start_is_bound_to_everybody_by_the_longest_promise() {
        let promises = Promises::after_start(Tick(100), 30);
        assert!(promises.bind(Tick(129), Some(leader(1, 1))));
        assert!(!promises.bind(Tick(130), None));
    }

    #[test]
    fn of_the_rounds_of_a_tick_the_first_stands_for_all_and_old_ones_are_forgotten() {
        let mut lease = Lease::default();
        for (round, now) in [(1, 10), (2, 10), (3, 15), (4, 22)] {
            lease.on_round(Round(round), Tick(now), 10);
        }
        let left = |round| lease.left(Round(round));
        assert_eq!([left(1), left(2), left(3), left(4)], [None, None, Some(Tick(15)), Some(Tick(22))]);
        let mut none = Lease::default();
        none.on_round(Round(1), Tick(10), 0);
        assert_eq!(none, Lease::default(), "nothing is kept where no lease is asked for");
    }
}
