//! Encodings of commands and replies.
//!
//! The default is [`message_pack`]: self-describing, with the names of the fields. [`postcard`] is a third of the
//! size, names nothing, and cannot be read back where serde needs to look ahead; a machine that uses it says so:
//!
//! ```
//! # use bytes::Bytes;
//! # use coracle::{CodecError, codec};
//! # type Command = (u64, String);
//! # struct Machine;
//! # impl Machine {
//! const SELF_DESCRIBING: bool = false;
//! fn encode_command(command: &Command) -> Result<Bytes, CodecError> { codec::postcard::encode(command) }
//! fn decode_command(bytes: &Bytes) -> Result<Command, CodecError> { codec::postcard::decode(bytes) }
//! # }
//! ```
//!
//! Which types survive:
//!
//! | shape | MessagePack | postcard |
//! | --- | --- | --- |
//! | numbers, texts, options, tuples, structs, enums of every kind, maps | yes | yes |
//! | numbers of 128 bits | yes; no inside `tag`, `untagged` and `flatten` | yes |
//! | `#[serde(default)]` on a field that older bytes do not have | yes | no |
//! | `#[serde(skip_serializing_if)]` with `default` | yes | no |
//! | `#[serde(tag)]`, `#[serde(untagged)]`, `#[serde(flatten)]`, `serde_json::Value` | yes | no |
//! | `#[serde(skip_serializing_if)]` without `default` | no; yes where the field is an `Option` | no |
//! | lists, maps and enums nested deeper than 128 | no | yes, while the stack lasts |
//! | `Some(None)` in an `Option<Option<_>>`, `Some(())`, a variant of `untagged` that holds `None` | comes back as `None`, or as an earlier variant | yes |
//!
//! "No" means that the bytes cannot be read back, which [`write`](crate::Node::write) notices before anything
//! enters the log. What comes back as something else cannot be noticed. Both refuse bytes after the end. Use postcard
//! for no type that contains itself: nothing bounds its depth, and an overflown stack ends the process.

/// A command or reply could not be turned into bytes, or back.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct CodecError(pub String);

/// MessagePack with the names of the fields.
pub mod message_pack {
    use super::{CodecError, problem};
    use crate::nesting::Nesting;
    use bytes::Bytes;
    use serde::{Serialize, de::DeserializeOwned};

    /// The bytes of a value.
    pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
        rmp_serde::to_vec_named(value).map(Bytes::from).map_err(|error| problem::<T>("be encoded", &error))
    }

    /// The value of exactly these bytes.
    pub fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, CodecError> {
        let walked = Nesting::default().feed(bytes);
        walked.map_err(|error| problem::<T>("be read back", &error))?;
        let mut rest = &bytes[..];
        let value = rmp_serde::decode::from_read(&mut rest);
        let value = value.map_err(|error| problem::<T>("be read back", &error))?;
        match rest.len() {
            0 => Ok(value),
            left => Err(problem::<T>("be read back", &format!("{left} bytes are left over"))),
        }
    }
}

/// Postcard: small, without names.
pub mod postcard {
    use super::{CodecError, problem};
    use bytes::Bytes;
    use serde::{Serialize, de::DeserializeOwned};

    /// The bytes of a value.
    pub fn encode<T: Serialize>(value: &T) -> Result<Bytes, CodecError> {
        ::postcard::to_stdvec(value).map(Bytes::from).map_err(|error| problem::<T>("be encoded", &error))
    }

    /// The value of exactly these bytes.
    pub fn decode<T: DeserializeOwned>(bytes: &Bytes) -> Result<T, CodecError> {
        match ::postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => {
                Err(problem::<T>("be read back", &format!("{} bytes are left over", rest.len())))
            }
            Err(error) => Err(problem::<T>("be read back", &error)),
        }
    }
}

