//! Writes batches.

use super::fields::{HARD_STATE_SIZE, put_hard_state, put_log_id, put_u32, put_u64};
use super::header::{BATCH_MAGIC, HEADER, blocks, body_seed, sealed_header};
use super::record::{
    APPEND, End, GROUP, HARD_STATE, KNOWS_CLUSTER, MEMBERSHIP, ORIGIN, PURGE, Place, RECORD_HEADER, RESET,
    Record, STATE, SUCCESSOR, TRUNCATE,
};
use crate::entry::Entry;
use crate::storage::shape::Shape;
use crate::storage::{Change, Identity, WriteBatch};
use coracle_core::{Broken, HardState, LogId};

/// Builds one batch after the other in one buffer.
#[derive(Default)]
pub(in crate::storage::wal) struct Encoder {
    buffer: Vec<u8>,
    generation: u64,
    offset: u64,
    number: u64,
    sum: u32,
    places: Vec<Place>,
    /// The first bytes of each entry of a record, which the sum of the body takes of it.
    heads: Vec<u8>,
    broken: Broken,
}

impl Encoder {
    /// With an empty buffer.
    pub(in crate::storage::wal) fn new(broken: Broken) -> Encoder {
        Encoder { broken, ..Encoder::default() }
    }

    /// Starts a batch.
    pub(in crate::storage::wal) fn begin(&mut self, generation: u64, offset: u64, number: u64) {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        self.places.clear();
        (self.generation, self.offset, self.number) = (generation, offset, number);
        self.sum = body_seed(generation, offset, number);
    }

    /// Ends the batch: the bytes to write, in whole blocks, and the checksum of the header.
    pub(in crate::storage::wal) fn finish(&mut self, synced: u64, previous: u32) -> (&[u8], u32) {
        let body = (self.buffer.len() - HEADER) as u64;
        let mut fields = Vec::with_capacity(HEADER);
        fields.extend_from_slice(&[0; 4]);
        fields.extend_from_slice(&BATCH_MAGIC);
        for field in [self.generation, self.offset, self.number, synced] {
            put_u64(&mut fields, field);
        }
        put_u32(&mut fields, previous);
        put_u32(&mut fields, self.sum);
        put_u64(&mut fields, body);
        let header = sealed_header(&fields);
        self.buffer[..HEADER].copy_from_slice(&header);
        self.buffer.resize(blocks(self.buffer.len() as u64) as usize, 0);
        (&self.buffer, u32::from_le_bytes([header[0], header[1], header[2], header[3]]))
    }

    /// Where the entries of the batch lie, in the order in which they were appended.
    pub(in crate::storage::wal) fn places(&self) -> &[Place] {
        &self.places
    }

    /// What a checkpoint restates.
    pub(in crate::storage::wal) fn restate(&mut self, identity: &Identity, end: &End, shape: &Shape) {
        let mut content = Vec::new();
        put_u64(&mut content, identity.node.0);
        put_u64(&mut content, identity.incarnation.0);
        content.extend_from_slice(&identity.cluster.map_or(0, |c| c.0).to_le_bytes());
        for field in [end.segment, end.generation, end.offset, end.batch] {
            put_u64(&mut content, field);
        }
        put_u32(&mut content, end.checksum);
        put_u32(&mut content, if identity.cluster.is_some() { KNOWS_CLUSTER } else { 0 });
        self.record(ORIGIN, 1, &content);

        content.clear();
        let mut hard_state = shape.hard_state;
        if self.broken.is("checkpoint-forgets-vote") {
            hard_state.vote = None;
        }
        put_hard_state(&mut content, &hard_state);
        put_log_id(&mut content, shape.purged);
        put_log_id(&mut content, shape.last);
        for run in &shape.runs {
            put_u64(&mut content, run.first.0);
            put_u64(&mut content, run.term.0);
        }
        self.record(STATE, shape.runs.len() as u32, &content);

        for (id, payload) in &shape.memberships {
            content.clear();
            put_log_id(&mut content, *id);
            content.extend_from_slice(payload);
            self.record(MEMBERSHIP, 1, &content);
        }
    }

