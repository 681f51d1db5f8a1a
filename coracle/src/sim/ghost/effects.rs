//! The judge's own table of effects: from the committed entries alone it knows which are pending after each of them (S34).

use super::{Verdict, broken};
use crate::entry::Entry;
use crate::outstanding::Effect;
use crate::pending::Token;
use crate::sim::machine::{Ask, Kv};
use coracle_core::{Index, Term};
use std::collections::{BTreeMap, BTreeSet};

/// An effect that was given at some time.
struct Known {
    payload: String,
    /// By which entry it was settled.
    settled: Option<Index>,
    /// Whether a node was given it to carry out.
    taken: bool,
}

/// What a node was given in which office.
#[derive(Clone, Default)]
struct Office {
    run: u64,
    term: Term,
    newest: Option<Token>,
}

/// What is committed, as far as any machine has applied it.
pub(in crate::sim) struct Effects {
    known: BTreeMap<Token, Known>,
    /// Those of them that were never settled.
    open: BTreeSet<Token>,
    applied: Index,
    offices: Vec<Office>,
    /// How often something was settled that was settled before.
    pub(in crate::sim) again: u64,
}

impl Effects {
    pub(in crate::sim) fn new(nodes: usize) -> Effects {
        let offices = vec![Office::default(); nodes];
        Effects { known: BTreeMap::new(), open: BTreeSet::new(), applied: Index::ZERO, offices, again: 0 }
    }

    /// How many are pending after the newest entry that any machine has applied.
    pub(in crate::sim) fn open(&self) -> usize {
        self.open.len()
    }

    /// Whether this one is.
    pub(in crate::sim) fn is_open(&self, token: Token) -> bool {
        self.open.contains(&token)
    }

    /// A machine was given an entry, a command of which took effect if `command` says it, and these timers fired.
    pub(in crate::sim) fn on_applied(&mut self, entry: &Entry, command: Option<&Ask>, fired: &[u64]) {
        if entry.index() != self.applied.next() {
            return;
        }
        self.applied = entry.index();
        if let Some(Ask::Settle(token)) = command {
            match self.known.get_mut(token).filter(|_| self.open.remove(token)) {
                Some(known) => known.settled = Some(entry.index()),
                None => self.again += 1,
            }
        }
        let of_timers = fired.iter().filter_map(|name| Kv::gives_when_fired(*name, entry.index()));
        let given = command.map(Kv::gives).into_iter().flatten().chain(of_timers);
        for (ordinal, payload) in (0..).zip(given.collect::<Vec<_>>()) {
            let token = Token { term: entry.term().0, index: entry.index().0, ordinal };
            self.known.insert(token, Known { payload, settled: None, taken: false });
            self.open.insert(token);
        }
    }

    /// Those that are pending after this entry.
    fn pending(&self, at: Index) -> impl Iterator<Item = Token> {
        let known = self.known.iter().take_while(move |(token, _)| token.index <= at.0);
        known.filter(move |(_, it)| it.settled.is_none_or(|settled| settled > at)).map(|(token, _)| *token)
    }

    /// A machine stands there, and has these effects pending.
    pub(in crate::sim) fn on_pending(
        &self,
        node: usize,
        at: Index,
        tokens: impl Iterator<Item = Token>,
    ) -> Verdict {
        let tokens: Vec<_> = tokens.collect();
        if self.pending(at).eq(tokens.iter().copied()) {
            return Ok(());
        }
        let expected: Vec<_> = self.pending(at).collect();
        let (tokens, expected) = (said(&tokens), said(&expected));
        broken(
            "S34",
            format!("after {at} node {} has {tokens} pending, and should have {expected}", node + 1),
        )
    }

    /// The next effect for this node in its office, by the entry that its machine has applied.
    fn next(&self, node: usize, (run, term): (u64, Term), at: Index) -> Option<Token> {
        let office = &self.offices[node];
        let newest = office.newest.filter(|_| (office.run, office.term) == (run, term));
        self.pending(at).find(|token| newest.is_none_or(|newest| *token > newest))
    }

    /// A node is given this to carry out, in its office, where its machine stands. Whether any node was given it before.
    pub(in crate::sim) fn on_given(
        &mut self,
        node: usize,
        office: Option<(u64, Term)>,
        at: Index,
        effect: &Effect,
    ) -> Result<bool, super::Violation> {
        let token = effect.token;
        let wrong = |what: String| {
            broken("S34", format!("after {at} node {} is given effect {token}, {what}", node + 1))
        };
        let Some((run, term)) = office else {
            return wrong("and is not in office".to_owned()).map(|()| false);
        };
        let next = self.next(node, (run, term), at);
        if next != Some(token) {
            let next = next.map_or("none".to_owned(), |next| next.to_string());
            return wrong(format!("and {next} is the next one")).map(|()| false);
        }
        self.offices[node] = Office { run, term, newest: Some(token) };
        match self.known.get_mut(&token) {
            Some(known) if known.payload.as_bytes() == effect.payload => {
                Ok(std::mem::replace(&mut known.taken, true))
            }
            _ => wrong(format!("which says {:?}", effect.payload)).map(|()| false),
        }
    }

    /// A node in office was given all that there is.
    pub(in crate::sim) fn on_all_given(&self, node: usize, office: (u64, Term), at: Index) -> Verdict {
        match self.next(node, office, at) {
            None => Ok(()),
            Some(token) => {
                broken("S34", format!("after {at} node {} leads, and is not given effect {token}", node + 1))
            }
        }
    }

    /// Whether it was given by a timer.
    pub(in crate::sim) fn is_of_timer(&self, token: Token) -> bool {
        self.known.get(&token).is_some_and(|known| known.payload.starts_with("timer"))
    }
}

fn said(tokens: &[Token]) -> String {
    let all: Vec<_> = tokens.iter().map(Token::to_string).collect();
    format!("[{}]", all.join(", "))
}
