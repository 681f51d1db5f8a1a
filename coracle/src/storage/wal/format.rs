//! The bytes of the log: what a segment's header, a batch and a record look like.
//!
//! Nothing here touches a file. Writing cannot fail; reading believes nothing: every length is judged
//! against the bytes at hand, every number against what this version knows. `docs/disk-format.md` has the
//! tables, so that a reader can be written from them alone; this file and that one change together.
//!
//! A batch is covered by three kinds of checksum. The header's is over the header alone, so that a header
//! counts (as an attestation, see [`recovery`](super::recovery)) even where its body is torn. The body's is over the
//! generation, the position and everything in the body except the entries, of which it takes the first
//! eight bytes: their own checksum and length. And each entry has the one that its creator gave it. So a
//! payload is summed once in its life, and still no bit of a batch is uncovered, nor can a batch that was
//! true in another place, or in another life of the file, be taken for one here.

use crate::entry::{Entry, EntryError};
use crate::storage::shape::Shape;
use crate::storage::{Change, Identity, WriteBatch};
use bytes::Bytes;
use coracle_core::{Broken, ClusterId, HardState, Incarnation, Index, LogId, NodeId, Peer, Run, Term};

/// Batches start on multiples of this, in bytes: a block of the page cache and of nearly every disk, so
/// that a write in flight never touches a block with synced bytes.
pub(super) const BLOCK: u64 = 4096;

/// The bytes in front of a batch's body, and the used ones of a segment's first block.
pub(super) const HEADER: usize = 64;

/// The bytes in front of a record's content.
pub(super) const RECORD_HEADER: usize = 24;

/// The largest body of a batch that is believed, in bytes: twice
/// [`MAX_BATCH_BYTES`](super::MAX_BATCH_BYTES), since a checkpoint may repeat the largest batch.
const MAX_BODY: u64 = 2 * super::MAX_BATCH_BYTES;

/// The version that this code writes, and the only one that it reads.
pub(super) const VERSION: u32 = 2;

const SEGMENT_MAGIC: [u8; 4] = *b"CRWS";
const BATCH_MAGIC: [u8; 4] = *b"CRWB";

/// The raft group of every record: there is one, until there are many.
const GROUP: u64 = 0;

/// Rounds up to a whole block.
pub(super) fn blocks(len: u64) -> u64 {
    len.next_multiple_of(BLOCK)
}

/// Bytes are not what they should be; the text says what is wrong.
pub(super) type Wrong = String;

/// Bytes are whole, but of another version.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum OtherVersion {
    /// One that is not read any more.
    Older(u32),
    /// One that this code does not know, and what tells.
    Newer(Wrong),
}

/// What says that a newer version wrote it.
const RESERVED: &str = "bytes that were kept free are in use";

// Segments.

/// The first block of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct SegmentHeader {
    /// The segment's number, which is in its name too. Later segments have greater ones.
    pub(super) number: u64,
    /// Drawn when the segment joined the log: tells its bytes from older ones in the same file.
    pub(super) generation: u64,
    /// The number of its first batch.
    pub(super) first: u64,
    /// The newest batch whose sync had returned.
    pub(super) synced: u64,
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&SEGMENT_MAGIC);
        put_u32(&mut out, VERSION);
        put_u32(&mut out, 0);
        for field in [self.number, self.generation, self.first, self.synced] {
            put_u64(&mut out, field);
        }
        sealed_header(&out)
    }

    /// The header in these bytes; `None` if there is none, an error if it is another version's.
    pub(super) fn decode(bytes: &[u8]) -> Result<Option<SegmentHeader>, OtherVersion> {
        let Some(mut fields) = open_header(bytes, SEGMENT_MAGIC) else { return Ok(None) };
        let mut all = || {
            let (version, flags) = (fields.u32()?, fields.u32()?);
            let numbers = [fields.u64()?, fields.u64()?, fields.u64()?, fields.u64()?];
            Ok::<_, Wrong>((version, flags, numbers, fields.u64()? | fields.u64()?))
        };
        let (version, flags, numbers, reserved) = all().map_err(OtherVersion::Newer)?;
        if version < VERSION {
            return Err(OtherVersion::Older(version));
        }
        if version > VERSION || flags != 0 {
            let wrong = format!("a segment of version {version} with flags {flags:#x}");
            return Err(OtherVersion::Newer(wrong));
        }
        if reserved != 0 {
            return Err(OtherVersion::Newer(RESERVED.to_owned()));
        }
        let [number, generation, first, synced] = numbers;
        Ok(Some(SegmentHeader { number, generation, first, synced }))
    }
}

