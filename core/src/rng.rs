//! The core's only chance: a small seeded generator, so that a run replays from its seed.

/// SplitMix64 (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014). Its quality is
/// far above what spreading election timeouts needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in (low, high]; `high` where the range is empty.
    pub(crate) fn in_range(&mut self, low: u64, high: u64) -> u64 {
        let width = high.saturating_sub(low);
        if width == 0 { high } else { low + 1 + self.next() % width }
    }
}
