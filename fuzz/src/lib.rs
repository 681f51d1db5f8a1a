//! What strangers, members and disks can feed to Coracle: one function for each kind, which takes any bytes and must
//! neither panic, nor take long, nor take much memory.
//!
//! `cargo test -p coracle-fuzz` runs each over the files that are kept for it in `corpus/`, within those bounds.
//! `scripts/fuzz` looks for new ones with libFuzzer. Checksums would stop nearly all that a fuzzer makes, so most targets
//! put right ones in: whoever attacks can do that too.
#![forbid(unsafe_code)]

mod disk;
mod steps;
mod wire;

pub use disk::{entry, identity, segment, snapshot};
pub use steps::steps;
pub use wire::{frame, resp, stream};

/// A target, by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("stream", stream),
    ("frame", frame),
    ("entry", entry),
    ("segment", segment),
    ("snapshot", snapshot),
    ("identity", identity),
    ("resp", resp),
    ("steps", steps),
];

/// What a target draws from the bytes that it is given; zeros once they are used up.
struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn u16(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// True once in so many times.
    fn once_in(&mut self, times: u8) -> bool {
        self.byte().is_multiple_of(times)
    }

    fn bytes(&mut self, most: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }

    fn is_over(&self) -> bool {
        self.0.is_empty()
    }
}