// Batches.

/// What stands in front of a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct BatchHeader {
    /// That of the segment.
    pub(super) generation: u64,
    /// Where in the segment the batch starts.
    pub(super) offset: u64,
    /// Counts up by one from batch to batch, over all segments.
    pub(super) number: u64,
    /// The newest batch whose sync had returned when this one was written.
    pub(super) synced: u64,
    /// The header checksum of the batch before.
    pub(super) previous: u32,
    /// The checksum of the body.
    pub(super) body_checksum: u32,
    /// The length of the body; 0 for a seal.
    pub(super) body: u64,
    /// Zero, as long as no version has a use for it.
    pub(super) reserved: u64,
    /// This header's own checksum.
    pub(super) checksum: u32,
}

impl BatchHeader {
    /// The header in these bytes of the segment of this generation at this offset, if there is one.
    pub(super) fn decode(bytes: &[u8], generation: u64, offset: u64) -> Option<BatchHeader> {
        let mut fields = open_header(bytes, BATCH_MAGIC)?;
        let checksum = u32::from_le_bytes(bytes[..4].try_into().ok()?);
        let header = (|| {
            Ok::<_, Wrong>(BatchHeader {
                generation: fields.u64()?,
                offset: fields.u64()?,
                number: fields.u64()?,
                synced: fields.u64()?,
                previous: fields.u32()?,
                body_checksum: fields.u32()?,
                body: fields.u64()?,
                reserved: fields.u64()?,
                checksum,
            })
        })()
        .ok()?;
        (header.generation == generation && header.offset == offset && header.body <= MAX_BODY)
            .then_some(header)
    }

    /// The bytes on disk, up to the next block.
    pub(super) fn padded(&self) -> u64 {
        blocks(HEADER as u64 + self.body)
    }
}

/// Fills in the checksum and pads.
fn sealed_header(fields: &[u8]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..fields.len()].copy_from_slice(fields);
    let sum = crc32c::crc32c(&bytes[4..]);
    bytes[..4].copy_from_slice(&sum.to_le_bytes());
    bytes
}

/// The fields after the magic, if checksum and magic hold.
fn open_header(bytes: &[u8], magic: [u8; 4]) -> Option<Cursor<'_>> {
    let bytes = bytes.get(..HEADER)?;
    if bytes[4..8] != magic || crc32c::crc32c(&bytes[4..]).to_le_bytes() != bytes[..4] {
        return None;
    }
    Some(Cursor { bytes, at: 8 })
}

/// The end of a batch: where the log goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct End {
    /// The segment's number; 0 for the end of a log that has no batch.
    pub(super) segment: u64,
    /// The segment's generation.
    pub(super) generation: u64,
    /// The offset after the batch, on a block's edge.
    pub(super) offset: u64,
    /// The batch's number.
    pub(super) batch: u64,
    /// The batch's header checksum.
    pub(super) checksum: u32,
}

impl End {
    /// Before the first batch of a new log.
    pub(super) const NONE: End = End { segment: 0, generation: 0, offset: 0, batch: 0, checksum: 0 };
}

/// Where in a segment an entry lies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    pub(super) offset: u32,
    pub(super) len: u32,
}

// Records.

/// One thing that a batch says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Record {
    /// In a checkpoint: whose log it is, and which batch it follows.
    Origin { identity: Identity, end: End },
    /// In a checkpoint: the whole shape, except for its memberships.
    State(Shape),
    /// In a checkpoint: one membership of the shape.
    Membership(LogId, Bytes),
    /// A new hard state.
    HardState(HardState),
    /// Forget all entries.
    Reset(LogId),
    /// Forget the entries after.
    Truncate(Index),
    /// More entries, and where each lies.
    Append(Vec<(Entry, Place)>),
    /// The entries up to here are in a snapshot.
    Purge(LogId),
    /// The log goes on in this segment, which has joined it. Behind the last batch that counts.
    Successor {
        /// The segment's number.
        number: u64,
        /// Its generation.
        generation: u64,
    },
}

