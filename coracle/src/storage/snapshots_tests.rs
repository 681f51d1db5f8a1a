use super::*;
use crate::storage::mem_disk::{MemDisk, Op};

/// Parts of a few pieces.
const PACE: Pace = Pace { part: 150, pause: Duration::ZERO, stops: None };

fn meta(index: u64) -> Meta {
    Meta {
        id: LogId::new(3, index),
        digest: [7; 16],
        cluster_time: 99,
        machine_version: 2,
        compared: Some(coracle_core::Digest { index: Index(4), format: 1, version: 2, bytes: [9; 16] }),
        membership: (LogId::new(1, 1), Bytes::from_static(b"who takes part")),
        level: 0,
        sessions: Bytes::new(),
        timers: Bytes::new(),
        entries_version: 0,
        rulings: Bytes::new(),
        effects: Bytes::new(),
    }
}

fn state(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251) as u8).collect()
}

fn saved(disk: &MemDisk, index: u64, bytes: usize) -> Kept {
    save(disk, &meta(index), 77, &PACE, |to| to.write_all(&state(bytes))).unwrap()
}

fn read(disk: &MemDisk, id: LogId) -> Result<(Meta, Vec<u8>), StoreError> {
    let mut reader = open(disk, id)?;
    let mut bytes = Vec::new();
    match reader.read_to_end(&mut bytes) {
        Ok(_) => Ok((reader.meta, bytes)),
        Err(error) => Err(reader.failure(error)),
    }
}

/// The file as bytes, and a disk that holds only those, under the name of the snapshot.
fn copy(disk: &MemDisk, name: &str, change: impl FnOnce(&mut Vec<u8>)) -> MemDisk {
    let file = disk.open(name).unwrap();
    let mut bytes = read_piece(&*file, 0, file.len().unwrap() as usize).unwrap().to_vec();
    change(&mut bytes);
    let other = MemDisk::new();
    other.create(name).unwrap().write_at(&bytes, 0).unwrap();
    other
}

#[test]
fn a_snapshot_is_read_as_it_was_written_whatever_its_length() {
    for bytes in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
        let disk = MemDisk::new();
        let kept = saved(&disk, 9, bytes);
        assert_eq!(kept.meta, meta(9));
        assert_eq!(kept.bytes, open_raw(&disk, kept.meta.id).unwrap().1.len().unwrap());
        let (meta, state) = read(&disk, LogId::new(3, 9)).unwrap();
        assert!(meta == kept.meta && state == self::state(bytes));
        assert_eq!(disk.list().unwrap(), ["snapshot-9-3"]);
    }
}

/// A header has the oldest version that can say what it says, comes back as it was, and what does not fit is refused though
/// its checksum holds.
#[test]
fn a_header_says_no_more_than_it_has_to() {
    for (version, level, sessions, timers) in [
        (1, 0, "", ""),
        (2, 1, "sessions", ""),
        (3, 0, "", "timers"),
        (3, 1, "sessions", "timers"),
        (3, 2, "", ""),
    ] {
        let sessions = Bytes::from_static(sessions.as_bytes());
        let meta = Meta { level, sessions, timers: Bytes::from_static(timers.as_bytes()), ..meta(9) };
        let header = encode(&meta, 77);
        assert_eq!(u32_at(&header, 8), version);
        assert_eq!(decode(&header), Some((77, meta.clone())));
        assert_eq!(blob::decode(&blob::encode(&meta)), Ok(meta));
        for length in FIXED + 14..header.len() {
            assert_eq!(decode(&header[..length]), None, "version {version}, {length} bytes");
        }
        assert_eq!(decode(&[&header[..], &[0]].concat()), None);
        for other in [1u32, 2, 3].into_iter().filter(|other| *other != version) {
            let mut header = header.clone();
            header[8..12].copy_from_slice(&other.to_le_bytes());
            assert_eq!(decode(&header), None, "version {version} as {other}");
        }
    }
}

#[test]
fn nothing_is_compared_where_nothing_was() {
    let disk = MemDisk::new();
    let meta = Meta { compared: None, ..meta(9) };
    assert_eq!(save(&disk, &meta, 1, &PACE, |_| Ok(())).unwrap().meta, meta);
}

/// SN-5: a file that was cut anywhere is noticed, before any of what is missing is relied on.
#[test]
fn sn_5_every_cut_is_noticed() {
    let disk = MemDisk::new();
    let kept = saved(&disk, 9, 300);
    for cut in 0..kept.bytes as usize {
        let cut_off = copy(&disk, "snapshot-9-3", |bytes| bytes.truncate(cut));
        let error = read(&cut_off, kept.meta.id).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. }), "cut at {cut}: {error}");
    }
    let longer = copy(&disk, "snapshot-9-3", |bytes| bytes.push(0));
    assert!(matches!(read(&longer, kept.meta.id), Err(StoreError::Damaged { .. })));
}

/// SN-5: so is every bit that flips; the file is passed over for an older one that is whole, and stays.
#[test]
fn sn_5_every_flipped_bit_is_noticed() {
    let disk = MemDisk::new();
    let kept = saved(&disk, 9, 300);
    for bit in 0..8 * kept.bytes as usize {
        let flipped = copy(&disk, "snapshot-9-3", |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        let error = read(&flipped, kept.meta.id).unwrap_err();
        assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Newer { .. }), "bit {bit}: {error}");
        let older = saved(&flipped, 5, 10);
        let (found, passed_over) = newest(&flipped).unwrap();
        assert_eq!((found, passed_over.len()), (Some(older), 1));
        assert_eq!(flipped.list().unwrap().len(), 2, "damage is no reason to delete");
    }
}

