//! Timers: a machine asks to be called at a time of the cluster's clock (D5.5.2).
//!
//! A timer has a name, and a time at which it is due. Setting it again replaces it. When the clock of a leader has come so
//! far it writes an entry that says nothing but its own time; whatever is due by then *fires*, in the order of the times,
//! and of two that are due at once the one first that was set first. So a timer fires in the same place of the log
//! everywhere, and between two firings stand whatever commands stand there.
//!
//! The table as it is when that entry is applied decides. What was cancelled, or set to another time, is not due; what has
//! fired is gone. So an entry that comes twice, or from a leader that knew less, does nothing, and has to name nothing.
//!
//! All of this is a function of the log alone, and part of every snapshot.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_core::{Broken, Index};
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_128;

/// How many timers may be set.
const TIMERS: usize = 1_000_000;

/// How many fire by one entry at most, so that no entry holds up the machine for long.
const AT_ONCE: usize = 1024;

/// The bytes of one in a snapshot.
const ENCODED: usize = 28;

/// The most that all timers take in a snapshot.
pub(crate) const MAX_ENCODED: usize = 4 + TIMERS * ENCODED;

/// Where a timer was set: by which entry, and as the how manieth of that.
pub(crate) type Place = (u64, u32);

/// As many timers are set as may be: 1,000,000. The one that was to be set is not; one that is set already can still be set
/// to another time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("as many timers are set as may be")]
pub struct TimersFull;

/// All timers.
#[derive(Clone, Default, Debug)]
pub(crate) struct Timers {
    /// When each is due, and where it was set, by name.
    set: BTreeMap<u64, (u64, Place)>,
    /// The same in the order in which they fire: time, place, name.
    order: BTreeSet<(u64, Place, u64)>,
    /// Where the newest was set that this entry has set.
    newest: Place,
    /// A digest of all of them, kept as it changes.
    digest: u128,
    pub(crate) broken: Broken,
}

/// What a timer adds to the digest, and takes away again.
fn share(name: u64, due: u64, place: Place) -> u128 {
    xxh3_128(&encode(name, due, place))
}

