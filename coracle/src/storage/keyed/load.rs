//! Reads a whole log and believes none of it: every sum, every index, every term.

use super::reader::KeyedReader;
use super::{KeyValue, layout as keys};
use crate::entry::{Entry, Kind};
use crate::storage::shape::Shape;
use crate::storage::{Identity, LogReader, Recovered, StoreError};
use bytes::Bytes;
use coracle_core::{HardState, Incarnation, Index, LogId, NodeId};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Entries between two reports of progress.
const REPORT: u64 = 4096;

/// How often a log that is purged while it is read is read again.
const ATTEMPTS: u32 = 10;

/// How many damaged keys are told; behind the last of them nothing is looked at.
const MAX_DAMAGE: usize = 1000;

/// What a map holds.
pub(super) struct Found {
    pub(super) node: NodeId,
    pub(super) incarnation: Incarnation,
    pub(super) starts: u64,
    pub(super) shape: Shape,
}

/// A log as a tool sees it, without changing it.
pub struct Inspected {
    /// The node that the log is of.
    pub node: NodeId,
    /// Its disk.
    pub incarnation: Incarnation,
    /// What a start would find; of a damaged log, what is before the damage.
    pub recovered: Recovered,
    /// The damage among the entries, ascending; 1,000 pieces at most. Any stops a start. Behind the first one entries
    /// are verified each by itself.
    pub damage: Vec<StoreError>,
    /// The first and the last of each row of whole entries without a gap, ascending: one at most unless the log is damaged.
    pub stretches: Vec<(LogId, LogId)>,
    /// Reads its entries, each verified. Holds the map open.
    pub reader: Arc<dyn LogReader>,
}

/// Reads and verifies a log without changing it, or nothing if there is none. Damage beside the entries is an
/// error; either names the key.
pub fn inspect<K: KeyValue + 'static>(map: K) -> Result<Option<Inspected>, StoreError> {
    let map = Arc::new(map);
    let Some((found, walk)) = survey(&*map, MAX_DAMAGE, &mut |_| {})? else { return Ok(None) };
    Ok(Some(Inspected {
        damage: walk.damage,
        stretches: walk.stretches,
        node: found.node,
        incarnation: found.incarnation,
        recovered: found.shape.recovered(),
        reader: Arc::new(KeyedReader::alone(map)?),
    }))
}

/// A damaged value; there are no offsets in a map, so the key is named.
pub(super) fn damaged(map: &dyn KeyValue, what: &str, detail: &str) -> StoreError {
    StoreError::Damaged { path: map.path().to_owned(), offset: 0, detail: format!("{what}: {detail}") }
}

/// The value of a key of one byte.
fn get<T>(
    map: &dyn KeyValue,
    key: u8,
    what: &str,
    read: impl Fn(&[u8]) -> Result<T, String>,
) -> Result<Option<T>, StoreError> {
    let mut value = None;
    map.scan(&[key], &[key], &mut |_, bytes| {
        value = Some(read(bytes));
        ControlFlow::Break(())
    })?;
    value.transpose().map_err(|detail| damaged(map, what, &detail))
}

/// The records beside the entries.
struct Records {
    node: NodeId,
    incarnation: Incarnation,
    starts: u64,
    hard_state: HardState,
    purged: LogId,
    membership: Option<(LogId, Bytes)>,
}

fn records(map: &dyn KeyValue) -> Result<Option<Records>, StoreError> {
    let version = get(map, keys::FORMAT, "the format", keys::read_format)?;
    if let Some(version) = version.filter(|version| *version != u64::from(keys::VERSION)) {
        let (path, detail) = (map.path().to_owned(), format!("its format is version {version}"));
        return Err(StoreError::Newer { path, offset: 0, detail });
    }
    if version.is_none() {
        return match map.greatest(&[], &[0xff])? {
            None => Ok(None),
            Some(_) => Err(damaged(map, "the format", "it is missing, but there are other keys")),
        };
    }
    let Some((node, incarnation)) = get(map, keys::IDENTITY, "the identity", keys::read_identity)? else {
        return Err(damaged(map, "the identity", "it is missing"));
    };
    let Some(starts) = get(map, keys::STARTS, "the count of starts", keys::read_starts)? else {
        return Err(damaged(map, "the count of starts", "it is missing"));
    };
    let hard_state = get(map, keys::HARD_STATE, "the hard state", keys::read_hard_state)?;
    let purged = get(map, keys::PURGED, "the purged entry", keys::read_purged)?;
    let membership = get(map, keys::MEMBERSHIP, "the old membership", keys::read_membership)?;
    Ok(Some(Records {
        node,
        incarnation,
        starts,
        hard_state: hard_state.unwrap_or_default(),
        purged: purged.unwrap_or_default(),
        membership,
    }))
}