#[test]
fn a_chunk_of_another_file_or_from_elsewhere_in_this_one_does_not_pass() {
    let disk = MemDisk::new();
    let kept = saved(&disk, 9, 2 * CHUNK);
    let begin = FIXED + meta(9).membership.1.len();
    let swapped = copy(&disk, "snapshot-9-3", |bytes| {
        let (first, second) = bytes[begin..].split_at_mut(8 + CHUNK);
        first.swap_with_slice(&mut second[..8 + CHUNK]);
    });
    assert!(matches!(read(&swapped, kept.meta.id), Err(StoreError::Damaged { .. })));
}

#[test]
fn a_failed_save_leaves_nothing_that_counts() {
    let disk = MemDisk::new();
    let failed = save(&disk, &meta(9), 1, &PACE, |to| {
        to.write_all(&state(10))?;
        Err(io::ErrorKind::StorageFull.into())
    });
    assert!(matches!(failed, Err(StoreError::Io { .. })));
    assert!(list(&disk).unwrap().is_empty());
    crate::storage::wal::tidy(&disk).unwrap();
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn the_newest_two_are_kept() {
    let disk = MemDisk::new();
    for index in [5, 100, 9] {
        saved(&disk, index, 10);
    }
    tidy(&disk, 2).unwrap();
    assert_eq!(list(&disk).unwrap(), [LogId::new(3, 100), LogId::new(3, 9)]);
}

/// SN-4: pieces that come twice, in another order, or after a restart of the receiver make the same file.
#[test]
fn sn_4_a_snapshot_comes_in_pieces_whatever_happens_to_them() {
    let (from, to) = (MemDisk::new(), MemDisk::new());
    let kept = saved(&from, 9, 1000);
    let (_, file) = open_raw(&from, kept.meta.id).unwrap();
    let mut incoming = Incoming::open(&to, kept.file, &PACE).unwrap();
    let mut turns = 0;
    while incoming.here() < kept.bytes {
        let here = incoming.here();
        for offset in [here + 64, here.saturating_sub(64), here] {
            incoming.take(&to, offset, &read_piece(&*file, offset, 64).unwrap()).unwrap();
        }
        turns += 1;
        if turns % 5 == 0 {
            incoming = Incoming::open(&to, kept.file, &PACE).unwrap();
        }
    }
    assert_eq!(incoming.end(&to, kept.meta.id).unwrap(), kept);
    assert_eq!(to.list().unwrap(), ["snapshot-9-3"]);
    assert_eq!(read(&to, kept.meta.id).unwrap().1, state(1000));
}

/// ST-4: a part that one boot could not sync comes again in the next, and all that came before stays.
#[test]
fn st_4_the_part_that_could_not_be_synced_comes_again() {
    let (from, to) = (MemDisk::new(), MemDisk::new());
    let kept = saved(&from, 9, 1000);
    let whole = read_piece(&*open_raw(&from, kept.meta.id).unwrap().1, 0, 4000).unwrap();
    let mut incoming = Incoming::open(&to, kept.file, &PACE).unwrap();
    incoming.take(&to, 0, &whole[..290]).unwrap();
    to.fail_next(Op::Sync, io::ErrorKind::Other);
    assert!(incoming.take(&to, 290, &whole[290..500]).is_err());
    let mut incoming = Incoming::open(&to, kept.file, &PACE).unwrap();
    assert_eq!(incoming.here(), 150, "one part was synced, and another not");
    incoming.take(&to, 150, &whole[150..]).unwrap();
    assert_eq!(incoming.end(&to, kept.meta.id).unwrap(), kept);
    let cut = to.power_cut(512, || false);
    assert_eq!(read(&cut, kept.meta.id).unwrap().1, state(1000));
}

#[test]
fn what_is_written_is_synced_part_by_part_and_rests_between() {
    let pace = Pace::at_most(4 << 30);
    assert_eq!((pace.part, pace.pause), (4 << 20, Duration::from_nanos(976_562)));
    assert_eq!(Pace::at_most(0).pause, Duration::ZERO);
    let disk = MemDisk::new();
    let length = 9 << 20;
    save(&disk, &meta(9), 1, &pace, |to| to.write_all(&state(length))).unwrap();
    assert_eq!(disk.trace().iter().filter(|op| **op == Op::Sync).count(), 3, "two parts, and the rest");
    saved(&disk, 12, 1000);
}

/// SN-5: what is not what it was said to be is forgotten, and so comes again from its beginning.
#[test]
fn sn_5_an_incoming_file_that_is_damaged_is_forgotten() {
    let (from, to) = (MemDisk::new(), MemDisk::new());
    let kept = saved(&from, 9, 1000);
    let mut bytes = read_piece(&*open_raw(&from, kept.meta.id).unwrap().1, 0, 4000).unwrap().to_vec();
    for (flip, id) in [(true, kept.meta.id), (false, LogId::new(3, 10))] {
        bytes[500] ^= u8::from(flip);
        let mut incoming = Incoming::open(&to, kept.file, &PACE).unwrap();
        incoming.take(&to, 0, &bytes).unwrap();
        assert!(matches!(incoming.end(&to, id), Err(StoreError::Damaged { .. })));
        assert!(to.list().unwrap().is_empty());
        bytes[500] ^= u8::from(flip);
    }
    // Another that was coming goes when a new one begins.
    Incoming::open(&to, 1, &PACE).unwrap();
    Incoming::open(&to, 2, &PACE).unwrap();
    assert_eq!(to.list().unwrap().len(), 1);
}
