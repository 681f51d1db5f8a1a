//! A hash: fields with values, in the order of their names.

use crate::key::Key;
use crate::value::Value;
use imbl::OrdMap;
use xxhash_rust::xxh3::xxh3_128;

/// About the memory that a field takes besides the bytes of its name and value.
const OVERHEAD: usize = 112;

/// The fields of a hash. Clones share them.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Fields {
    fields: OrdMap<Key, Value>,
    /// Of all names and values.
    bytes: usize,
    /// The digests of all fields, together.
    prints: u128,
}

impl Fields {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The bytes of all names and values.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// About the memory that they take.
    pub(crate) fn weight(&self) -> usize {
        self.bytes + self.len() * OVERHEAD
    }

    /// The value of a field.
    pub fn get(&self, field: &[u8]) -> Option<&Value> {
        self.fields.get(field)
    }

    /// All of them, in the order of their names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &Value)> {
        self.fields.iter().map(|(field, value)| (field.as_bytes(), value))
    }

    /// Gives a field its value. True if it is new.
    pub(crate) fn set(&mut self, field: &[u8], value: Value) -> bool {
        self.bytes += field.len() + value.len();
        self.prints ^= print(field, &value);
        match self.fields.insert(Key::from(field), value) {
            Some(before) => {
                self.forget(field, &before);
                false
            }
            None => true,
        }
    }

    /// Removes a field. False if it is not there.
    pub(crate) fn remove(&mut self, field: &[u8]) -> bool {
        let removed = self.fields.remove(field);
        if let Some(before) = &removed {
            self.forget(field, before);
        }
        removed.is_some()
    }

    fn forget(&mut self, field: &[u8], before: &Value) {
        self.bytes -= field.len() + before.len();
        self.prints ^= print(field, before);
    }

    /// A digest of all of them, kept as they change.
    pub(crate) fn print(&self) -> u128 {
        self.prints
    }
}

fn print(field: &[u8], value: &Value) -> u128 {
    let name = xxh3_128(field);
    let mut bytes = [0; 40];
    bytes[..16].copy_from_slice(&name.to_le_bytes());
    bytes[16..32].copy_from_slice(&value.print(name as u64).to_le_bytes());
    bytes[32..].copy_from_slice(&(value.len() as u64).to_le_bytes());
    xxh3_128(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_as_fields_change_is_what_they_come_to() {
        let mut fields = Fields::default();
        let sum =
            |fields: &Fields| fields.iter().map(|(field, value)| field.len() + value.len()).sum::<usize>();
        let digest = |fields: &Fields| fields.iter().fold(0, |sum, (field, value)| sum ^ print(field, value));
        for (field, value) in [("a", "1"), ("b", ""), ("a", "22"), ("", "x"), ("b", "1")] {
            let new = fields.get(field.as_bytes()).is_none();
            assert_eq!(fields.set(field.as_bytes(), value.as_bytes().into()), new);
            assert_eq!((fields.bytes(), fields.print()), (sum(&fields), digest(&fields)));
        }
        assert!(fields.remove(b"a") && !fields.remove(b"a"));
        assert_eq!((fields.len(), fields.bytes(), fields.print()), (2, sum(&fields), digest(&fields)));
        assert!(fields.remove(b"") && fields.remove(b"b"));
        assert_eq!((fields.bytes(), fields.print()), (0, 0));
    }

    #[test]
    fn prints_tell_names_from_values_and_fields_from_each_other() {
        let of = |pairs: &[(&str, &str)]| {
            let mut fields = Fields::default();
            for (field, value) in pairs {
                fields.set(field.as_bytes(), value.as_bytes().into());
            }
            fields.print()
        };
        let all = [
            of(&[]),
            of(&[("a", "b")]),
            of(&[("b", "a")]),
            of(&[("ab", "")]),
            of(&[("", "ab")]),
            of(&[("a", "b"), ("b", "a")]),
        ];
        for (at, print) in all.iter().enumerate() {
            assert!(!all[at + 1..].contains(print), "{at}");
        }
    }
}