impl Record {
    /// Applies it to the outline of a log.
    pub(super) fn change(&self, shape: &mut Shape) -> Result<(), Wrong> {
        match self {
            Record::HardState(hard_state) => shape.hard_state = *hard_state,
            Record::Reset(to) => shape.reset(*to)?,
            Record::Truncate(last) => shape.truncate(*last)?,
            Record::Append(entries) => entries.iter().try_for_each(|(e, _)| shape.append_entry(e))?,
            Record::Purge(upto) => shape.purge(*upto)?,
            Record::Origin { .. } | Record::State(_) | Record::Membership(..) | Record::Successor { .. } => {
                return Err("a record that does not belong there".into());
            }
        }
        Ok(())
    }

    /// About the bytes that it takes, and more than that of a small one.
    pub(super) fn weight(&self) -> u64 {
        match self {
            Record::Append(entries) => {
                RECORD_HEADER as u64 + entries.iter().map(|(_, place)| u64::from(place.len)).sum::<u64>()
            }
            _ => (RECORD_HEADER + HARD_STATE_SIZE) as u64,
        }
    }
}

const ORIGIN: u8 = 1;
const STATE: u8 = 2;
const MEMBERSHIP: u8 = 3;
const HARD_STATE: u8 = 4;
const RESET: u8 = 5;
const TRUNCATE: u8 = 6;
const APPEND: u8 = 7;
const PURGE: u8 = 8;
const SUCCESSOR: u8 = 9;

/// Bit 0 of an origin's flags: the cluster is known.
const KNOWS_CLUSTER: u32 = 1;
/// Bit 0 of a hard state's flags: there is a vote.
const VOTED: u32 = 1;

/// Builds one batch after the other in one buffer.
#[derive(Default)]
pub(super) struct Encoder {
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
    pub(super) fn new(broken: Broken) -> Encoder {
        Encoder { broken, ..Encoder::default() }
    }

    /// Starts a batch.
    pub(super) fn begin(&mut self, generation: u64, offset: u64, number: u64) {
        self.buffer.clear();
        self.buffer.resize(HEADER, 0);
        self.places.clear();
        (self.generation, self.offset, self.number) = (generation, offset, number);
        self.sum = body_seed(generation, offset, number);
    }

