//! The fields that everything in a log is made of: little-endian numbers, one after the other.

use coracle_core::{HardState, Incarnation, Index, LogId, NodeId, Peer, Term};

/// Bytes are not what they should be; the text says what is wrong.
pub(in crate::storage::wal) type Wrong = String;

/// Bit 0 of a hard state's flags: there is a vote.
pub(super) const VOTED: u32 = 1;

/// Term, vote, flags, and the longest lease that was promised.
pub(super) const HARD_STATE_SIZE: usize = 40;

pub(super) fn put_hard_state(out: &mut Vec<u8>, hard_state: &HardState) {
    let vote = hard_state.vote.unwrap_or_default();
    put_u64(out, hard_state.term.0);
    put_u64(out, vote.id.0);
    put_u64(out, vote.incarnation.0);
    put_u32(out, if hard_state.vote.is_some() { VOTED } else { 0 });
    put_u32(out, 0);
    put_u64(out, hard_state.promised);
}

pub(super) fn put_log_id(out: &mut Vec<u8>, id: LogId) {
    put_u64(out, id.term.0);
    put_u64(out, id.index.0);
}

pub(super) fn put_u32(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(&value.to_le_bytes());
}

/// Reads fields one after the other, never beyond the end.
pub(super) struct Cursor<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, len: usize) -> Result<&'a [u8], Wrong> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let end = end.ok_or("a record reaches beyond its batch")?;
        let bytes = &self.bytes[self.at..end];
        self.at = end;
        Ok(bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, Wrong> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    pub(super) fn u64(&mut self) -> Result<u64, Wrong> {
        let bytes = self.take(8)?;
        Ok(u64::from_le_bytes(std::array::from_fn(|i| bytes[i])))
    }

    pub(super) fn log_id(&mut self) -> Result<LogId, Wrong> {
        Ok(LogId { term: Term(self.u64()?), index: Index(self.u64()?) })
    }

    pub(super) fn hard_state(&mut self) -> Result<HardState, Wrong> {
        let term = Term(self.u64()?);
        let vote = Peer { id: NodeId(self.u64()?), incarnation: Incarnation(self.u64()?) };
        let (flags, free, promised) = (self.u32()?, self.u32()?, self.u64()?);
        if free != 0 || flags & !VOTED != 0 {
            return Err(format!("a hard state with flags {flags:#x} and {free:#x} after them"));
        }
        Ok(HardState { term, vote: (flags & VOTED != 0).then_some(vote), promised })
    }
}