/// Reads and verifies everything; nothing if the map is empty.
pub(super) fn load(map: &dyn KeyValue, progress: &mut dyn FnMut(f32)) -> Result<Option<Found>, StoreError> {
    match survey(map, 1, progress)? {
        Some((found, walk)) => walk.damage.into_iter().next().map_or(Ok(Some(found)), Err),
        None => Ok(None),
    }
}

/// What is there before the first damage among the entries, and what was met on the way through all of them, up to
/// so many pieces of damage; nothing if the map is empty.
fn survey(
    map: &dyn KeyValue,
    max_damage: usize,
    progress: &mut dyn FnMut(f32),
) -> Result<Option<(Found, Walk)>, StoreError> {
    // A tool may read beside a node that writes, and the records and the entries are then not of one moment:
    // what the records say is believed only if they say the same afterwards.
    for _ in 0..ATTEMPTS {
        let Some(records) = records(map)? else { return Ok(None) };
        let (shape, walk) = entries(map, &records, max_damage, progress)?;
        if get(map, keys::PURGED, "the purged entry", keys::read_purged)?.unwrap_or_default()
            == records.purged
        {
            let Records { node, incarnation, starts, .. } = records;
            return Ok(Some((Found { node, incarnation, starts, shape }, walk)));
        }
    }
    Err(StoreError::Io {
        action: "read the log in",
        path: map.path().to_owned(),
        source: std::io::Error::other("it is purged faster than it can be read; try again later"),
    })
}

/// What is met on a way through the entries.
#[derive(Default)]
struct Walk {
    damage: Vec<StoreError>,
    /// The first and the last of each row of whole entries.
    stretches: Vec<(LogId, LogId)>,
}

impl Walk {
    /// A whole entry comes next.
    fn pass(&mut self, id: LogId) {
        match self.stretches.last_mut() {
            Some((_, last)) if last.index.next() == id.index => *last = id,
            _ => self.stretches.push((id, id)),
        }
    }
}

/// Walks the entries behind what was purged, until so much damage is found. The shape is of those before the first.
fn entries(
    map: &dyn KeyValue,
    records: &Records,
    max_damage: usize,
    progress: &mut dyn FnMut(f32),
) -> Result<(Shape, Walk), StoreError> {
    let purged = records.purged;
    let mut shape = Shape {
        hard_state: records.hard_state,
        purged,
        last: purged,
        runs: Vec::new(),
        memberships: records.membership.iter().cloned().collect(),
    };
    let mut walk = Walk::default();
    if let Some((id, _)) = &records.membership
        && id.index > purged.index
    {
        walk.damage.push(damaged(map, "the old membership", &format!("{id} is not behind {purged}")));
    }
    let (first, last) = (keys::key(Index::ZERO), keys::key(Index(u64::MAX)));
    let newest = map.greatest(&first, &last)?.and_then(|key| keys::index(&key)).unwrap_or(purged.index);
    let total = newest.0.saturating_sub(purged.index.0).max(1);
    map.scan(&first, &last, &mut |key, value| {
        let problem = match decode(key, value) {
            Ok(entry) => {
                let problem = if walk.damage.is_empty() { take(&mut shape, &entry).err() } else { None };
                walk.pass(entry.id());
                problem
            }
            Err(detail) => Some(detail),
        };
        if let Some(detail) = problem {
            let what = match keys::index(key) {
                Some(index) => format!("entry {index}"),
                None => "a key that is not an entry's".to_owned(),
            };
            walk.damage.push(damaged(map, &what, &detail));
        }
        if walk.damage.len() >= max_damage {
            return ControlFlow::Break(());
        }
        let done = shape.last.index.0 - purged.index.0;
        if done.is_multiple_of(REPORT) {
            progress((done as f32 / total as f32).min(1.0));
        }
        ControlFlow::Continue(())
    })?;
    Ok((shape, walk))
}

/// Takes the next entry into the shape.
fn take(shape: &mut Shape, entry: &Entry) -> Result<(), String> {
    let membership = (entry.kind() == Kind::Membership).then(|| entry.payload());
    shape.append(entry.id(), membership)
}

/// The entry under this key, verified.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<Entry, String> {
    let index = keys::index(key).ok_or_else(|| format!("a key of {} bytes", key.len()))?;
    let entry = Entry::decode(Bytes::copy_from_slice(value)).map_err(|error| error.to_string())?;
    if entry.index() == index { Ok(entry) } else { Err(format!("entry {} lies there", entry.id())) }
}

/// Whether the log is of this node, on this disk.
pub(super) fn check_identity(
    map: &dyn KeyValue,
    found: &Found,
    identity: &Identity,
) -> Result<(), StoreError> {
    if (found.node, found.incarnation) == (identity.node, identity.incarnation) {
        return Ok(());
    }
    Err(StoreError::Identity {
        path: map.path().to_owned(),
        detail: format!(
            "the log is of node {}, incarnation {:016x}, not of node {}, incarnation {:016x}; bring back the \
             log that belongs to this node",
            found.node, found.incarnation.0, identity.node, identity.incarnation.0
        ),
    })
}
