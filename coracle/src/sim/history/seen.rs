//! What the search has already tried: Lowe's memory, with one improvement.
//!
//! A *configuration* is all that the rest of a search depends on: which operations have been placed, and the
//! state that they left. Two orders that lead to the same configuration have the same future, so the second
//! is not followed (Lowe, "Testing for linearizability", 2017, section 4).
//!
//! The improvement concerns operations with an unknown outcome, which never *have* to be placed. Having
//! placed fewer of them is never worse: whatever completes the history from `{a, b}` completes it from `{a}`.
//! So a configuration is also dropped if one was tried that differs only in having placed a *subset* of its
//! unknown operations.
//!
//! The answered operations that have been placed are told by two things (see [`search`](super::search)): the
//! `front`, before which all are placed, and the bits of those beyond it. Everything lies in flat vectors:
//! one allocation grows now and then, none is made for each configuration. The hash function is fixed, so
//! the same history takes the same steps everywhere.

use std::hash::{Hash, Hasher};

/// Marks the end of a chain.
const NONE: u32 = u32::MAX;

/// The configurations tried so far.
pub(super) struct Seen<S> {
    /// The first entry of the chain of each hash, [`NONE`] where there is none. A power of two long.
    heads: Vec<u32>,
    entries: Vec<Entry<S>>,
    /// For each entry: the words of placed answered operations, then those of placed unknown ones.
    words: Vec<u64>,
    /// Words of answered operations.
    answered: usize,
    /// Words of unknown operations.
    unknown: usize,
}

struct Entry<S> {
    hash: u64,
    front: usize,
    state: S,
    next: u32,
}

/// What [`Seen::insert`] found.
pub(super) struct Visit {
    /// Whether the configuration has to be tried.
    pub(super) new: bool,
    /// How many entries were compared, to be charged to the budget.
    pub(super) compared: u64,
}

impl<S: Clone + Eq + Hash> Seen<S> {
    /// An empty memory for bit sets of so many words.
    pub(super) fn new(answered: usize, unknown: usize) -> Self {
        Seen { heads: vec![NONE; 64], entries: Vec::new(), words: Vec::new(), answered, unknown }
    }

    /// The number of configurations remembered.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Remembers a configuration unless one that is at least as good is known.
    pub(super) fn insert(&mut self, front: usize, answered: &[u64], state: &S, unknown: &[u64]) -> Visit {
        let mut hasher = Mixer(front as u64);
        for &word in answered {
            hasher.write_u64(word);
        }
        state.hash(&mut hasher);
        self.insert_hashed(hasher.finish(), front, answered, state, unknown)
    }

    fn insert_hashed(
        &mut self,
        hash: u64,
        front: usize,
        answered: &[u64],
        state: &S,
        unknown: &[u64],
    ) -> Visit {
        let mut compared = 0;
        let mut at = self.heads[hash as usize & (self.heads.len() - 1)];
        while at != NONE {
            compared += 1;
            let entry = &self.entries[at as usize];
            if entry.hash == hash && entry.front == front && entry.state == *state {
                let start = at as usize * (self.answered + self.unknown);
                let (placed, optional) =
                    self.words[start..start + self.answered + self.unknown].split_at(self.answered);
                if placed == answered && optional.iter().zip(unknown).all(|(old, new)| old & !new == 0) {
                    return Visit { new: false, compared };
                }
            }
            at = entry.next;
        }

        if self.entries.len() >= self.heads.len() {
            self.grow();
        }
        let bucket = hash as usize & (self.heads.len() - 1);
        let next = std::mem::replace(&mut self.heads[bucket], self.entries.len() as u32);
        self.entries.push(Entry { hash, front, state: state.clone(), next });
        self.words.extend_from_slice(answered);
        self.words.extend_from_slice(unknown);
        Visit { new: true, compared }
    }

    fn grow(&mut self) {
        self.heads = vec![NONE; self.heads.len() * 4];
        let mask = self.heads.len() - 1;
        for (at, entry) in self.entries.iter_mut().enumerate() {
            entry.next = std::mem::replace(&mut self.heads[entry.hash as usize & mask], at as u32);
        }
    }
}

/// A small multiplicative hasher: the same everywhere, and fast on the few words of a state. Its inputs come
/// from one's own tests, so nobody has to be kept from colliding on purpose; a collision costs a comparison.
#[derive(Default)]
pub(super) struct Mixer(u64);

impl Hasher for Mixer {
    fn finish(&self) -> u64 {
        let mixed = (self.0 ^ (self.0 >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        mixed ^ (mixed >> 32)
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, n: u8) {
        self.write_u64(u64::from(n));
    }

    fn write_u32(&mut self, n: u32) {
        self.write_u64(u64::from(n));
    }

    fn write_u64(&mut self, n: u64) {
        self.0 = (self.0.rotate_left(26) ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }

    fn write_usize(&mut self, n: usize) {
        self.write_u64(n as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_configuration_is_new_only_once() {
        let mut seen = Seen::new(1, 1);
        assert!(seen.insert(3, &[5], &'a', &[0]).new);
        assert!(!seen.insert(3, &[5], &'a', &[0]).new);
        assert!(seen.insert(4, &[5], &'a', &[0]).new, "another front");
        assert!(seen.insert(3, &[4], &'a', &[0]).new, "other operations placed");
        assert!(seen.insert(3, &[5], &'b', &[0]).new, "another state");
        assert_eq!(seen.len(), 4);
    }

    #[test]
    fn a_collision_of_hashes_confuses_nothing() {
        let mut seen = Seen::new(1, 1);
        assert!(seen.insert_hashed(1, 3, &[5], &'a', &[0]).new);
        assert!(!seen.insert_hashed(1, 3, &[5], &'a', &[0]).new);
        assert!(seen.insert_hashed(1, 4, &[5], &'a', &[0]).new, "another front");
        assert!(seen.insert_hashed(1, 3, &[4], &'a', &[0]).new, "other operations placed");
        assert!(seen.insert_hashed(1, 3, &[5], &'b', &[0]).new, "another state");
    }

    #[test]
    fn fewer_unknown_operations_are_at_least_as_good() {
        let mut seen = Seen::new(1, 2);
        assert!(seen.insert(0, &[0], &(), &[0b110, 1]).new);
        assert!(!seen.insert(0, &[0], &(), &[0b111, 3]).new, "a superset");
        assert!(seen.insert(0, &[0], &(), &[0b101, 1]).new, "neither contains the other");
        assert!(seen.insert(0, &[0], &(), &[0b100, 0]).new, "a subset");
    }

    #[test]
    fn nothing_is_lost_by_growing() {
        let mut seen = Seen::new(1, 0);
        for n in 0..10_000u64 {
            assert!(seen.insert(0, &[n], &n, &[]).new);
        }
        for n in 0..10_000u64 {
            assert!(!seen.insert(0, &[n], &n, &[]).new);
        }
    }
}
