//! What is known of keys that went: whether one that is not there has been there since some revision.
//!
//! Keys share a few slots, by their places, which are hashes of their names, and a slot knows the newest revision that wrote
//! a key of its own that is gone. So it is bounded however many keys come and go. What it says of a key that is not there may
//! be the doing of another, of the same slot, that was written and went meanwhile: then a transaction is void without need,
//! and is tried again.
//! Keys that were there before matter to nobody, whenever they go.

use std::sync::Arc;
use xxhash_rust::xxh3::xxh3_128;

/// In a mark: the key was not there, at the revision that the rest says.
pub(super) const ABSENT: u64 = 1 << 63;

/// How many slots there are.
pub(super) const SLOTS: usize = 1 << 14;

/// See the [module](self).
#[derive(Clone, Default, Debug)]
pub(crate) struct Gone {
    /// The revision of each slot, 0 at first; none of them before the first key went.
    slots: Arc<Vec<u64>>,
    print: u128,
}

impl Gone {
    /// The key in this place is gone, which was written last in this revision.
    pub(super) fn note(&mut self, database: u8, place: u64, modified: u64) {
        self.raise(slot(database, place), modified);
    }

    /// Any key may be gone that was written up to this revision.
    pub(super) fn note_all(&mut self, revision: u64) {
        (0..SLOTS).for_each(|slot| self.raise(slot, revision));
    }

    /// The key in this place, if it is gone, was not written after this revision.
    pub(super) fn newest(&self, database: u8, place: u64) -> u64 {
        self.slots.get(slot(database, place)).copied().unwrap_or(0)
    }

    /// The slots that know anything, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (usize, u64)> {
        self.slots.iter().copied().enumerate().filter(|(_, revision)| *revision > 0)
    }

    /// Has a slot know this, if it does not know of a newer one.
    pub(super) fn raise(&mut self, slot: usize, revision: u64) {
        // A snapshot that is being taken keeps the slots that it has.
        let slots = Arc::make_mut(&mut self.slots);
        slots.resize(SLOTS, 0);
        let known = &mut slots[slot];
        if revision > *known {
            self.print ^= print(slot, *known) ^ print(slot, revision);
            *known = revision;
        }
    }

    /// A digest of all of it, kept as it changes; 0 at first.
    pub(super) fn print(&self) -> u128 {
        self.print
    }
}

fn slot(database: u8, place: u64) -> usize {
    // So that a key that is moved to another database is not its own neighbour.
    (place as usize).wrapping_add(usize::from(database) * 1021) % SLOTS
}

fn print(slot: usize, revision: u64) -> u128 {
    if revision == 0 {
        return 0;
    }
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&(slot as u64).to_le_bytes());
    bytes[8..].copy_from_slice(&revision.to_le_bytes());
    xxh3_128(&bytes)
}
