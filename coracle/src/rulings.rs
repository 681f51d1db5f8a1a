//! What a cluster has ruled about entries that a machine cannot apply (D5.5.5).
//!
//! Such an entry stops the machine, and the machine passes it only once the log says how: it is skipped, so that every
//! machine does nothing in its place; or those that have stopped try it again. A ruling is an entry of its own, and comes
//! after the one that it is about. So whoever replays a log must know the ruling before it comes to that entry, and a
//! snapshot keeps those of all entries up to its own.

use crate::entry::{Entry, Kind};
use crate::error::{Leader, StopReason, in_full};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_core::{Index, LogId, NodeId};
use std::collections::BTreeMap;

/// What becomes of an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Nothing is done in its place, on any node.
    Skip,
    /// Every machine that has stopped before it tries it again.
    Retry,
}

/// What came of a ruling that was asked for: where it stands, committed.
pub(crate) type Ruled = Result<LogId, RulingError>;

/// Why an entry was not skipped, or not tried again. Nothing was changed, unless the error says that this is unknown.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RulingError {
    /// Another node leads. Ask that one.
    #[error("node {} at {} is the leader", .leader.id, .leader.address)]
    NotLeader {
        /// Who leads.
        leader: Leader,
    },
    /// No leader is known now. Try again soon.
    #[error("there is no leader now")]
    NoLeader,
    /// There is no such entry among the committed ones that the log still holds.
    #[error("{0} is no committed entry of the log")]
    NoEntry(LogId),
    /// An entry is skipped only where the machine of every member has stopped before it, and these have not, or have not
    /// said so to this leader. Start those that are down; if their machines pass the entry, have it
    /// [tried again](crate::Node::retry_entry); those that are gone for good must be removed from the membership first.
    #[error(
        "the machines of these members are not known to have stopped before {entry}: {}; an entry is skipped only when all have",
        .members.iter().map(|id| format!("node {id}")).collect::<Vec<_>>().join(", ")
    )]
    NotStopped {
        /// The entry.
        entry: LogId,
        /// Whose machines.
        members: Vec<NodeId>,
    },
    /// It is skipped already.
    #[error("entry {0} is skipped already")]
    Skipped(LogId),
    /// These members are not known to understand a ruling: upgrade them, and see that the leader reaches each.
    #[error(
        "not all members are known to understand a ruling: upgrade them, and see that the leader reaches each"
    )]
    Unsupported,
    /// There are as many rulings as are kept.
    #[error("there are {MOST} rulings already, and no more are kept")]
    TooMany,
    /// The leader's log has no room, it hands over, or it was elected just now. Try again later.
    #[error("the leader takes nothing now: try again later")]
    Busy,
    /// Leadership was lost before the ruling was committed. It may yet be. Ask again, or look at the log.
    #[error("leadership was lost before the ruling was committed; it may yet be")]
    Unknown,
    /// This node has stopped.
    #[error("the node has stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// What an entry of kind [`Ruling`](crate::Kind::Ruling) says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ruling {
    /// The entry that it is about.
    pub entry: LogId,
    /// What becomes of it.
    pub verdict: Verdict,
}

/// So many are kept at most; more are refused.
pub(crate) const MOST: usize = 1024;

/// The bytes of one in an entry, and in a snapshot.
const PAYLOAD: usize = 24;
const EACH: usize = 8 + PAYLOAD;

/// The bytes of all in a snapshot at most.
pub(crate) const MAX_ENCODED: usize = 4 + EACH * MOST;

impl Ruling {
    /// The payload of its entry.
    pub fn encode(&self) -> [u8; PAYLOAD] {
        let mut bytes = [0; PAYLOAD];
        bytes[0] = match self.verdict {
            Verdict::Skip => 1,
            Verdict::Retry => 2,
        };
        bytes[8..16].copy_from_slice(&self.entry.term.0.to_le_bytes());
        bytes[16..].copy_from_slice(&self.entry.index.0.to_le_bytes());
        bytes
    }

    /// What this payload says; none if it makes no sense.
    pub fn decode(mut payload: &[u8]) -> Option<Ruling> {
        if payload.len() != PAYLOAD {
            return None;
        }
        let verdict = match payload.get_u64_le() {
            1 => Verdict::Skip,
            2 => Verdict::Retry,
            _ => return None,
        };
        let (term, index) = (payload.get_u64_le(), payload.get_u64_le());
        Some(Ruling { entry: LogId::new(term, index), verdict })
    }
}

/// Those that a machine has heeded, by the index of the entry that each is about, with where the ruling stands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Rulings(BTreeMap<Index, (Ruling, Index)>);

impl Rulings {
    /// This was ruled there. What was skipped stays so.
    pub(crate) fn heed(&mut self, ruling: Ruling, at: Index) {
        if !self.skips(ruling.entry) {
            self.0.insert(ruling.entry.index, (ruling, at));
        }
    }

    /// Whether this entry is skipped.
    pub(crate) fn skips(&self, entry: LogId) -> bool {
        let known = self.0.get(&entry.index).filter(|(ruling, _)| ruling.entry == entry);
        known.is_some_and(|(ruling, _)| ruling.verdict == Verdict::Skip)
    }

