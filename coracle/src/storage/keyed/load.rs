//! Reads a whole log and believes none of it: every sum, every index, every term.

use super::reader::KeyedReader;
use super::{KeyValue, damaged, layout as keys};
use crate::entry::{Entry, Kind};
use crate::storage::shape::Shape;
use crate::storage::{Identity, LogReader, Recovered, StoreError};
use bytes::Bytes;
use coracle_core::{HardState, Incarnation, Index, LogId, NodeId};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Entries between two reports of progress.
const REPORT: u64 = 4096;

const NO_FORMAT: &str = "it is missing, but there are other keys";

/// How many damaged keys are told; after the last of them nothing is looked at.
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
    /// The damage among the entries, ascending; 1,000 pieces at most. Any stops a start. After the first one, entries
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

/// The records beside the entries.
struct Records {
    node: NodeId,
    incarnation: Incarnation,
    starts: u64,
    hard_state: HardState,
    purged: LogId,
    membership: Option<(LogId, Bytes)>,
}

impl Records {
    /// What the values of the keys of one byte say.
    fn of(map: &dyn KeyValue, values: &BTreeMap<u8, Bytes>) -> Result<Records, StoreError> {
        let wrong = |what: &'static str| move |detail: String| damaged(map, what, &detail);
        fn read<T>(value: Option<&Bytes>, read: fn(&[u8]) -> Result<T, String>) -> Result<Option<T>, String> {
            value.map(|value| read(value)).transpose()
        }
        let missing = || "it is missing".to_owned();
        let value = |key: u8| values.get(&key);
        let version = read(value(keys::FORMAT), keys::read_format).map_err(wrong("the format"))?;
        let version = version.ok_or_else(|| NO_FORMAT.to_owned()).map_err(wrong("the format"))?;
        if version != u64::from(keys::VERSION) {
            let (path, detail) = (map.path().to_owned(), format!("its format is version {version}"));
            return Err(StoreError::Newer { path, offset: 0, detail });
        }
        let identity = read(value(keys::IDENTITY), keys::read_identity);
        let (node, incarnation) =
            identity.and_then(|found| found.ok_or_else(missing)).map_err(wrong("the identity"))?;
        let starts = read(value(keys::STARTS), keys::read_starts);
        let starts =
            starts.and_then(|found| found.ok_or_else(missing)).map_err(wrong("the count of starts"))?;
        let hard_state = read(value(keys::HARD_STATE), keys::read_hard_state);
        let purged = read(value(keys::PURGED), keys::read_purged);
        Ok(Records {
            node,
            incarnation,
            starts,
            hard_state: hard_state.map_err(wrong("the hard state"))?.unwrap_or_default(),
            purged: purged.map_err(wrong("the purged entry"))?.unwrap_or_default(),
            membership: read(value(keys::MEMBERSHIP), keys::read_membership)
                .map_err(wrong("the old membership"))?,
        })
    }
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
    match scan(map, max_damage, progress)? {
        None if map.greatest(&[], &[0xff])?.is_none() => Ok(None),
        // The very first commit came meanwhile.
        None => match scan(map, max_damage, progress)? {
            None => Err(damaged(map, "the format", NO_FORMAT)),
            found => Ok(found),
        },
        found => Ok(found),
    }
}

/// The same; also nothing if there is no key that a log has.
fn scan(
    map: &dyn KeyValue,
    max_damage: usize,
    progress: &mut dyn FnMut(f32),
) -> Result<Option<(Found, Walk)>, StoreError> {
    let (first, last) = (keys::key(Index::ZERO), keys::key(Index(u64::MAX)));
    let newest = map.greatest(&first, &last)?.and_then(|key| keys::index(&key)).unwrap_or_default();
    let mut values = BTreeMap::new();
    let mut way: Option<Way> = None;
    let mut failed = None;
    // A tool may read beside a node that writes and purges. One scan is of one moment, and in it the records come
    // first.
    map.scan(&[keys::FORMAT], &last, &mut |key, value| {
        if key < first.as_slice() {
            if let [key] = key {
                values.insert(*key, Bytes::copy_from_slice(value));
            }
            return ControlFlow::Continue(());
        }
        let way = match &mut way {
            Some(way) => way,
            none => match Records::of(map, &values) {
                Ok(records) => none.insert(Way::after(map, records, newest)),
                Err(error) => {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            },
        };
        way.step(map, key, value, progress);
        if way.walk.damage.len() >= max_damage { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    match (failed, way) {
        (Some(error), _) => Err(error),
        (None, Some(way)) => Ok(Some(way.end())),
        (None, None) if values.is_empty() => Ok(None),
        (None, None) => Ok(Some(Way::after(map, Records::of(map, &values)?, newest).end())),
    }
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

/// On the way through the entries after what was purged. The shape is of those before the first damage.
struct Way {
    records: Records,
    shape: Shape,
    walk: Walk,
    /// About how many there are.
    total: u64,
}

impl Way {
    fn after(map: &dyn KeyValue, records: Records, newest: Index) -> Way {
        let purged = records.purged;
        let shape = Shape {
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
            walk.damage.push(damaged(map, "the old membership", &format!("{id} is not after {purged}")));
        }
        let total = newest.0.saturating_sub(purged.index.0).max(1);
        Way { records, shape, walk, total }
    }

    fn step(&mut self, map: &dyn KeyValue, key: &[u8], value: &[u8], progress: &mut dyn FnMut(f32)) {
        let Way { records, shape, walk, total } = self;
        let problem = match keys::read_entry(key, value) {
            Ok(entry) => {
                let problem = if walk.damage.is_empty() { take(shape, &entry).err() } else { None };
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
        let done = shape.last.index.0 - records.purged.index.0;
        if done.is_multiple_of(REPORT) {
            progress((done as f32 / *total as f32).min(1.0));
        }
    }

    fn end(self) -> (Found, Walk) {
        let Records { node, incarnation, starts, .. } = self.records;
        (Found { node, incarnation, starts, shape: self.shape }, self.walk)
    }
}

/// Takes the next entry into the shape.
fn take(shape: &mut Shape, entry: &Entry) -> Result<(), String> {
    let membership = (entry.kind() == Kind::Membership).then(|| entry.payload());
    shape.append(entry.id(), membership)
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
