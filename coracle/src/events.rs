//! What a machine publishes while it applies, and how much of that is remembered.
//!
//! Events are a function of the log: a command that took effect has the same events, in the same places, on every node. So
//! whoever watches may go on at any node from where it was, and a node that starts anew publishes again what it applies
//! again. What came before its snapshot, or no longer has room, is *compacted*: whoever asks for it is told so, and
//! never gets later events as if they were the next ones.
//!
//! There is one history for all who watch, and each has only a place in it. So one that is slow costs nothing, and
//! finds out that it was too slow.

use crate::codec::{CodecError, message_pack};
use bytes::{BufMut, Bytes, BytesMut};
use coracle_core::{Broken, Index};
use serde::de::DeserializeOwned;
use std::collections::VecDeque;

/// What those who watch a machine are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub enum Publishes {
    /// Each command that took effect, as it stands in the log.
    #[default]
    Commands,
    /// What the machine [emits](crate::Context::emit), and nothing else.
    Emitted,
}

/// A place among the events: that of the event with this number, of the entry with this index.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Position {
    /// The entry's place in the log.
    pub index: Index,
    /// Which of its events, from 0.
    pub number: u32,
}

impl Position {
    /// The first event of the entry at this index.
    pub fn of_entry(index: u64) -> Position {
        Position { index: Index(index), number: 0 }
    }
}

/// Something that a machine published.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Event {
    /// Its place.
    pub at: Position,
    /// The cluster's clock in milliseconds when the command was applied.
    pub cluster_time: u64,
    /// The command or what was emitted, encoded.
    pub payload: Bytes,
}

impl Event {
    /// The place after it: where to watch from to get what comes next.
    pub fn next(&self) -> Position {
        Position { number: self.at.number + 1, ..self.at }
    }

    /// What was [emitted](crate::Context::emit).
    pub fn emitted<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        message_pack::decode(&self.payload)
    }

    /// What it costs to remember it.
    fn cost(&self) -> u64 {
        (self.payload.len() + size_of::<Event>()) as u64
    }
}

/// What a machine has published since it was asked last.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct News {
    /// Its state jumped to where everything up to this entry is applied, and what led there is not known.
    pub(crate) jumped: Option<Index>,
    /// What was published after that.
    pub(crate) events: Vec<Event>,
}

impl News {
    /// Takes down that the state jumped.
    pub(crate) fn jump(&mut self, to: Index) {
        (self.jumped, self.events) = (Some(to), Vec::new());
    }
}

/// The newest events, within a bound.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Event>,
    /// The bytes that they cost, and the most that they may.
    cost: u64,
    most: u64,
    /// The events of all entries up to this one are gone, and none of those after it is.
    compacted: Index,
    broken: Broken,
}

impl History {
    /// Of a machine that has applied everything up to there.
    pub(crate) fn new(most: u64, applied: Index) -> History {
        History { events: VecDeque::new(), cost: 0, most, compacted: applied, broken: Broken::default() }
    }

    /// The same, of code that breaks this rule.
    #[cfg(feature = "sim")]
    pub(crate) fn breaking(self, broken: Broken) -> History {
        History { broken, ..self }
    }

    /// Takes in what was published. The payloads are copied together, so that none keeps the buffer alive in which its
    /// entry came.
    pub(crate) fn take(&mut self, news: News) {
        if let Some(index) = news.jumped {
            self.events.clear();
            (self.cost, self.compacted) = (0, index);
        }
        let mut together = BytesMut::with_capacity(news.events.iter().map(|event| event.payload.len()).sum());
        for mut event in news.events {
            together.put_slice(&event.payload);
            event.payload = together.split().freeze();
            self.cost += event.cost();
            self.events.push_back(event);
        }
        while self.cost > self.most {
            self.forget_first();
        }
    }

    /// Forgets the events of the first entry, all of them.
    fn forget_first(&mut self) {
        let Some(index) = self.events.front().map(|event| event.at.index) else { return };
        while let Some(event) = self.events.front().filter(|event| event.at.index == index) {
            self.cost -= event.cost();
            self.events.pop_front();
        }
        if !self.broken.is("compacted-untold") {
            self.compacted = index;
        }
    }