    /// All that a batch of the contract says.
    pub(in crate::storage::wal) fn batch(&mut self, batch: &WriteBatch) {
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state(hard_state);
        }
        for change in &batch.changes {
            match change {
                Change::Truncate(_) if self.broken.is("truncation-not-recorded") => {}
                Change::Reset(to) => self.log_id(RESET, *to),
                Change::Truncate(last) => self.record(TRUNCATE, 1, &last.0.to_le_bytes()),
                Change::Append(entries) => self.append(entries.len(), entries.iter()),
            }
        }
    }

    /// That the entries up to `upto` are purged.
    pub(in crate::storage::wal) fn purge(&mut self, upto: LogId) {
        self.log_id(PURGE, upto);
    }

    /// That the log goes on in this segment.
    pub(in crate::storage::wal) fn successor(&mut self, number: u64, generation: u64) {
        let mut content = Vec::with_capacity(16);
        put_u64(&mut content, number);
        put_u64(&mut content, generation);
        self.record(SUCCESSOR, 1, &content);
    }

    /// A record of an earlier batch, once more. What only a checkpoint restates is left out.
    pub(in crate::storage::wal) fn repeat(&mut self, record: &Record) {
        match record {
            Record::Origin { .. } | Record::State(_) | Record::Membership(..) | Record::Successor { .. } => {}
            Record::HardState(hard_state) => self.hard_state(hard_state),
            Record::Reset(to) => self.log_id(RESET, *to),
            Record::Truncate(last) => self.record(TRUNCATE, 1, &last.0.to_le_bytes()),
            Record::Append(entries) => self.append(entries.len(), entries.iter().map(|(entry, _)| entry)),
            Record::Purge(upto) => self.log_id(PURGE, *upto),
        }
    }

    fn hard_state(&mut self, hard_state: &HardState) {
        let mut content = Vec::with_capacity(HARD_STATE_SIZE);
        put_hard_state(&mut content, hard_state);
        self.record(HARD_STATE, 1, &content);
    }

    fn log_id(&mut self, kind: u8, id: LogId) {
        let mut content = Vec::with_capacity(16);
        put_log_id(&mut content, id);
        self.record(kind, 1, &content);
    }

    fn append<'a>(&mut self, count: usize, entries: impl Iterator<Item = &'a Entry> + Clone) {
        let len = entries.clone().map(Entry::len).sum::<usize>();
        self.record_header(APPEND, count as u32, len as u64);
        self.buffer.reserve(len);
        self.heads.clear();
        for entry in entries {
            let offset = (self.offset as usize + self.buffer.len()) as u32;
            self.places.push(Place { offset, len: entry.len() as u32 });
            self.heads.extend_from_slice(&entry.bytes()[..8]);
            self.buffer.extend_from_slice(entry.bytes());
        }
        self.sum = crc32c::crc32c_append(self.sum, &self.heads);
    }

    fn record(&mut self, kind: u8, count: u32, content: &[u8]) {
        self.record_header(kind, count, content.len() as u64);
        self.sum = crc32c::crc32c_append(self.sum, content);
        self.buffer.extend_from_slice(content);
    }

    fn record_header(&mut self, kind: u8, count: u32, len: u64) {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[kind, 0, 0, 0]);
        put_u32(&mut self.buffer, count);
        put_u64(&mut self.buffer, GROUP);
        put_u64(&mut self.buffer, len);
        self.sum = crc32c::crc32c_append(self.sum, &self.buffer[start..]);
    }
}

/// The length of the body that [`Encoder::batch`] makes of a batch.
pub(in crate::storage::wal) fn body_len(batch: &WriteBatch) -> u64 {
    let record = |content: usize| (RECORD_HEADER + content) as u64;
    let hard_state = batch.hard_state.map_or(0, |_| record(HARD_STATE_SIZE));
    let changes = batch.changes.iter().map(|change| match change {
        Change::Reset(_) => record(16),
        Change::Truncate(_) => record(8),
        Change::Append(entries) => record(0) + entries.iter().map(|e| e.len() as u64).sum::<u64>(),
    });
    hard_state + changes.sum::<u64>()
}