fn encode(name: u64, due: u64, (index, ordinal): Place) -> [u8; ENCODED] {
    let mut bytes = [0; ENCODED];
    for (at, number) in [name, due, index].into_iter().enumerate() {
        bytes[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
    }
    bytes[24..].copy_from_slice(&ordinal.to_le_bytes());
    bytes
}

impl Timers {
    /// None are set.
    pub(crate) fn new(broken: Broken) -> Timers {
        Timers { broken, ..Timers::default() }
    }

    /// The entry at this index sets a timer.
    pub(crate) fn set(&mut self, index: u64, name: u64, due: u64) -> Result<(), TimersFull> {
        if self.set.len() >= TIMERS && !self.set.contains_key(&name) {
            return Err(TimersFull);
        }
        self.remove(name);
        self.newest = if self.newest.0 == index { (index, self.newest.1 + 1) } else { (index, 0) };
        self.insert(name, due, self.newest);
        Ok(())
    }

    /// False: there was none of this name.
    pub(crate) fn cancel(&mut self, name: u64) -> bool {
        !self.broken.is("cancelled-timer-fires") && self.remove(name)
    }

    fn insert(&mut self, name: u64, due: u64, place: Place) {
        self.set.insert(name, (due, place));
        self.order.insert((due, place, name));
        self.digest ^= share(name, due, place);
    }

    fn remove(&mut self, name: u64) -> bool {
        let Some((due, place)) = self.set.remove(&name) else { return false };
        self.order.remove(&(due, place, name));
        self.digest ^= share(name, due, place);
        true
    }

    /// When a timer is due.
    pub(crate) fn due(&self, name: u64) -> Option<u64> {
        self.set.get(&name).map(|(due, _)| *due)
    }

    /// When the first of all is due, and by which entry it was set.
    pub(crate) fn first(&self) -> Option<(u64, Index)> {
        self.order.first().map(|(due, (index, _), _)| (*due, Index(*index)))
    }

    /// What is to fire at this time by one entry, in this order: each if it [still stands](Timers::fires) when it is its turn.
    pub(crate) fn due_by(&self, time: u64) -> Vec<(u64, Place, u64)> {
        let time = if self.broken.is("timer-fires-early") { time.saturating_add(1000) } else { time };
        self.order.iter().take_while(|(due, ..)| *due <= time).take(AT_ONCE).copied().collect()
    }

    /// It is the turn of this one: whether it fires, and is gone. One that fired before it may have cancelled it, or set it
    /// anew.
    pub(crate) fn fires(&mut self, (due, place, name): (u64, Place, u64)) -> bool {
        let stands = self.set.get(&name) == Some(&(due, place));
        stands && (self.broken.is("timer-fires-twice") || self.remove(name))
    }

    /// Sums up all of them. All zeros while there are none.
    pub(crate) fn digest(&self) -> [u8; 16] {
        self.digest.to_le_bytes()
    }

    /// All of them, for a snapshot; nothing if there are none.
    pub(crate) fn encode(&self) -> Bytes {
        if self.set.is_empty() {
            return Bytes::new();
        }
        let mut bytes = BytesMut::with_capacity(4 + self.set.len() * ENCODED);
        bytes.put_u32_le(self.set.len() as u32);
        for (name, (due, place)) in &self.set {
            bytes.put_slice(&encode(*name, *due, *place));
        }
        bytes.freeze()
    }

    /// What a snapshot says. None: it makes no sense.
    pub(crate) fn decode(bytes: &Bytes, broken: Broken) -> Option<Timers> {
        let mut all = Timers::new(broken);
        let mut from = bytes.clone();
        if from.is_empty() {
            return Some(all);
        }
        let count = from.try_get_u32_le().ok()?;
        for _ in 0..count {
            let (name, due) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
            let place = (from.try_get_u64_le().ok()?, from.try_get_u32_le().ok()?);
            let unknown = all.set.last_key_value().is_none_or(|(last, _)| *last < name);
            if !unknown {
                return None;
            }
            all.insert(name, due, place);
        }
        (from.is_empty() && count > 0).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What fires at this time, by one entry.
    fn fired(timers: &mut Timers, time: u64) -> Vec<u64> {
        let due = timers.due_by(time);
        due.into_iter().filter(|timer| timers.fires(*timer)).map(|(.., name)| name).collect()
    }

    #[test]
    fn timers_fire_by_time_and_then_in_the_order_in_which_they_were_set() {
        let mut timers = Timers::default();
        for (index, name, due) in [(3, 9, 50), (3, 1, 50), (4, 5, 50), (5, 7, 40), (6, 2, 60)] {
            timers.set(index, name, due).unwrap();
        }
        assert_eq!(timers.first(), Some((40, Index(5))));
        assert!(fired(&mut timers, 39).is_empty());
        assert_eq!(fired(&mut timers, 50), [7, 9, 1, 5]);
        assert!(fired(&mut timers, 50).is_empty(), "each once");
        assert_eq!((timers.due(2), timers.due(9)), (Some(60), None));
    }

    #[test]
    fn what_was_cancelled_or_set_anew_does_not_fire() {
        let mut timers = Timers::default();
        for name in 0..4 {
            timers.set(name, name, 10).unwrap();
        }
        assert!(timers.cancel(0) && !timers.cancel(0) && !timers.cancel(77));
        timers.set(8, 1, 30).unwrap();
        // Within the burst, too.
        let due = timers.due_by(10);
        assert_eq!(due.iter().map(|it| it.2).collect::<Vec<_>>(), [2, 3]);
        timers.set(9, 3, 5).unwrap();
        assert!(timers.fires(due[0]) && !timers.fires(due[1]));
        assert_eq!(fired(&mut timers, 10), [3], "it is another one now, for the next entry");
        assert_eq!(fired(&mut timers, 30), [1]);
    }

    #[test]
    fn a_burst_is_several_entries() {
        let mut timers = Timers::default();
        (0..2 * AT_ONCE as u64 + 1).for_each(|name| timers.set(1, name, 10).unwrap());
        for expected in [AT_ONCE, AT_ONCE, 1, 0] {
            assert_eq!(fired(&mut timers, 10).len(), expected);
        }
    }

    #[test]
    fn there_is_room_for_so_many_and_those_that_are_set_can_be_moved() {
        let mut timers = Timers::default();
        (0..TIMERS as u64).for_each(|name| timers.set(1, name, 10).unwrap());
        assert_eq!(timers.set(2, TIMERS as u64, 10), Err(TimersFull));
        assert_eq!(timers.set(2, 0, 20), Ok(()));
        assert_eq!(timers.encode().len(), MAX_ENCODED);
        assert!(timers.cancel(1));
        assert_eq!(timers.set(2, TIMERS as u64, 10), Ok(()));
    }

    #[test]
    fn timers_survive_their_encoding_and_the_digest_sees_all_of_them() {
        let mut timers = Timers::default();
        assert_eq!((timers.digest(), timers.encode()), ([0; 16], Bytes::new()));
        timers.set(3, 9, 50).unwrap();
        timers.set(3, 1, 50).unwrap();
        timers.set(4, u64::MAX, u64::MAX).unwrap();
        let bytes = timers.encode();
        let back = Timers::decode(&bytes, Broken::default()).unwrap();
        assert_eq!((&back.set, &back.order, back.digest), (&timers.set, &timers.order, timers.digest));
        for length in 1..bytes.len() {
            assert!(Timers::decode(&bytes.slice(..length), Broken::default()).is_none(), "{length}");
        }
        for other in [[&bytes[..], &[0]].concat(), vec![0; 4]] {
            assert!(Timers::decode(&other.into(), Broken::default()).is_none());
        }
        for (name, due, index) in [(9, 51, 3), (8, 50, 3), (9, 50, 2)] {
            assert_ne!(share(9, 50, (3, 0)), share(name, due, (index, 0)));
        }
        assert!([1, 9, u64::MAX].into_iter().all(|name| timers.cancel(name)));
        assert_eq!(timers.digest(), [0; 16]);
    }
}
