//! RocksDB's files of records: its write-ahead log and its manifest, read up to the first record that is not whole.
//!
//! The file is a row of blocks of 32 KiB. A fragment lies in one block: a CRC-32C (u32, masked) of all that
//! follows the length, the length of the payload (u16), the type (u8), the payload; numbers are little-endian. A
//! record is one fragment, or a first, middle ones and a last one. A block's last bytes are zeros where no
//! header fits. These four types are all that RocksDB writes with our options.

use coracle::storage::disk::DiskFile;
use std::io;

const BLOCK: usize = 32 << 10;
const HEADER: usize = 7;

const FULL: u8 = 1;
const FIRST: u8 = 2;
const MIDDLE: u8 = 3;
const LAST: u8 = 4;

/// How a file ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ending {
    /// The offset after the last whole record that only whole ones precede.
    pub(crate) end: u64,
    /// Where a fragment lies that is not whole, or not what should follow; none if the file ends at `end`.
    pub(crate) broken: Option<u64>,
    /// Whether a whole fragment, with which a record begins, lies after that.
    pub(crate) followed: bool,
}

/// How much of a record is shown at least, in bytes, if it is not shorter.
const SHOWN: usize = 1024;

/// Reads the file, block by block, and shows the beginning of each whole record.
pub(crate) fn read(file: &dyn DiskFile, each: &mut dyn FnMut(&[u8])) -> io::Result<Ending> {
    let len = file.len()?;
    let mut block = vec![0; BLOCK];
    let (mut end, mut broken) = (0, None);
    // The beginning of a record that is not at its end.
    let mut begun: Option<Vec<u8>> = None;
    for start in (0..len).step_by(BLOCK) {
        let bytes = &mut block[..(len - start).min(BLOCK as u64) as usize];
        fill(file, bytes, start)?;
        let mut at = 0;
        while broken.is_none() && at < bytes.len() {
            let size = match (fragment(&bytes[at..]), &mut begun) {
                (Some((FULL, payload)), None) => {
                    each(payload);
                    HEADER + payload.len()
                }
                (Some((FIRST, payload)), None) => {
                    begun = Some(payload.to_vec());
                    HEADER + payload.len()
                }
                (Some((kind @ (MIDDLE | LAST), payload)), Some(beginning)) => {
                    let missing = SHOWN.saturating_sub(beginning.len());
                    beginning.extend_from_slice(&payload[..missing.min(payload.len())]);
                    if kind == LAST {
                        each(beginning);
                        begun = None;
                    }
                    HEADER + payload.len()
                }
                (None, _) if bytes.len() == BLOCK && BLOCK - at < HEADER => BLOCK - at,
                _ => {
                    broken = Some(start + at as u64);
                    break;
                }
            };
            at += size;
            if begun.is_none() {
                end = start + at as u64;
            }
        }
        if let Some(broken) = broken {
            let from = broken.saturating_sub(start) as usize;
            if (from..bytes.len()).any(|at| begins_record(&bytes[at..])) {
                return Ok(Ending { end, broken: Some(broken), followed: true });
            }
        }
    }
    let cut = begun.map(|_| len);
    Ok(Ending { end, broken: broken.or(cut), followed: false })
}

/// The type and the payload of the fragment at the beginning of these bytes, if it is whole.
fn fragment(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [s0, s1, s2, s3, l0, l1, kind] = *header;
    let payload = rest.get(..usize::from(u16::from_le_bytes([l0, l1])))?;
    let sum = crc32c::crc32c_append(crc32c::crc32c(&[kind]), payload);
    let masked = sum.rotate_right(15).wrapping_add(0xa282_ead8);
    (masked == u32::from_le_bytes([s0, s1, s2, s3])).then_some((kind, payload))
}

/// Whether a whole fragment lies here with which a record begins.
fn begins_record(bytes: &[u8]) -> bool {
    // Most bytes are none of the two types, which spares most sums.
    matches!(bytes.get(HEADER - 1), Some(&(FULL | FIRST))) && fragment(bytes).is_some()
}

fn fill(file: &dyn DiskFile, mut bytes: &mut [u8], mut offset: u64) -> io::Result<()> {
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
    use coracle::raft::{Incarnation, NodeId};
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
            unreachable!("a file is only looked at")
        }
        fn sync_data(&self) -> io::Result<()> {
            unreachable!("a file is only looked at")
        }
        fn set_len(&self, _: u64) -> io::Result<()> {
            unreachable!("a file is only looked at")
        }
    }

    #[derive(PartialEq, Debug)]
    enum Tail {
        Whole,
        Torn(usize),
        Damaged(usize),
    }

    fn tail_of(bytes: &[u8]) -> Tail {
        let mut records = 0;
        let ending = read(&Bytes(bytes.to_vec()), &mut |record| {
            assert!(record.len() >= 12, "the head of a write batch");
            records += 1;
        })
        .unwrap();
        assert_eq!(records > 0, ending.end > 0);
        match ending {
            Ending { end, broken: None, followed } => {
                assert!(end as usize == bytes.len() && !followed);
                Tail::Whole
            }
            Ending { end, followed: false, .. } => Tail::Torn(end as usize),
            Ending { broken: Some(offset), .. } => Tail::Damaged(offset as usize),
        }
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

    /// Commits within a block, over one boundary, and over two.
    const SIZES: [usize; 7] = [10, 900, 300, 40_000, 17, 70_000, 5];

    #[test]
    fn st_2_a_log_that_was_cut_anywhere_is_torn_at_the_commit_that_is_not_whole() {
        let (bytes, ends) = log(&SIZES);
        assert_eq!(tail_of(&bytes), Tail::Whole);
        for cut in 0..bytes.len() {
            let end = before(&ends, cut);
            let torn = Tail::Torn(end);
            let expected = if end == cut { Tail::Whole } else { torn };
            assert_eq!(tail_of(&bytes[..cut]), expected, "cut at {cut}");
        }
    }

    /// What is left of a block after a commit, too short for a header, is filled with zeros.
    #[test]
    fn st_2_a_block_with_no_room_for_a_header() {
        let mut fillings = 0;
        for size in 32_560..=32_605 {
            let (mut bytes, ends) = log(&[size, 10]);
            assert_eq!(tail_of(&bytes), Tail::Whole, "{size}");
            let Some(end) = ends.iter().copied().find(|end| (BLOCK - HEADER + 1..BLOCK).contains(end)) else {
                continue;
            };
            fillings += 1;
            for cut in end..BLOCK + 10 {
                let expected = if cut == end || cut == BLOCK {
                    Tail::Whole
                } else {
                    Tail::Torn(before(&[end, BLOCK], cut))
                };
                assert_eq!(tail_of(&bytes[..cut]), expected, "{size}: cut at {cut}");
            }
            bytes[BLOCK - 1] ^= 1;
            assert_eq!(tail_of(&bytes), Tail::Whole, "nobody reads the filling");
            bytes[BLOCK] ^= 1;
            assert_eq!(tail_of(&bytes), Tail::Damaged(BLOCK), "{size}");
        }
        assert_eq!(fillings, 6);
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
                    assert_eq!(tail_of(&bytes), Tail::Torn(start), "sectors {lost:?} of {start}..{end}");
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
                    Tail::Damaged(offset) => assert!(offset <= at && at < last, "{offset}, {at}"),
                    // The mark itself, which holds nothing.
                    Tail::Torn(end) => assert!(end == last && at >= last, "{end}, {at}"),
                    Tail::Whole => panic!("bit {bit} of {at} makes no difference"),
                }
            }
        }
    }
}
