//! The end of RocksDB's write-ahead log: torn by a loss of power, or damaged?
//!
//! RocksDB can refuse to start at every record that is not whole, or drop it with all that is behind. The first
//! refuses what a loss of power may leave of a write that was never acknowledged, in any sector of it; the
//! second loses what was, after a single flipped bit, without a word. What tells the two apart is what
//! follows: every commit of ours is synced before the next begins, so the beginning of a later one proves that
//! the one before it was durable. The newest commit is proved by an empty one, written when nothing
//! comes and when the store is closed. In doubt it is damage: where a torn commit holds a value that itself looks
//! like a record, the start is refused, and nothing is lost.
//!
//! The file is a row of blocks of 32 KiB. A record lies in one block: a CRC-32C (u32, masked) of all that
//! follows the length, the length of the payload (u16), the type (u8), the payload; numbers are little-endian. A
//! commit is one record, or a first, middle ones and a last one. A block's last bytes are zeros where no
//! header fits. Types above these four carry no commit here.

use coracle::storage::disk::DiskFile;
use std::io;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// How a file of RocksDB's write-ahead log ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// With a whole commit.
    Whole,
    /// With one that is not, which nothing proves to have been acknowledged. Those before it end at this offset.
    Torn(u64),
    /// Not with the record that is not whole at this offset: a later commit begins behind it.
    Damaged(u64),
}

/// Reads the file, block by block.
pub(crate) fn tail(file: &dyn DiskFile) -> io::Result<Tail> {
    let len = file.len()?;
    let mut block = vec![0; BLOCK];
    // Where the last whole commit ends, and whether another one has begun there.
    let (mut end, mut begun) = (0, false);
    // Where the first record lies that is not whole.
    let mut broken = None;
    for start in (0..len).step_by(BLOCK) {
        let bytes = &mut block[..(len - start).min(BLOCK as u64) as usize];
        read(file, bytes, start)?;
        let mut at = 0;
        while broken.is_none() && at < bytes.len() {
            let here = start + at as u64;
            match record(&bytes[at..]) {
                Some((FIRST, size)) if !begun => (at, begun) = (at + size, true),
                Some((MIDDLE, size)) if begun => at += size,
                Some((LAST, size)) if begun => (at, begun) = (at + size, false),
                Some((FULL, size)) if !begun => at += size,
                Some((kind, size)) if kind > LAST => at += size,
                None if bytes.len() == BLOCK && bytes.len() - at < HEADER => at = bytes.len(),
                _ => broken = Some(here),
            }
            if broken.is_none() && !begun {
                end = start + at as u64;
            }
        }
        if let Some(broken) = broken {
            let from = broken.saturating_sub(start) as usize;
            if (from..bytes.len()).any(|at| begins_commit(&bytes[at..])) {
                return Ok(Tail::Damaged(broken));
            }
        }
    }
    Ok(if broken.is_some() || begun { Tail::Torn(end) } else { Tail::Whole })
}

/// The type and the size, with its header, of the record at the beginning of these bytes, if it is whole.
fn record(bytes: &[u8]) -> Option<(u8, usize)> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [s0, s1, s2, s3, l0, l1, kind] = *header;
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == u32::from_le_bytes([s0, s1, s2, s3])).then_some((kind, HEADER + payload.len()))
}

/// Whether a whole record lies here with which a commit begins.
fn begins_commit(bytes: &[u8]) -> bool {
    // Most bytes are none of the two types, which spares most sums.
    matches!(bytes.get(HEADER - 1), Some(&(FULL | FIRST))) && record(bytes).is_some()
}