    /// Where it was ruled last that this entry is tried again.
    pub(crate) fn retried(&self, entry: LogId) -> Option<Index> {
        let known = self.0.get(&entry.index).filter(|(ruling, _)| ruling.entry == entry);
        known.filter(|(ruling, _)| ruling.verdict == Verdict::Retry).map(|(_, at)| *at)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// All of them, and where they stand.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Index, Ruling)> {
        self.0.values().map(|(ruling, at)| (*at, *ruling))
    }

    /// As a snapshot keeps it; nothing if there is none.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        if self.0.is_empty() {
            return bytes.freeze();
        }
        bytes.put_u32_le(self.0.len() as u32);
        for (ruling, at) in self.0.values() {
            bytes.put_u64_le(at.0);
            bytes.put_slice(&ruling.encode());
        }
        bytes.freeze()
    }

    /// What a snapshot keeps; none if it makes no sense.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Rulings> {
        let mut from = bytes;
        if from.is_empty() {
            return Some(Rulings::default());
        }
        let count = from.try_get_u32_le().ok()? as usize;
        if count > MOST || from.len() != count * EACH {
            return None;
        }
        let each = from.chunks_exact(EACH).map(|mut one| {
            let at = Index(one.get_u64_le());
            let ruling = Ruling::decode(one)?;
            Some((ruling.entry.index, (ruling, at)))
        });
        each.collect::<Option<_>>().map(Rulings)
    }
}

/// What a machine must know of entries before it comes to them: where the ruling stands by which one is skipped; none as long
/// as that ruling is not committed, and so may be taken back.
pub(crate) type Skips = BTreeMap<LogId, Option<Index>>;

/// The rulings that a log holds, by the index of the entry that each is.
pub(crate) type InLog = BTreeMap<Index, Ruling>;

/// The ruling that an entry is, with its place.
pub(crate) fn ruling_in(entry: &Entry) -> Option<(Index, Ruling)> {
    let ruling = (entry.kind() == Kind::Ruling).then(|| Ruling::decode(&entry.payload())).flatten();
    ruling.map(|ruling| (entry.index(), ruling))
}

/// What follows for a machine from the rulings that the log holds, as far as they are committed. The first that skips an
/// entry decides.
pub(crate) fn skips(ruled: impl Iterator<Item = (Index, Ruling)>, commit: Index) -> Skips {
    let mut skips = Skips::new();
    for (at, ruling) in ruled.filter(|(_, ruling)| ruling.verdict == Verdict::Skip) {
        skips.entry(ruling.entry).or_insert((at <= commit).then_some(at));
    }
    skips
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruling(index: u64, verdict: Verdict) -> Ruling {
        Ruling { entry: LogId::new(3, index), verdict }
    }

    #[test]
    fn a_ruling_survives_its_encoding_and_nothing_else_is_one() {
        for verdict in [Verdict::Skip, Verdict::Retry] {
            let payload = ruling(17, verdict).encode();
            assert_eq!(Ruling::decode(&payload), Some(ruling(17, verdict)));
            assert_eq!(Ruling::decode(&payload[1..]), None);
            for at in 0..8 {
                let mut other = payload;
                other[at] ^= 0x40;
                assert_eq!(Ruling::decode(&other), None, "byte {at}");
            }
        }
    }

    #[test]
    fn what_was_skipped_stays_so_and_the_newest_retry_counts() {
        let mut rulings = Rulings::default();
        rulings.heed(ruling(17, Verdict::Retry), Index(20));
        rulings.heed(ruling(17, Verdict::Retry), Index(22));
        assert_eq!(
            (rulings.retried(LogId::new(3, 17)), rulings.skips(LogId::new(3, 17))),
            (Some(Index(22)), false)
        );
        rulings.heed(ruling(17, Verdict::Skip), Index(25));
        rulings.heed(ruling(17, Verdict::Retry), Index(30));
        assert_eq!((rulings.retried(LogId::new(3, 17)), rulings.skips(LogId::new(3, 17))), (None, true));
        assert!(!rulings.skips(LogId::new(2, 17)), "another entry of that index");
        let bytes = rulings.encode();
        assert_eq!(Rulings::decode(&bytes), Some(rulings));
        assert_eq!(Rulings::decode(&bytes[1..]), None);
        assert_eq!(Rulings::decode(&[]), Some(Rulings::default()));
    }

    /// D5.5.5: what the log holds and nobody has committed holds a machine back, and the first that skips decides.
    #[test]
    fn a_skip_counts_once_it_is_committed() {
        let ruled = [
            (Index(20), ruling(17, Verdict::Retry)),
            (Index(21), ruling(17, Verdict::Skip)),
            (Index(23), ruling(17, Verdict::Skip)),
        ];
        let of = |commit| skips(ruled.into_iter(), Index(commit)).get(&LogId::new(3, 17)).copied();
        assert_eq!((of(20), of(21), of(23)), (Some(None), Some(Some(Index(21))), Some(Some(Index(21)))));
    }
}
