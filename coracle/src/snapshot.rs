//! A machine's state as bytes: what [`StateMachine::snapshot`](crate::StateMachine::snapshot) returns, and
//! two helpers for machines that are small enough to be cloned.
//!
//! A snapshot has two halves. The first runs on the machine's thread and must be cheap, since nothing is
//! applied meanwhile: it takes hold of the state as it is. The second, [`Save`], writes what was taken, on
//! another thread, beside the machine that goes on. A machine that is `Clone` and `Serialize` takes hold by
//! a copy:
//!
//! ```
//! use coracle::snapshot::{self, Save};
//! # use serde::{Deserialize, Serialize};
//! # use std::{collections::BTreeMap, io};
//! #[derive(Clone, Serialize, Deserialize)]
//! struct Kv(BTreeMap<String, String>);
//!
//! impl Kv {
//!     fn snapshot(&self) -> impl Save {
//!         snapshot::save(self.clone())
//!     }
//!     fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
//!         snapshot::load(from).map(|saved| *self = saved)
//!     }
//! }
//! ```
//!
//! Both use MessagePack with the names of the fields, so a later version may add fields that have a
//! `#[serde(default)]` and still restore what an earlier one saved. A copy costs O(state) of time and
//! memory. Where that is too much, keep the state in a persistent map, whose clone is O(1), and write
//! it piece by piece.

use crate::nesting::Nesting;
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, BufReader, BufWriter, Read, Write};

/// The second half of a snapshot: writes the state that was taken. Any closure with this signature is one.
///
/// It runs once, on a thread of its own, and may take its time.
pub trait Save: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static {}

impl<F: FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static> Save for F {}

/// Bytes that go to, or come from, the file at a time.
const BUFFER: usize = 64 << 10;

/// Writes this copy of a state, in MessagePack with the names of the fields.
pub fn save<T: Serialize + Send + 'static>(state: T) -> impl Save {
    move |to: &mut dyn Write| {
        let mut to = BufWriter::with_capacity(BUFFER, to);
        rmp_serde::encode::write_named(&mut to, &state).map_err(|error| match error {
            rmp_serde::encode::Error::InvalidValueWrite(error) => io::Error::from(error),
            other => invalid::<T>("cannot be saved", &other),
        })?;
        to.flush()
    }
}

/// Reads a state that [`save`] wrote. Input that is cut short, goes on after the state, or is something else
/// is an error of the kind [`InvalidData`](io::ErrorKind::InvalidData).
pub fn load<T: DeserializeOwned>(from: &mut dyn Read) -> io::Result<T> {
    let walked = Walked { from, nesting: Nesting::default() };
    let mut from = BufReader::with_capacity(BUFFER, walked);
    let state =
        rmp_serde::from_read(&mut from).map_err(|error| invalid::<T>("cannot be restored", &error))?;
    // The walk refuses whatever follows.
    from.read(&mut [0]).map_err(|error| invalid::<T>("cannot be restored", &error))?;
    Ok(state)
}

/// What is read, and never deeper nested than a stack can bear.
struct Walked<'a> {
    from: &'a mut dyn Read,
    nesting: Nesting,
}

impl Read for Walked<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(to)?;
        let walked = self.nesting.feed(&to[..read]);
        walked.map_err(|problem| io::Error::new(io::ErrorKind::InvalidData, problem))?;
        Ok(read)
    }
}

fn invalid<T>(what: &str, why: &dyn std::fmt::Display) -> io::Error {
    let state = std::any::type_name::<T>();
    io::Error::new(io::ErrorKind::InvalidData, format!("the state {state} {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
    struct State {
        names: BTreeMap<u64, String>,
        #[serde(with = "serde_bytes_like")]
        blob: Vec<u8>,
        nested: Option<Box<State>>,
    }

    /// Bytes as bytes, and not as a list of numbers.
    mod serde_bytes_like {
        use bytes::Bytes;
        use serde::{Deserialize, Deserializer, Serialize, Serializer};

        pub(super) fn serialize<S: Serializer>(bytes: &[u8], to: S) -> Result<S::Ok, S::Error> {
            Bytes::copy_from_slice(bytes).serialize(to)
        }

        pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
            Bytes::deserialize(from).map(Vec::from)
        }
    }

    fn saved(state: &State) -> Vec<u8> {
        let mut bytes = Vec::new();
        save(state.clone())(&mut bytes).unwrap();
        bytes
    }

    fn state() -> State {
        let inner = State { blob: vec![0; 1000], ..State::default() };
        let names = (0..100).map(|n| (n, n.to_string())).collect();
        State { names, blob: vec![7; 100_000], nested: Some(Box::new(inner)) }
    }

    #[test]
    fn a_state_is_loaded_as_it_was_saved() {
        assert_eq!(load::<State>(&mut &saved(&state())[..]).unwrap(), state());
    }

    #[test]
    fn a_state_that_is_cut_or_longer_is_an_error() {
        let whole = saved(&state());
        for cut in (0..whole.len()).step_by(97).chain([whole.len() - 1]) {
            let error = load::<State>(&mut &whole[..cut]).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "cut at {cut}: {error}");
        }
        let error = load::<State>(&mut &[&whole[..], &[0]].concat()[..]).unwrap_err();
        assert!(error.to_string().contains("bytes after its end"), "{error}");
    }

    #[test]
    fn a_length_in_a_snapshot_is_not_believed() {
        // A blob, a string and a map of 4 GiB, of which nothing is there.
        for claim in [&b"\xc6\xff\xff\xff\xff"[..], b"\xdb\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"] {
            assert!(load::<bytes::Bytes>(&mut &claim[..]).is_err());
            assert!(load::<String>(&mut &claim[..]).is_err());
            assert!(load::<Vec<u64>>(&mut &claim[..]).is_err());
            assert!(load::<BTreeMap<u64, u64>>(&mut &claim[..]).is_err());
            assert!(load::<State>(&mut &claim[..]).is_err());
        }
    }

    #[test]
    fn a_state_that_nests_without_end_is_an_error_and_no_overflow() {
        #[derive(Debug, Deserialize)]
        #[allow(dead_code, reason = "only its depth matters")]
        struct Deep(Vec<Deep>);
        assert!(load::<Deep>(&mut &vec![0x91; 1 << 20][..]).is_err());
    }

    #[test]
    fn an_error_of_the_file_comes_through() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        assert_eq!(save(state())(&mut Full).unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
