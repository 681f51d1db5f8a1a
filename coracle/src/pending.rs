//! Effects: what a machine wants done outside of the cluster, and what of that is pending (D5.5.2).
//!
//! A machine that applies an entry must not reach out of it: every node applies it, and some do so again. So it *gives* an
//! effect: a few bytes that say what is to be done. The effect is pending until a command says what came of it, which
//! *settles* it. In between a leader carries it out, and where leaders change, the next one does so again. Its token, the
//! place in the log at which it was given, is the same whoever carries it out, and how often.
//!
//! The table is a function of the log alone, and part of every snapshot. Nothing in it is ever given up for want of room: what
//! has none is not given.

use crate::codec::CodecError;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_core::{Broken, LogId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use xxhash_rust::xxh3::xxh3_128;

/// How many effects may be pending, and how many bytes they may take in a snapshot.
const EFFECTS: usize = 65_536;
const BYTES: usize = 16 << 20;

/// The bytes of one in a snapshot, without its payload.
const ENCODED: usize = 24;

/// The most that all of them take in a snapshot.
pub(crate) const MAX_ENCODED: usize = 4 + BYTES;

/// What an effect is called: the place in the log at which it was given. No other effect of the cluster ever has the same, and
/// whoever carries this one out again has this one: it is the key by which the world outside tells that.
///
/// A cluster that was founded [from a backup](crate::backup) goes on at a place that the old one may have
/// passed; if both reach the same world, the key is the token with the [cluster's id](crate::Status::cluster).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Token {
    /// The term of the entry by which it was given.
    pub term: u64,
    /// The index of that entry.
    pub index: u64,
    /// Which of that entry's effects it is, from 0.
    pub ordinal: u32,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.term, self.index, self.ordinal)
    }
}

/// As many effects are pending as may be: 65,536, or 16 MiB, of which each takes the length of its payload and 24 bytes. The
/// one that was to be given is not.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("as many effects are pending as may be")]
pub struct EffectsFull;

/// Why an effect was not given.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EffectError {
    /// As many are pending as may be.
    #[error(transparent)]
    Full(#[from] EffectsFull),
    /// The payload has no encoding.
    #[error("the effect cannot be encoded")]
    Codec(#[from] CodecError),
}

/// What has changed among those that are pending.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Change {
    Given(Token, Bytes),
    Settled(Token),
    /// The state jumped: these are pending now.
    All(BTreeMap<Token, Bytes>),
}

/// All effects that are pending.
#[derive(Clone, Default, Debug)]
pub(crate) struct Pending {
    effects: BTreeMap<Token, Bytes>,
    /// The bytes that they take in a snapshot.
    bytes: usize,
    /// The newest one that was given, for as long as its entry is applied.
    newest: Option<Token>,
    /// A digest of all of them, kept as it changes.
    digest: u128,
    /// What has changed and was not told yet.
    changes: Vec<Change>,
    pub(crate) broken: Broken,
}

fn encode(token: Token, payload: &[u8], to: &mut BytesMut) {
    to.put_u64_le(token.term);
    to.put_u64_le(token.index);
    to.put_u32_le(token.ordinal);
    to.put_u32_le(payload.len() as u32);
    to.put_slice(payload);
}

/// What an effect adds to the digest, and takes away again.
fn share(token: Token, payload: &[u8]) -> u128 {
    let mut bytes = BytesMut::with_capacity(ENCODED + payload.len());
    encode(token, payload, &mut bytes);
    xxh3_128(&bytes)
}

impl Pending {
    /// None are.
    pub(crate) fn new(broken: Broken) -> Pending {
        Pending { broken, ..Pending::default() }
    }