    /// The next events from there on, so many at most. An error: those of entries up to this one are gone.
    pub(crate) fn from(&self, at: Position, most: usize) -> Result<Vec<Event>, Index> {
        if at.index <= self.compacted {
            return Err(self.compacted);
        }
        let first = self.events.partition_point(|event| event.at < at);
        Ok(self.events.range(first..).take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(index: u64, number: u32, payload: &str) -> Event {
        let at = Position { index: Index(index), number };
        Event { at, cluster_time: 0, payload: Bytes::copy_from_slice(payload.as_bytes()) }
    }

    fn news(events: &[Event]) -> News {
        News { jumped: None, events: events.to_vec() }
    }

    fn places(history: &History, at: (u64, u32), most: usize) -> Result<Vec<(u64, u32)>, u64> {
        let at = Position { index: Index(at.0), number: at.1 };
        let events = history.from(at, most).map_err(|compacted| compacted.0)?;
        Ok(events.iter().map(|event| (event.at.index.0, event.at.number)).collect())
    }

    #[test]
    fn events_are_found_from_any_place_on() {
        let mut history = History::new(1 << 20, Index::ZERO);
        history.take(news(&[event(2, 0, "a"), event(2, 1, "b"), event(5, 0, "c")]));
        history.take(news(&[event(7, 0, "d")]));
        assert_eq!(places(&history, (1, 0), 9), Ok(vec![(2, 0), (2, 1), (5, 0), (7, 0)]));
        assert_eq!(places(&history, (2, 1), 2), Ok(vec![(2, 1), (5, 0)]));
        assert_eq!(places(&history, (2, 2), 1), Ok(vec![(5, 0)]));
        assert_eq!(places(&history, (7, 1), 9), Ok(vec![]), "not yet");
        assert_eq!(places(&history, (900, 0), 9), Ok(vec![]), "not yet");
        assert_eq!(history.from(Position::of_entry(5), 1).unwrap()[0].payload, "c");
        assert_eq!(places(&history, (0, 0), 9), Err(0), "there is no entry 0");
    }

    /// What has no room goes entry by entry, and whoever wants it is told.
    #[test]
    fn what_has_no_room_is_compacted_by_whole_entries() {
        let one = event(1, 0, "0123456789").cost();
        let mut history = History::new(3 * one, Index::ZERO);
        history.take(news(&[
            event(1, 0, "0123456789"),
            event(1, 1, "0123456789"),
            event(3, 0, "0123456789"),
        ]));
        assert_eq!(places(&history, (1, 0), 1), Ok(vec![(1, 0)]));
        history.take(news(&[event(4, 0, "0123456789")]));
        assert_eq!(places(&history, (1, 1), 9), Err(1));
        assert_eq!(places(&history, (2, 0), 9), Ok(vec![(3, 0), (4, 0)]));
        assert_eq!(history.cost, 2 * one);
        history.take(news(&[event(9, 0, &"x".repeat(1000))]));
        assert_eq!(places(&history, (9, 0), 9), Err(9), "an event that is larger than all room");
        assert_eq!(places(&history, (10, 0), 9), Ok(vec![]));
        assert_eq!((history.cost, history.events.len()), (0, 0));
    }

    /// What led to a state that came from elsewhere is not known here.
    #[test]
    fn a_jump_of_the_state_leaves_nothing_of_before() {
        let mut history = History::new(1 << 20, Index(4));
        assert_eq!(places(&history, (4, 0), 9), Err(4));
        history.take(news(&[event(5, 0, "a")]));
        let mut jumped = news(&[event(6, 0, "gone")]);
        jumped.jump(Index(20));
        jumped.events.push(event(21, 0, "b"));
        history.take(jumped);
        assert_eq!(places(&history, (5, 0), 9), Err(20));
        assert_eq!(places(&history, (20, 3), 9), Err(20));
        assert_eq!(places(&history, (21, 0), 9), Ok(vec![(21, 0)]));
    }
}