fn problem<T>(what: &str, why: &dyn std::fmt::Display) -> CodecError {
    let name = std::any::type_name::<T>();
    CodecError(format!("a {name} cannot {what}: {why}; `coracle::codec` tells which types can"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use serde::de::DeserializeOwned;
    use serde::{Deserialize, Serialize};
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    enum Every {
        Unit,
        New(u8),
        Tuple(i64, String),
        Struct { a: Option<bool>, b: BTreeMap<u32, Vec<f64>> },
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum Tagged {
        On { level: u8 },
        Off,
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Number(u64),
        Text(String),
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct Skips {
        #[serde(skip_serializing_if = "Option::is_none", default)]
        first: Option<u8>,
        second: u8,
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct Flat {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, u8>,
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    struct SkipsForGood {
        #[serde(skip_serializing_if = "Vec::is_empty")]
        list: Vec<u8>,
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    enum TaggedWide {
        Wide { number: u128 },
    }

    #[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
    enum Expression {
        Number(u64),
        Not(Box<Expression>),
        All(Vec<Expression>),
    }

    fn nested(depth: usize, wrap: fn(Expression) -> Expression) -> Expression {
        (0..depth).fold(Expression::Number(1), |inner, _| wrap(inner))
    }

    #[derive(PartialEq, Debug, Serialize)]
    struct Older {
        a: u8,
    }

    #[derive(PartialEq, Debug, Deserialize)]
    struct Newer {
        a: u8,
        #[serde(default)]
        b: u8,
    }

    /// Whether the value survives MessagePack, and postcard.
    fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> (bool, bool) {
        let back = |encoded: Result<Bytes, CodecError>, decode: fn(&Bytes) -> Result<T, CodecError>| {
            encoded.and_then(|bytes| decode(&bytes)).is_ok_and(|back| back == *value)
        };
        (
            back(message_pack::encode(value), message_pack::decode),
            back(postcard::encode(value), postcard::decode),
        )
    }

    /// The table in the documentation.
    #[test]
    fn the_shapes_that_survive_and_those_that_do_not() {
        let both = (true, true);
        for every in [
            Every::Unit,
            Every::New(7),
            Every::Tuple(i64::MIN, "text".into()),
            Every::Struct { a: Some(true), b: [(1, vec![0.5, -1e300])].into() },
        ] {
            assert_eq!(survives(&every), both, "{every:?}");
        }
        assert_eq!(survives(&(u64::MAX, 'c', (), Some("x".to_owned()), [1u8; 4])), both);
        assert_eq!(survives(&(u128::MAX, i128::MIN)), both);
        let only = (true, false);
        assert_eq!(survives(&Tagged::On { level: 3 }), only);
        assert_eq!(survives(&Untagged::Text("t".into())), only);
        assert_eq!(survives(&Skips { first: None, second: 2 }), only);
        assert_eq!(survives(&Flat { a: 1, rest: [("b".to_owned(), 2)].into() }), only);
        assert_eq!(survives(&serde_json::json!({"a": [1, "b", null, 2.5]})), only);
        assert_eq!(survives(&SkipsForGood { list: Vec::new() }), (false, false));
        assert_eq!(survives(&TaggedWide::Wide { number: 5 }), (false, false));
        assert_eq!(survives(&nested(100, |inner| Expression::Not(inner.into()))), both);
        assert_eq!(survives(&nested(50, |inner| Expression::All(vec![inner]))), both);
        assert_eq!(survives(&Some(None::<u8>)), (false, true));
        assert_eq!(survives(&Some(())), (false, true));
        let older = message_pack::encode(&Older { a: 1 }).unwrap();
        assert_eq!(message_pack::decode::<Newer>(&older), Ok(Newer { a: 1, b: 0 }));
        assert!(postcard::decode::<Newer>(&postcard::encode(&Older { a: 1 }).unwrap()).is_err());
    }

    #[test]
    fn bytes_after_the_end_are_refused() {
        let bytes = Bytes::from([&message_pack::encode(&7u8).unwrap()[..], &[0]].concat());
        assert!(message_pack::decode::<u8>(&bytes).is_err());
        let bytes = Bytes::from([&postcard::encode(&7u8).unwrap()[..], &[0]].concat());
        assert!(postcard::decode::<u8>(&bytes).is_err());
    }

    /// A peer may send anything as a command: a list in a list, a million times, must not end the stack.
    #[test]
    fn what_is_nested_too_deep_is_refused() {
        let bytes = Bytes::from(vec![0x91; 1 << 20]);
        assert!(message_pack::decode::<serde_json::Value>(&bytes).is_err());
        // Nor an enum in an enum, which the decoder by itself does not count.
        for level in [&b"\x81\xa3Not"[..], b"\x81\xa3All\x91"] {
            let error = message_pack::decode::<Expression>(&level.repeat(1 << 18).into()).unwrap_err();
            assert!(error.0.contains("nested deeper than 128"), "{error}");
        }
    }

    #[test]
    fn an_error_names_the_type_and_the_problem() {
        let error = message_pack::decode::<Tagged>(&Bytes::from_static(&[0x93, 1])).unwrap_err();
        assert!(error.0.contains("Tagged cannot be read back"), "{error}");
    }
}
