//! Where a member was found: what peers tell each other, and what is kept on disk.

use coracle_core::{Boot, Peer};

/// A member was met, on its disk and in this boot, at an address.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// The member.
    pub peer: Peer,
    /// The boot in which it was met there.
    pub boot: Boot,
    /// Where, as `host:port`.
    pub address: String,
}