    /// Ends the batch: the bytes to write, in whole blocks, and the checksum of the header.
    pub(super) fn finish(&mut self, synced: u64, previous: u32) -> (&[u8], u32) {
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
    pub(super) fn places(&self) -> &[Place] {
        &self.places
    }

    /// What a checkpoint restates.
    pub(super) fn restate(&mut self, identity: &Identity, end: &End, shape: &Shape) {
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
    pub(super) fn batch(&mut self, batch: &WriteBatch) {
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
    pub(super) fn purge(&mut self, upto: LogId) {
        self.log_id(PURGE, upto);
    }

    /// That the log goes on in this segment.
    pub(super) fn successor(&mut self, number: u64, generation: u64) {
        let mut content = Vec::with_capacity(16);
        put_u64(&mut content, number);
        put_u64(&mut content, generation);
        self.record(SUCCESSOR, 1, &content);
    }

    /// A record of an earlier batch, once more. What only a checkpoint restates is left out.
    pub(super) fn repeat(&mut self, record: &Record) {
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
pub(super) fn body_len(batch: &WriteBatch) -> u64 {
    let record = |content: usize| (RECORD_HEADER + content) as u64;
    let hard_state = batch.hard_state.map_or(0, |_| record(HARD_STATE_SIZE));
    let changes = batch.changes.iter().map(|change| match change {
        Change::Reset(_) => record(16),
        Change::Truncate(_) => record(8),
        Change::Append(entries) => record(0) + entries.iter().map(|e| e.len() as u64).sum::<u64>(),
    });
    hard_state + changes.sum::<u64>()
}

/// Why a batch cannot be taken.
#[derive(Debug)]
pub(super) enum BodyError {
    /// Its bytes are not those that were written: torn, or damaged.
    NotWhole(Wrong),
    /// Its bytes are whole, but say what this version does not know.
    Unknown(Wrong),
}

/// Takes the body of a batch apart, once every checksum holds.
pub(super) fn decode_body(header: &BatchHeader, body: &Bytes) -> Result<Vec<Record>, BodyError> {
    if header.reserved != 0 {
        return Err(BodyError::Unknown(RESERVED.to_owned()));
    }
    // First the sums, as far as they can be followed, and nothing believed; then the meaning.
    let mut sum = body_seed(header.generation, header.offset, header.number);
    let mut entries: Vec<(usize, usize)> = Vec::new();
    let mut cursor = Cursor { bytes: body, at: 0 };
    while cursor.at < body.len() {
        let start = cursor.at;
        let (kind, len) = record_bounds(&mut cursor).map_err(BodyError::NotWhole)?;
        sum = crc32c::crc32c_append(sum, &body[start..cursor.at]);
        let content = cursor.at;
        let bytes = cursor.take(len).map_err(BodyError::NotWhole)?;
        if kind != APPEND {
            sum = crc32c::crc32c_append(sum, bytes);
            continue;
        }
        let mut at = 0;
        while at < bytes.len() {
            let len = Entry::encoded_len(&bytes[at..]).map_err(|e| BodyError::NotWhole(e.to_string()))?;
            if len > bytes.len() - at {
                return Err(BodyError::NotWhole("an entry reaches beyond its record".into()));
            }
            sum = crc32c::crc32c_append(sum, &bytes[at..at + 8]);
            entries.push((content + at, len));
            at += len;
        }
    }
    if sum != header.body_checksum {
        return Err(BodyError::NotWhole("the checksum of the batch's body is wrong".into()));
    }
    let mut places = entries.into_iter();
    let entry = |(at, len): (usize, usize)| {
        let entry = Entry::decode(body.slice(at..at + len)).map_err(|e| match e {
            EntryError::Newer { .. } => BodyError::Unknown(e.to_string()),
            _ => BodyError::NotWhole(format!("{e}, {at} bytes into the batch's body")),
        })?;
        let offset = (header.offset as usize + HEADER + at) as u32;
        Ok::<_, BodyError>((entry, Place { offset, len: len as u32 }))
    };
    let mut records = Vec::new();
    let mut cursor = Cursor { bytes: body, at: 0 };
    while cursor.at < body.len() {
        let (kind, count, len) = record_header(&mut cursor).map_err(BodyError::Unknown)?;
        let end = cursor.at + len;
        let record = if kind == APPEND {
            let mut all = Vec::new();
            while cursor.at < end {
                let Some(place) = places.next() else { break };
                all.push(entry(place)?);
                cursor.at = place.0 + place.1;
            }
            Record::Append(all)
        } else {
            let start = cursor.at;
            let record = decode_record(kind, count, &mut cursor, body, end).map_err(BodyError::Unknown)?;
            if cursor.at != end {
                let detail = format!("a record of kind {kind} has {len} bytes, not {}", cursor.at - start);
                return Err(BodyError::Unknown(detail));
            }
            record
        };
        records.push(record);
    }
    Ok(records)
}

/// Kind and content length of the record that starts here, whatever it means.
fn record_bounds(cursor: &mut Cursor<'_>) -> Result<(u8, usize), Wrong> {
    let head = cursor.take(RECORD_HEADER)?;
    let len = u64::from_le_bytes(std::array::from_fn(|i| head[16 + i]));
    Ok((head[0], usize::try_from(len).map_err(|_| "a record of an impossible length")?))
}

/// Kind, count and content length of the record that starts here, if this version knows its flags.
fn record_header(cursor: &mut Cursor<'_>) -> Result<(u8, u32, usize), Wrong> {
    let [kind, flags, free, more] = cursor.u32()?.to_le_bytes();
    let (count, group, len) = (cursor.u32()?, cursor.u64()?, cursor.u64()?);
    if free != 0 || more != 0 {
        return Err(RESERVED.to_owned());
    }
    if flags != 0 || group != GROUP {
        return Err(format!("a record of group {group} with flags {flags:#x}"));
    }
    let len = usize::try_from(len).map_err(|_| "a record of an impossible length")?;
    Ok((kind, count, len))
}

fn decode_record(
    kind: u8,
    count: u32,
    cursor: &mut Cursor<'_>,
    body: &Bytes,
    end: usize,
) -> Result<Record, Wrong> {
    Ok(match kind {
        ORIGIN => {
            let (node, incarnation) = (NodeId(cursor.u64()?), Incarnation(cursor.u64()?));
            let cluster = u128::from(cursor.u64()?) | u128::from(cursor.u64()?) << 64;
            let [segment, generation, offset, batch] =
                [cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u64()?];
            let (checksum, flags) = (cursor.u32()?, cursor.u32()?);
            if flags & !KNOWS_CLUSTER != 0 {
                return Err(format!("an origin with flags {flags:#x}"));
            }
            let cluster = (flags & KNOWS_CLUSTER != 0).then_some(ClusterId(cluster));
            let end = End { segment, generation, offset, batch, checksum };
            Record::Origin { identity: Identity { node, incarnation, cluster }, end }
        }
        STATE => {
            let mut shape = Shape { hard_state: cursor.hard_state()?, ..Shape::default() };
            shape.purged = cursor.log_id()?;
            shape.last = cursor.log_id()?;
            for _ in 0..count {
                shape.runs.push(Run { first: Index(cursor.u64()?), term: Term(cursor.u64()?) });
            }
            Record::State(shape)
        }
        MEMBERSHIP => {
            let id = cursor.log_id()?;
            let payload = Bytes::copy_from_slice(&body[cursor.at.min(end)..end]);
            cursor.at = end;
            Record::Membership(id, payload)
        }
        HARD_STATE => Record::HardState(cursor.hard_state()?),
        RESET => Record::Reset(cursor.log_id()?),
        TRUNCATE => Record::Truncate(Index(cursor.u64()?)),
        PURGE => Record::Purge(cursor.log_id()?),
        SUCCESSOR => Record::Successor { number: cursor.u64()?, generation: cursor.u64()? },
        _ => return Err(format!("a record of kind {kind}")),
    })
}

/// Where the checksum of a body starts: with the place that the body is true in.
fn body_seed(generation: u64, offset: u64, number: u64) -> u32 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&generation.to_le_bytes());
    bytes[8..16].copy_from_slice(&offset.to_le_bytes());
    bytes[16..].copy_from_slice(&number.to_le_bytes());
    crc32c::crc32c(&bytes)
}

/// Term, vote, flags, and the room for the lease that was promised.
const HARD_STATE_SIZE: usize = 40;

fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState) {
    let vote = hard_state.vote.unwrap_or_default();
    put_u64(out, hard_state.term.0);
    put_u64(out, vote.id.0);
    put_u64(out, vote.incarnation.0);
    put_u32(out, if hard_state.vote.is_some() { VOTED } else { 0 });
    put_u32(out, 0);
    put_u64(out, 0);
}

fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_u64(out, id.term.0);
    put_u64(out, id.index.0);
}

fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads fields one after the other, never beyond the end.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Result<&'a [u8], Wrong> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("a record reaches beyond its batch")?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    fn u32(&mut self) -> Result<u32, Wrong> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    fn u64(&mut self) -> Result<u64, Wrong> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    fn log_id(&mut self) -> Result<LogId, Wrong> {
        Ok(LogId { term: Term(self.u64()?), index: Index(self.u64()?) })
    }

    fn hard_state(&mut self) -> Result<HardState, Wrong> {
        let term = Term(self.u64()?);
        let vote = Peer { id: NodeId(self.u64()?), incarnation: Incarnation(self.u64()?) };
        let (flags, free, lease) = (self.u32()?, self.u32()?, self.u64()?);
        if lease != 0 || free != 0 || flags & !VOTED != 0 {
            return Err(format!("a hard state with flags {flags:#x} and a lease of {lease}"));
        }
        Ok(HardState { term, vote: (flags & VOTED != 0).then_some(vote) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::{Kind, Stamp};

    fn batch() -> WriteBatch {
        let entry = |index, payload: &[u8]| {
            Entry::new(LogId::new(2, index), Kind::Command, Stamp::default(), payload)
        };
        let vote = Some(Peer { id: NodeId(3), incarnation: Incarnation(4) });
        WriteBatch {
            hard_state: Some(HardState { term: Term(2), vote }),
            changes: vec![
                Change::Reset(LogId::new(1, 9)),
                Change::Truncate(Index(9)),
                Change::Append(vec![entry(10, b"ten"), entry(11, b"")]),
                Change::Append(vec![]),
                Change::Append(vec![entry(12, &[7; 5000])]),
            ],
        }
    }

    fn encoded() -> Vec<u8> {
        let mut encoder = Encoder::default();
        encoder.begin(5, 8192, 3);
        encoder.batch(&batch());
        encoder.purge(LogId::new(2, 11));
        encoder.finish(2, 99).0.to_vec()
    }

    fn decoded(bytes: &[u8]) -> Result<Vec<Record>, BodyError> {
        let header =
            BatchHeader::decode(bytes, 5, 8192).ok_or_else(|| BodyError::NotWhole("header".into()))?;
        let body = bytes.get(HEADER..HEADER + header.body as usize);
        let body = body.ok_or_else(|| BodyError::NotWhole("cut".into()))?;
        decode_body(&header, &Bytes::copy_from_slice(body))
    }

    #[test]
    fn a_batch_survives_its_encoding() {
        let bytes = encoded();
        assert_eq!(bytes.len() % BLOCK as usize, 0);
        let header = BatchHeader::decode(&bytes, 5, 8192).unwrap();
        assert_eq!((header.number, header.synced, header.previous), (3, 2, 99));
        assert_eq!(header.body, body_len(&batch()) + RECORD_HEADER as u64 + 16);
        let mut again = Encoder::default();
        again.begin(5, 8192, 3);
        for record in decoded(&bytes).unwrap() {
            if let Record::Append(entries) = &record {
                for (entry, place) in entries {
                    let at = place.offset as usize - 8192;
                    assert_eq!(bytes[at..at + place.len as usize], entry.bytes()[..]);
                }
            }
            again.repeat(&record);
        }
        assert_eq!(again.finish(2, 99).0, bytes);
    }

    #[test]
    fn a_checkpoint_survives_its_encoding() {
        let identity =
            Identity { node: NodeId(1), incarnation: Incarnation(2), cluster: Some(ClusterId(3 << 70)) };
        let end = End { segment: 1, generation: 2, offset: 4096, batch: 3, checksum: 4 };
        let mut shape = Shape { purged: LogId::new(1, 2), last: LogId::new(4, 9), ..Shape::default() };
        shape.runs = vec![Run::new(3, 1), Run::new(5, 4)];
        shape.memberships =
            vec![(LogId::new(1, 1), Bytes::from_static(b"m")), (LogId::new(4, 6), Bytes::new())];
        let mut encoder = Encoder::default();
        encoder.begin(5, 8192, 3);
        encoder.restate(&identity, &end, &shape);
        let records = decoded(encoder.finish(2, 99).0).unwrap();
        assert_eq!(records[0], Record::Origin { identity, end });
        let memberships = std::mem::take(&mut shape.memberships);
        assert_eq!(records[1], Record::State(shape));
        for (record, (id, payload)) in records[2..].iter().zip(memberships) {
            assert_eq!(*record, Record::Membership(id, payload));
        }
        assert_eq!(records.len(), 4);
    }

    #[test]
    fn st_2_every_flipped_bit_of_a_batch_is_found() {
        let good = encoded();
        let used = HEADER + BatchHeader::decode(&good, 5, 8192).unwrap().body as usize;
        let mut bytes = good.clone();
        for bit in 0..used * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(decoded(&bytes), Err(BodyError::NotWhole(_))), "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        for cut in 0..used {
            assert!(decoded(&good[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn a_batch_of_another_place_or_life_is_none() {
        let bytes = encoded();
        assert_eq!(BatchHeader::decode(&bytes, 6, 8192), None);
        assert_eq!(BatchHeader::decode(&bytes, 5, 4096), None);
        let header = BatchHeader::decode(&bytes, 5, 8192).unwrap();
        let body = Bytes::copy_from_slice(&bytes[HEADER..HEADER + header.body as usize]);
        for other in [
            BatchHeader { generation: 6, ..header },
            BatchHeader { offset: 4096, ..header },
            BatchHeader { number: 4, ..header },
        ] {
            assert!(matches!(decode_body(&other, &body), Err(BodyError::NotWhole(_))));
        }
    }
}