    /// The entry at this place gives an effect. The payload is copied, so that it keeps nothing alive that it came in.
    pub(crate) fn give(&mut self, at: LogId, payload: &[u8]) -> Result<Token, EffectsFull> {
        let (term, index) = (at.term.0, at.index.0);
        let before = self.newest.filter(|newest| (newest.term, newest.index) == (term, index));
        let token = Token { term, index, ordinal: before.map_or(0, |newest| newest.ordinal + 1) };
        let room = BYTES.checked_sub(self.bytes + ENCODED);
        if self.effects.len() >= EFFECTS || room.is_none_or(|room| payload.len() > room) {
            return Err(EffectsFull);
        }
        self.newest = Some(token);
        let payload = Bytes::copy_from_slice(payload);
        self.changes.push(Change::Given(token, payload.clone()));
        self.insert(token, payload);
        Ok(token)
    }

    /// It is pending no more. False: it was not.
    pub(crate) fn settle(&mut self, token: Token) -> bool {
        if self.broken.is("settled-effect-kept") {
            return self.effects.contains_key(&token);
        }
        let Some(payload) = self.effects.remove(&token) else { return false };
        self.bytes -= ENCODED + payload.len();
        self.digest ^= share(token, &payload);
        self.changes.push(Change::Settled(token));
        true
    }

    fn insert(&mut self, token: Token, payload: Bytes) {
        self.bytes += ENCODED + payload.len();
        self.digest ^= share(token, &payload);
        self.effects.insert(token, payload);
    }

