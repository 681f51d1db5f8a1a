//! How fresh the answer to a query has to be, and how fresh it is.

use coracle_core::{Broken, Index, LogId};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How fresh the answer to a query has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Freshness {
    /// It reflects every write that was completed anywhere before the call (linearizable): a round of messages to a
    /// majority, which reads that come together share.
    #[default]
    Linearizable,
    /// It reflects everything up to this entry, and asks no other node: to read one's own writes, or on from what was read
    /// before, at any node. Let the reply to a write say its place, [`Context::id`](crate::Context::id).
    AtLeast(Index),
    /// It reflects every write that was completed anywhere so long before the call, at the latest. A node that has answered a
    /// read within that time asks no other node; otherwise this is a linearizable read.
    Within(Duration),
}

/// An answer, and how fresh it is.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Seen<A> {
    /// What the state machine answered.
    pub answer: A,
    /// The newest entry that is reflected in it.
    pub applied: LogId,
    /// It reflects every write that was completed anywhere before this time ago, counted from when the answer was here. None
    /// where nothing is known of that.
    pub age: Option<Duration>,
}

/// What the newest read has shown: every write completed before that time lies up to that entry, and the machine of this node
/// has applied it. The time is that of a clock of this node alone, which runs while the computer sleeps.
#[derive(Debug, Default)]
pub(crate) struct Confirmed {
    newest: Mutex<Option<(Duration, Index)>>,
    broken: Broken,
}

/// A read that has begun.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun {
    freshness: Freshness,
    called: Duration,
    /// When it was known what is reflected in it, if it asks nobody else and that is asked for.
    known: Option<Duration>,
    /// The entry that the machine must have applied, if no other node is asked.
    pub(crate) from: Option<Index>,
}

impl Confirmed {
    /// The same, of code that breaks this rule.
    #[cfg(feature = "sim")]
    pub(crate) fn breaking(broken: Broken) -> Confirmed {
        Confirmed { newest: Mutex::default(), broken }
    }

    /// How a read that has to be so fresh is done that is called at this time.
    pub(crate) fn begin(&self, freshness: Freshness, called: Duration) -> Begun {
        let known = match freshness {
            Freshness::Within(bound) => self.within(bound, called),
            Freshness::Linearizable | Freshness::AtLeast(_) => None,
        };
        let from = match freshness {
            Freshness::AtLeast(_) if self.broken.is("at-least-at-once") => Some(Index::ZERO),
            Freshness::AtLeast(index) => Some(index),
            Freshness::Linearizable | Freshness::Within(_) => known.map(|(_, index)| index),
        };
        Begun { freshness, called, known: known.map(|(began, _)| began), from }
    }

    /// The read was answered, after it was confirmed up to that entry, if it was. The time before which everything was done that
    /// the answer reflects, if that is known.
    pub(crate) fn end(
        &self,
        begun: &Begun,
        confirmed: Option<Index>,
        now: impl FnOnce() -> Duration,
    ) -> Option<Duration> {
        match (begun.freshness, begun.known) {
            (Freshness::AtLeast(_), _) => None,
            (_, Some(began)) => Some(began),
            (_, None) => {
                let began = if self.broken.is("confirmed-when-answered") { now() } else { begun.called };
                if let Some(upto) = confirmed {
                    self.learn(began, upto);
                }
                Some(began)
            }
        }
    }

    /// A read that began at this time was confirmed up to this entry, and answered.
    fn learn(&self, began: Duration, upto: Index) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        // The index of a later read may be smaller: another node that leads may know less. Both are right.
        if newest.is_none_or(|(before, _)| before < began) {
            *newest = Some((began, upto));
        }
    }

    /// The entry up to which everything lies that was completed so long before now, and when that was known.
    fn within(&self, bound: Duration, now: Duration) -> Option<(Duration, Index)> {
        let newest = *self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        newest.filter(|(began, _)| now.saturating_sub(*began) <= bound || self.broken.is("bound-ignored"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RD-1: what is known of a time is known of everything before it, and of nothing after it.
    #[test]
    fn what_a_read_has_shown_holds_for_as_long_as_is_asked() {
        let ms = Duration::from_millis;
        let confirmed = Confirmed::default();
        assert_eq!(confirmed.within(ms(1000), ms(500)), None);
        confirmed.learn(ms(500), Index(7));
        assert_eq!(confirmed.within(ms(100), ms(600)), Some((ms(500), Index(7))));
        assert_eq!(confirmed.within(ms(99), ms(600)), None);
        confirmed.learn(ms(400), Index(9));
        assert_eq!(confirmed.within(ms(100), ms(600)), Some((ms(500), Index(7))), "the later one stays");
        confirmed.learn(ms(550), Index(6));
        assert_eq!(
            confirmed.within(ms(100), ms(600)),
            Some((ms(550), Index(6))),
            "it reflects what the later one says"
        );
    }
}
