//! The effects that are pending, as a machine and those who carry them out share them.
//!
//! The machine tells what has changed, and how far it has come, before it tells anybody else that it has come so far. So
//! whoever finds that a node is in office, and that this stands in its term, sees everything that was settled before.

use crate::codec::{CodecError, message_pack};
use crate::pending::{Change, Token};
use bytes::Bytes;
use coracle_core::{Broken, Term};
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Something that a machine wants done outside of the cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Effect {
    /// What it is called, whoever carries it out.
    pub token: Token,
    /// What is to be done, encoded.
    pub payload: Bytes,
}

impl Effect {
    /// What was [given](crate::Context::effect).
    pub fn given<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        message_pack::decode(&self.payload)
    }
}

/// What is pending where a machine stands.
#[derive(Default, Debug)]
pub(crate) struct Outstanding {
    effects: BTreeMap<Token, Bytes>,
    /// The term of the newest entry that the machine has applied.
    term: Term,
    broken: Broken,
}

/// How far somebody is who carries effects out.
#[derive(Default, Debug)]
pub(crate) struct Place {
    /// The office in which that is.
    office: Option<Term>,
    /// The newest effect that it was given in this office.
    newest: Option<Token>,
}

impl Outstanding {
    /// The same, of code that breaks this rule.
    #[cfg(feature = "sim")]
    pub(crate) fn breaking(broken: Broken) -> Outstanding {
        Outstanding { broken, ..Outstanding::default() }
    }

    /// The machine has come to an entry of this term, and this has changed.
    pub(crate) fn take(&mut self, changes: Vec<Change>, term: Term) {
        self.term = term;
        for change in changes {
            match change {
                Change::Given(token, payload) => drop(self.effects.insert(token, payload)),
                Change::Settled(token) => drop(self.effects.remove(&token)),
                Change::All(effects) => self.effects = effects,
            }
        }
    }

    /// The next effect for somebody who is there, at a node that is in this office: each once for each office.
    pub(crate) fn next(&self, office: Option<Term>, place: &mut Place) -> Option<Effect> {
        let office = match office.filter(|term| *term == self.term || self.broken.is("effects-before-office"))
        {
            Some(term) => term,
            None if self.broken.is("follower-carries-out") => self.term,
            None => return None,
        };
        if place.office != Some(office) {
            *place = Place { office: Some(office), newest: self.forgotten(office) };
        }
        let after = (place.newest.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let mut rest = self.effects.range(after);
        let next = if self.broken.is("effects-out-of-order") { rest.next_back() } else { rest.next() };
        let (token, payload) = next?;
        place.newest = Some(*token);
        Some(Effect { token: *token, payload: payload.clone() })
    }

    /// Up to where a mutant forgets what was given before its office.
    fn forgotten(&self, office: Term) -> Option<Token> {
        let earlier = |token: &&Token| token.term < office.0;
        let last = self.effects.keys().rev().find(earlier);
        last.filter(|_| self.broken.is("new-leader-forgets-effects")).copied()
    }

    /// Those that are pending.
    #[cfg(feature = "sim")]
    pub(crate) fn tokens(&self) -> impl Iterator<Item = Token> {
        self.effects.keys().copied()
    }
}

/// The same, shared.
#[derive(Default)]
pub(crate) struct Shared {
    outstanding: Mutex<Outstanding>,
    /// Rings when there is something new.
    pub(crate) news: watch::Sender<()>,
}

impl Shared {
    /// The machine has come to an entry of this term, and this has changed.
    pub(crate) fn take(&self, changes: Vec<Change>, term: Term) {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).take(changes, term);
        self.news.send_modify(|()| {});
    }

    /// The next effect for somebody who is there, at a node that is in this office.
    pub(crate) fn next(&self, office: Option<Term>, place: &mut Place) -> Option<Effect> {
        self.outstanding.lock().unwrap_or_else(PoisonError::into_inner).next(office, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(term: u64, index: u64) -> Token {
        Token { term, index, ordinal: 0 }
    }

    fn given(term: u64, index: u64) -> Change {
        Change::Given(token(term, index), Bytes::new())
    }

    /// All that somebody is given now.
    fn all(outstanding: &Outstanding, office: Option<u64>, place: &mut Place) -> Vec<u64> {
        std::iter::from_fn(|| outstanding.next(office.map(Term), place)).map(|it| it.token.index).collect()
    }

    #[test]
    fn each_is_given_once_for_each_office_and_in_order() {
        let (mut outstanding, mut place) = (Outstanding::default(), Place::default());
        outstanding.take(vec![given(1, 5), given(1, 2)], Term(1));
        assert_eq!(all(&outstanding, None, &mut place), [0; 0], "out of office");
        assert_eq!(all(&outstanding, Some(1), &mut place), [2, 5]);
        outstanding.take(vec![given(1, 7), Change::Settled(token(1, 2))], Term(1));
        assert_eq!(all(&outstanding, Some(1), &mut place), [7]);
        assert_eq!(all(&outstanding, None, &mut place), [0; 0]);
        assert_eq!(all(&outstanding, Some(1), &mut place), [0; 0], "it is the same office");
        outstanding.take(vec![given(3, 9)], Term(3));
        assert_eq!(all(&outstanding, Some(3), &mut place), [5, 7, 9], "all that are still pending");
        assert_eq!(all(&outstanding, Some(3), &mut Place::default()), [5, 7, 9], "somebody else");
    }

    /// An office of which the machine has not heard yet, or not any more, says nothing about what is pending.
    #[test]
    fn nothing_is_given_where_the_machine_stands_in_another_term() {
        let (mut outstanding, mut place) = (Outstanding::default(), Place::default());
        outstanding.take(vec![given(1, 2), given(1, 5)], Term(1));
        assert_eq!(all(&outstanding, Some(2), &mut place), [0; 0]);
        outstanding.take(vec![Change::Settled(token(1, 2))], Term(2));
        assert_eq!(all(&outstanding, Some(2), &mut place), [5]);
        outstanding.take(vec![Change::All(BTreeMap::from([(token(1, 2), Bytes::new())]))], Term(1));
        assert_eq!(all(&outstanding, Some(2), &mut place), [0; 0], "it went back");
        outstanding.take(vec![given(3, 7)], Term(3));
        assert_eq!(all(&outstanding, Some(2), &mut place), [0; 0], "another leads");
        assert_eq!(all(&outstanding, Some(3), &mut place), [2, 7]);
    }
}