    /// Those that are pending, in the order in which they were given.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Token, &Bytes)> {
        self.effects.iter().map(|(token, payload)| (*token, payload))
    }

    /// How much has changed that was not told yet.
    pub(crate) fn untold(&self) -> usize {
        self.changes.len()
    }

    /// What has changed since then is not told: the entry failed.
    pub(crate) fn untell(&mut self, before: usize) {
        self.changes.truncate(before);
    }

    /// What has changed since the last call.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        mem::take(&mut self.changes)
    }

    /// The state jumped to where these are pending.
    pub(crate) fn jumped(mut self) -> Pending {
        self.changes = vec![Change::All(self.effects.clone())];
        self
    }

    /// Sums up all of them. All zeros while there are none.
    pub(crate) fn digest(&self) -> [u8; 16] {
        self.digest.to_le_bytes()
    }

    /// All of them, for a snapshot; nothing if there are none.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        if self.effects.is_empty() {
            return bytes.freeze();
        }
        bytes.reserve(4 + self.bytes);
        bytes.put_u32_le(self.effects.len() as u32);
        for (token, payload) in &self.effects {
            encode(*token, payload, &mut bytes);
        }
        bytes.freeze()
    }

    /// What a snapshot says. None: it makes no sense.
    pub(crate) fn decode(bytes: &[u8], broken: Broken) -> Option<Pending> {
        let mut all = Pending::new(broken);
        let mut from = bytes;
        if from.is_empty() {
            return Some(all);
        }
        let count = from.try_get_u32_le().ok()?;
        for _ in 0..count {
            let (term, index) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
            let token = Token { term, index, ordinal: from.try_get_u32_le().ok()? };
            let length = from.try_get_u32_le().ok()? as usize;
            let payload = Bytes::copy_from_slice(from.get(..length)?);
            from.advance(length);
            if all.effects.last_key_value().is_some_and(|(last, _)| *last >= token) {
                return None;
            }
            all.insert(token, payload);
        }
        let sound = from.is_empty() && count > 0 && all.effects.len() <= EFFECTS && all.bytes <= BYTES;
        sound.then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(term: u64, index: u64, ordinal: u32) -> Token {
        Token { term, index, ordinal }
    }

    #[test]
    fn effects_are_named_by_their_place_and_pending_until_they_are_settled() {
        let mut pending = Pending::default();
        let mut give = |index, payload: &str| pending.give(LogId::new(3, index), payload.as_bytes());
        assert_eq!(give(7, "a"), Ok(token(3, 7, 0)));
        assert_eq!(give(7, "b"), Ok(token(3, 7, 1)));
        assert_eq!(give(9, "c"), Ok(token(3, 9, 0)));
        assert_eq!(token(3, 7, 1).to_string(), "3-7-1");
        // What is settled at once does not give its name away.
        assert!(pending.settle(token(3, 9, 0)));
        assert_eq!(pending.give(LogId::new(3, 9), b"d"), Ok(token(3, 9, 1)));
        assert!(pending.settle(token(3, 7, 0)) && !pending.settle(token(3, 7, 0)));
        assert!(!pending.settle(token(4, 7, 1)), "another term");
        let left: Vec<_> = pending.all().map(|(token, payload)| (token, payload.clone())).collect();
        assert_eq!(left, [(token(3, 7, 1), "b".into()), (token(3, 9, 1), "d".into())]);
    }

    #[test]
    fn there_is_room_for_so_many_and_none_is_given_up() {
        let mut pending = Pending::default();
        for index in 0..EFFECTS as u64 {
            pending.give(LogId::new(1, index), b"").unwrap();
        }
        assert_eq!(pending.give(LogId::new(1, 1 << 40), b""), Err(EffectsFull));
        assert_eq!(pending.all().count(), EFFECTS);
        assert!(pending.settle(token(1, 5, 0)));
        assert_eq!(pending.give(LogId::new(1, 1 << 40), b""), Ok(token(1, 1 << 40, 0)));
    }

    #[test]
    fn their_bytes_are_bounded() {
        let mut pending = Pending::default();
        let whole = vec![1; BYTES - ENCODED];
        assert_eq!(pending.give(LogId::new(1, 1), &vec![1; BYTES + 1]), Err(EffectsFull));
        let given = pending.give(LogId::new(1, 1), &whole).unwrap();
        assert_eq!(pending.encode().len(), MAX_ENCODED);
        assert!(Pending::decode(&pending.encode(), Broken::default()).is_some());
        assert_eq!(pending.give(LogId::new(1, 2), b""), Err(EffectsFull));
        assert!(pending.settle(given));
        assert_eq!((pending.bytes, pending.digest()), (0, [0; 16]));
    }

    #[test]
    fn what_changes_is_told_once_and_nothing_of_an_entry_that_failed() {
        let mut pending = Pending::default();
        let first = pending.give(LogId::new(1, 1), b"a").unwrap();
        let before = pending.untold();
        pending.settle(first);
        pending.give(LogId::new(1, 2), b"b").unwrap();
        pending.untell(before);
        assert_eq!(pending.changes(), [Change::Given(first, "a".into())]);
        assert_eq!(pending.changes(), []);
        assert_eq!(pending.jumped().changes().len(), 1);
    }

    #[test]
    fn effects_survive_their_encoding_and_the_digest_sees_all_of_them() {
        let mut pending = Pending::default();
        assert_eq!((pending.digest(), pending.encode()), ([0; 16], Bytes::new()));
        for (term, index, payload) in [(3, 9, "a"), (3, 9, ""), (u64::MAX, u64::MAX, "bcd")] {
            pending.give(LogId::new(term, index), payload.as_bytes()).unwrap();
        }
        let bytes = pending.encode();
        let back = Pending::decode(&bytes, Broken::default()).unwrap();
        assert_eq!(
            (&back.effects, back.bytes, back.digest),
            (&pending.effects, pending.bytes, pending.digest)
        );
        for length in 1..bytes.len() {
            assert!(Pending::decode(&bytes[..length], Broken::default()).is_none(), "{length}");
        }
        let one = &bytes[4..4 + ENCODED + 1];
        for other in [[&bytes[..], &[0]].concat(), vec![0; 4], [&[2, 0, 0, 0], one, one].concat()] {
            assert!(Pending::decode(&other, Broken::default()).is_none());
        }
        for (other, payload) in
            [(token(3, 9, 1), "a"), (token(3, 8, 0), "a"), (token(2, 9, 0), "a"), (token(3, 9, 0), "b")]
        {
            assert_ne!(share(token(3, 9, 0), b"a"), share(other, payload.as_bytes()));
        }
    }
}
