//! A shortcut for the judge of histories: one order that may explain what the clients saw.
//!
//! To find such an order is NP-complete, but to check one is not. The simulator knows more than its clients:
//! at which index of the log each write took effect, and how far the machine had come that answered each
//! read. If the order by index explains all answers, no search is needed. If it does not, that proves nothing.

use super::history::kv::{Command, Input, Output};
use super::history::{History, Operation, Outcome};
use bytes::{Bytes, BytesMut};
use coracle_core::Index;
use std::collections::BTreeMap;

/// Whether the writes, each at the index at which it was done, explain all answers, if each read stands as late
/// as its answer allows, and no later than `at`. `at` has one place for each operation of the history; a write
/// that has none never took effect.
pub(super) fn explains(history: &History<Input, Output>, at: &[Option<Index>]) -> bool {
    let reads = |operation: &Operation<Input, Output>| operation.input.command == Command::Get;
    let mut writes: Vec<_> = history.operations().iter().zip(at).filter(|(it, _)| !reads(it)).collect();
    writes.sort_by_key(|(_, at)| **at);
    let (mut values, mut order) = (BTreeMap::new(), Vec::new());
    // What each key held, and from which index on.
    let mut held: BTreeMap<&Bytes, Vec<(Index, Option<Bytes>)>> = BTreeMap::new();
    for (write, at) in writes {
        let Some(at) = *at else {
            if write.output().is_some() {
                return false;
            }
            continue;
        };
        let output = apply(&mut values, &write.input);
        if write.output().is_some_and(|seen| Some(seen) != output.as_ref()) {
            return false;
        }
        let key = &write.input.key;
        held.entry(key).or_default().push((at, values.get(key).cloned()));
        order.push((at, write));
    }
    for (read, at) in history.operations().iter().zip(at).filter(|(it, _)| reads(it)) {
        let (Some(at), Some(Output::Value(seen))) = (*at, read.output()) else { continue };
        let versions = held.get(&read.input.key).map_or(&[][..], Vec::as_slice);
        let mut upto = at;
        let place = versions.iter().rev().filter(|(from, _)| *from <= at).find_map(|(from, value)| {
            let last = std::mem::replace(&mut upto, from.prev());
            (value == seen).then_some(last)
        });
        match place.or((seen.is_none()).then_some(upto)) {
            Some(place) => order.push((place, read)),
            None => return false,
        }
    }
    // A read stands after the write of the same index. Whoever was answered before another one asked must
    // stand before it.
    order.sort_by_key(|(at, operation)| (*at, reads(operation), operation.invoked));
    let mut newest = 0;
    order.into_iter().all(|(_, operation)| {
        newest = newest.max(operation.invoked);
        !matches!(operation.outcome, Outcome::Returned { at, .. } if at < newest)
    })
}

/// What one machine does. None for what no simulated client asks.
fn apply(values: &mut BTreeMap<Bytes, Bytes>, input: &Input) -> Option<Output> {
    let key = &input.key;
    Some(match &input.command {
        Command::Get => Output::Value(values.get(key).cloned()),
        Command::Put(text) => {
            values.insert(key.clone(), text.clone());
            Output::Done
        }
        Command::Append(text) => {
            let mut value = BytesMut::from(values.get(key).map_or(&[][..], |value| value));
            value.extend_from_slice(text);
            values.insert(key.clone(), value.freeze());
            Output::Done
        }
        Command::Cas { from, to } => {
            let fits = values.get(key) == from.as_ref();
            if fits {
                values.insert(key.clone(), to.clone());
            }
            Output::Swapped(fits)
        }
        Command::Delete => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Options;
    use crate::sim::world::World;

    /// A put of "a" that is answered, then a get that is answered with this, at these indexes.
    fn explained(seen: Option<&'static str>, put: u64, get: u64) -> bool {
        let mut history = History::new();
        let write = history.invoke(1, Input::new("k", Command::Put("a".into())));
        history.complete(write, Output::Done);
        let read = history.invoke(2, Input::new("k", Command::Get));
        history.complete(read, Output::Value(seen.map(Bytes::from)));
        explains(&history, &[Some(Index(put)), Some(Index(get))])
    }

    #[test]
    fn an_order_explains_only_what_it_gives_and_in_time() {
        assert!(explained(Some("a"), 3, 3) && explained(Some("a"), 3, 4));
        assert!(!explained(None, 3, 4), "another answer");
        assert!(!explained(None, 3, 2), "the right answer for its place, but out of time");
    }

    /// Of real runs, the order by index explains nearly all, whatever went wrong in them.
    #[test]
    fn the_order_of_the_log_explains_the_histories_of_runs() {
        let explained = |seed: u64| {
            let mut world = World::new(Options::new(seed));
            world.live().expect("no violation");
            world.clients.is_explained_by_the_log()
        };
        assert_eq!((0..40).filter(|seed| !explained(*seed)).collect::<Vec<u64>>(), Vec::<u64>::new());
    }
}