fn read(file: &dyn DiskFile, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
    while !bytes.is_empty() {
        match file.read_at(bytes, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => (bytes, offset) = (&mut bytes[n..], offset + n as u64),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RocksDb;
    use coracle::core::{Incarnation, NodeId};
    use coracle::storage::contract::model::{append, changes};
    use coracle::storage::{Engine, Identity};

    struct Bytes(Vec<u8>);

    impl DiskFile for Bytes {
        fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
            let rest = self.0.get(offset as usize..).unwrap_or_default();
            let n = rest.len().min(buffer.len());
            buffer[..n].copy_from_slice(&rest[..n]);
            Ok(n)
        }
        fn len(&self) -> io::Result<u64> {
            Ok(self.0.len() as u64)
        }
        fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
            unreachable!("a tail is only looked at")
        }
        fn sync_data(&self) -> io::Result<()> {
            unreachable!("a tail is only looked at")
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!("a tail is only looked at")
        }
    }

    fn tail_of(bytes: &[u8]) -> Tail {
        tail(&Bytes(bytes.to_vec())).unwrap()
    }

    /// What RocksDB itself writes: the bytes of its log, and where each commit of ours ended in it.
    fn log(sizes: &[usize]) -> (Vec<u8>, Vec<usize>) {
        let dir = tempfile::tempdir().unwrap();
        let identity = Identity { node: NodeId(1), incarnation: Incarnation(7), cluster: None };
        let mut store = RocksDb::default().open(dir.path(), identity).unwrap();
        store.load(&mut |_| {}).unwrap();
        let read = || {
            let files = std::fs::read_dir(dir.path()).unwrap().map(|item| item.unwrap().path());
            let logs: Vec<_> = files.filter(|path| path.extension().is_some_and(|e| e == "log")).collect();
            assert_eq!(logs.len(), 1);
            std::fs::read(&logs[0]).unwrap()
        };
        let mut ends = vec![0, read().len()];
        for (at, size) in sizes.iter().enumerate() {
            let index = at as u64 + 1;
            changes(vec![append(1, index..=index, *size)]).run(&mut *store).unwrap();
            ends.push(read().len());
        }
        store.idle().unwrap();
        ends.push(read().len());
        assert!(ends.is_sorted_by(|a, b| a < b), "each commit is in the log when it returns, the mark, too");
        drop(store);
        let bytes = read();
        assert_eq!(
            bytes.len(),
            *ends.last().unwrap(),
            "nothing is written where nothing came since the mark"
        );
        (bytes, ends)
    }

    /// The last end up to this offset.
    fn before(ends: &[usize], offset: usize) -> usize {
        *ends.iter().rfind(|end| **end <= offset).unwrap()
    }

    /// Commits within a block, over one boundary, over two, and with a few bytes left in a block.
    const SIZES: [usize; 7] = [10, 900, 300, 40_000, 17, 70_000, 5];

    #[test]
    fn st_2_a_log_that_was_cut_anywhere_is_torn_at_the_commit_that_is_not_whole() {
        let (bytes, ends) = log(&SIZES);
        assert_eq!(tail_of(&bytes), Tail::Whole);
        for cut in 0..bytes.len() {
            let end = before(&ends, cut);
            let torn = Tail::Torn(end as u64);
            let expected = if end == cut { Tail::Whole } else { torn };
            // What is left of a block behind a commit, too short for a header, is part of the next one.
            let found = tail_of(&bytes[..cut]);
            assert!(found == expected || found == Tail::Whole && cut % BLOCK == 0, "cut at {cut}: {found:?}");
        }
    }

    /// The last commit was written and not synced, and any of its sectors is lost.
    #[test]
    fn st_3_missing_sectors_of_the_last_commit_are_no_damage() {
        let (bytes, ends) = log(&SIZES);
        for last in 1..ends.len() {
            let (start, end) = (ends[last - 1], ends[last]);
            for sector in start / 512..=(end - 1) / 512 {
                for lost in [sector..sector + 1, sector..end / 512 + 1, start / 512..sector + 1] {
                    let mut bytes = bytes[..end].to_vec();
                    bytes[(lost.start * 512).max(start)..(lost.end * 512).min(end)].fill(0);
                    assert_eq!(
                        tail_of(&bytes),
                        Tail::Torn(start as u64),
                        "sectors {lost:?} of {start}..{end}"
                    );
                }
            }
        }
    }

    #[test]
    fn st_9_a_flipped_bit_is_damage_wherever_a_later_commit_follows() {
        let (mut bytes, ends) = log(&SIZES);
        let last = ends[ends.len() - 2];
        for at in 0..bytes.len() {
            // All bits of the headers' bytes and of some others.
            for bit in if at % 97 == 0 || at % BLOCK < 64 || at > 100_000 { 0..8 } else { 3..4 } {
                bytes[at] ^= 1 << bit;
                let found = tail_of(&bytes);
                bytes[at] ^= 1 << bit;
                match found {
                    Tail::Damaged(offset) => assert!(offset as usize <= at && at < last, "{offset}, {at}"),
                    // The mark itself, which holds nothing.
                    Tail::Torn(end) => assert!(end as usize == last && at >= last, "{end}, {at}"),
                    Tail::Whole => panic!("bit {bit} of {at} makes no difference"),
                }
            }
        }
    }
}
