//! How deep MessagePack nests, looked at before it is decoded.
//!
//! A decoder recurses where its input nests, and the one in use bounds only lists and maps, not enums in
//! enums. So a few hundred KB of a command could end the stack of every node that applies it, and the whole
//! process with it, again after each restart. This walks over the bytes without recursion, in pieces of any
//! size, and knows where the value ends.

/// The deepest nesting of lists, maps and enums that is decoded. An expression tree of a few dozen levels
/// fits; a debug build takes well below 1 MiB of stack for it.
pub(crate) const MAX_DEPTH: usize = 128;

/// A walk over one value.
#[derive(Default)]
pub(crate) struct Nesting {
    /// For each list and map that is open: how many values are still to come in it.
    open: Vec<u64>,
    /// The start of a value that has not come whole yet: its marker and its length.
    head: Vec<u8>,
    /// Bytes of the current value that are still to come.
    skip: u64,
    ended: bool,
}

impl Nesting {
    /// Takes the next bytes.
    pub(crate) fn feed(&mut self, mut bytes: &[u8]) -> Result<(), &'static str> {
        while let Some((first, rest)) = bytes.split_first() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() as u64);
                bytes = &bytes[skipped as usize..];
                self.skip -= skipped;
                if self.skip == 0 {
                    self.end_of_value();
                }
                continue;
            }
            if self.ended {
                return Err("there are bytes after its end");
            }
            bytes = rest;
            self.head.push(*first);
            if self.head.len() > length_bytes(self.head[0]) {
                let (items, skip) = inside(&self.head)?;
                self.head.clear();
                match (items, skip) {
                    (0, 0) => self.end_of_value(),
                    (0, skip) => self.skip = skip,
                    _ if self.open.len() == MAX_DEPTH => return Err("it is nested deeper than 128"),
                    (items, _) => self.open.push(items),
                }
            }
        }
        Ok(())
    }

    fn end_of_value(&mut self) {
        while let Some(left) = self.open.last_mut() {
            *left -= 1;
            if *left > 0 {
                return;
            }
            self.open.pop();
        }
        self.ended = true;
    }
}

/// How many bytes of length follow the marker.
fn length_bytes(marker: u8) -> usize {
    match marker {
        0xc4 | 0xc7 | 0xd9 => 1,
        0xc5 | 0xc8 | 0xda | 0xdc | 0xde => 2,
        0xc6 | 0xc9 | 0xdb | 0xdd | 0xdf => 4,
        _ => 0,
    }
}

/// What belongs to a value after its head: so many values, or so many bytes.
fn inside(head: &[u8]) -> Result<(u64, u64), &'static str> {
    let length = head[1..].iter().fold(0, |length, byte| length << 8 | u64::from(*byte));
    Ok(match head[0] {
        0x00..=0x7f | 0xc0 | 0xc2 | 0xc3 | 0xe0..=0xff => (0, 0),
        marker @ 0x80..=0x8f => (2 * u64::from(marker & 0x0f), 0),
        marker @ 0x90..=0x9f => (u64::from(marker & 0x0f), 0),
        marker @ 0xa0..=0xbf => (0, u64::from(marker & 0x1f)),
        0xc1 => return Err("it is no MessagePack"),
        0xc4..=0xc6 | 0xd9..=0xdb => (0, length),
        // One more byte says what kind of extension it is.
        0xc7..=0xc9 => (0, length + 1),
        0xcc | 0xd0 => (0, 1),
        0xcd | 0xd1 => (0, 2),
        0xca | 0xce | 0xd2 => (0, 4),
        0xcb | 0xcf | 0xd3 => (0, 8),
        marker @ 0xd4..=0xd8 => (0, (1 << (marker - 0xd4)) + 1),
        0xdc | 0xdd => (length, 0),
        0xde | 0xdf => (2 * length, 0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde::Serialize;

    fn walk(bytes: &[u8], piece: usize) -> Result<bool, &'static str> {
        let mut nesting = Nesting::default();
        for piece in bytes.chunks(piece) {
            nesting.feed(piece)?;
        }
        Ok(nesting.ended)
    }

    #[derive(Clone, Debug, Serialize)]
    enum Any {
        Nothing,
        Numbers(u8, i16, u32, i64, f32, f64, u128),
        Text(String),
        Blob(bytes::Bytes),
        Named { left: Option<bool>, right: Vec<Any> },
    }

    fn value() -> impl Strategy<Value = Any> {
        let lengths = prop_oneof![0..40usize, 250..260usize, 65_530..65_540usize];
        let leaf = prop_oneof![
            Just(Any::Nothing),
            any::<(u8, i16, u32, i64, f32, f64, u128)>()
                .prop_map(|(a, b, c, d, e, f, g)| Any::Numbers(a, b, c, d, e, f, g)),
            lengths.clone().prop_map(|length| Any::Text("x".repeat(length))),
            lengths.prop_map(|length| Any::Blob(vec![0xdd; length].into())),
        ];
        leaf.prop_recursive(4, 30, 20, |inner| {
            (any::<Option<bool>>(), prop::collection::vec(inner, 0..20))
                .prop_map(|(left, right)| Any::Named { left, right })
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_value_ends_where_it_ends_in_pieces_of_any_size(value in value(), piece in 1..100usize) {
            let bytes = rmp_serde::to_vec_named(&value).unwrap();
            prop_assert_eq!(walk(&bytes, piece), Ok(true));
            prop_assert_eq!(walk(&bytes[..bytes.len() - 1], piece), Ok(false));
            prop_assert!(walk(&[&bytes[..], &[0]].concat(), piece).is_err());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), piece in 1..20usize) {
            let _ = walk(&bytes, piece);
        }
    }

    #[test]
    fn the_deepest_nesting_is_a_number() {
        let deep = |depth| [&vec![0x91; depth][..], &[0]].concat();
        assert_eq!(walk(&deep(MAX_DEPTH), 7), Ok(true));
        assert!(walk(&deep(MAX_DEPTH + 1), 7).unwrap_err().contains(&MAX_DEPTH.to_string()));
    }
}
