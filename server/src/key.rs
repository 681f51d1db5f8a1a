//! A key of the store.
//!
//! A short one lies in the tree itself: a search then looks at the keys of a node without following a pointer from
//! each of them, and no key of usual length takes memory of its own.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest key that lies in the tree, in bytes: what fits beside a length and a tag in four words.
const SHORT: usize = 30;

/// A key, ordered by its bytes. Clones share those of a long one.
#[derive(Clone)]
pub(crate) enum Key {
    /// Up to [`SHORT`] bytes: how many, and they with zeros after.
    Short(u8, [u8; SHORT]),
    /// More.
    Long(Arc<[u8]>),
}

impl Key {
    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Key::Short(length, bytes) => &bytes[..usize::from(*length)],
            Key::Long(bytes) => bytes,
        }
    }
}

impl From<&[u8]> for Key {
    /// Copies the bytes.
    fn from(key: &[u8]) -> Key {
        let mut bytes = [0; SHORT];
        match bytes.get_mut(..key.len()) {
            Some(start) => {
                start.copy_from_slice(key);
                Key::Short(key.len() as u8, bytes)
            }
            None => Key::Long(key.into()),
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Key) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Key) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Key) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Key {}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().escape_ascii().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_short_key_takes_no_memory_of_its_own() {
        assert_eq!(size_of::<Key>(), 32);
        assert!(matches!(Key::from(&[7; SHORT][..]), Key::Short(..)));
        assert!(matches!(Key::from(&[7; SHORT + 1][..]), Key::Long(_)));
    }

    proptest! {
        /// Short or long, keys are ordered as their bytes are: zeros at the end count too.
        #[test]
        fn keys_are_ordered_by_their_bytes(
            one in prop::collection::vec(0..3u8, 0..2 * SHORT),
            other in prop::collection::vec(0..3u8, 0..2 * SHORT),
        ) {
            let keys = (Key::from(&one[..]), Key::from(&other[..]));
            prop_assert_eq!(keys.0.as_bytes(), &one[..]);
            prop_assert_eq!(keys.0.cmp(&keys.1), one.cmp(&other));
            prop_assert_eq!(keys.0 == keys.1, one == other);
        }
    }
}
