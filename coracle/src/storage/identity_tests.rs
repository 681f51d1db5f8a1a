//! What a directory says of itself, and what it refuses.

use super::*;
use crate::storage::mem_disk::MemDisk;

const CLUSTER: ClusterId = ClusterId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);

fn open(disk: &MemDisk, node: u64, log_exists: bool) -> Result<Identity, StoreError> {
    open_or_create(disk, NodeId(node), log_exists, || Incarnation(77))
}

#[test]
fn a_new_directory_gets_an_identity_and_keeps_it() {
    let disk = MemDisk::new();
    let made = open(&disk, 1, false).unwrap();
    assert_eq!(made, Identity { node: NodeId(1), incarnation: Incarnation(77), cluster: None });
    set_cluster(&disk, CLUSTER).unwrap();
    let disk = disk.power_cut(512, || false);
    let read = open_or_create(&disk, NodeId(1), true, || panic!("drawn only once")).unwrap();
    assert_eq!(read, Identity { cluster: Some(CLUSTER), ..made });
    assert_eq!(set_cluster(&disk, CLUSTER).unwrap(), read);
    let error = set_cluster(&disk, ClusterId(5)).unwrap_err().to_string();
    assert!(error.contains(&CLUSTER.to_string()), "{error}");
}

#[test]
fn a_directory_belongs_to_one_engine() {
    let disk = MemDisk::new();
    let open = |engine| open_or_create_with(&disk, NodeId(1), engine, true, || panic!("not new"));
    open_or_create_with(&disk, NodeId(1), "lmdb", false, || Incarnation(77)).unwrap();
    let set = set_cluster(&disk, CLUSTER).unwrap();
    assert_eq!(open("lmdb").unwrap(), set);
    assert_eq!(inspect(&disk).unwrap(), (set, "lmdb".into()));
    for other in ["wal", "lmdb2", "rocksdb"] {
        let error = open(other).unwrap_err().to_string();
        assert!(error.contains("the store lmdb, not by "), "{error}");
    }
}

#[test]
fn another_node_is_refused_by_both_names() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    let error = open(&disk, 2, false).unwrap_err().to_string();
    assert!(error.contains("node 1") && error.contains("node 2"), "{error}");
}

#[test]
fn rs_1_a_wiped_disk_is_refused() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    set_cluster(&disk, CLUSTER).unwrap();
    let error = open(&disk, 1, false).unwrap_err();
    assert!(matches!(error, StoreError::Identity { .. }), "{error}");
    open(&disk, 1, true).unwrap();
    let empty = MemDisk::new();
    assert!(matches!(open(&empty, 1, true), Err(StoreError::Identity { .. })), "a log without a name");
}

fn promised(round: u64) -> Option<Promise> {
    Some(Promise { list: Bytes::from_static(b"1=a:1, 2=b:2"), round })
}

/// D5.3.1: it is kept until the node has a cluster, and whatever else is written meanwhile.
#[test]
fn a_promise_is_kept_until_there_is_a_cluster() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    assert_eq!(promise(&disk).unwrap(), None);
    set_promise(&disk, promised(7)).unwrap();
    begin_run(&disk, || Boot(9)).unwrap();
    raise_segment(&disk, 3).unwrap();
    let disk = disk.power_cut(512, || false);
    assert_eq!(open(&disk, 1, true).unwrap().cluster, None);
    assert_eq!((promise(&disk).unwrap(), boots(&disk).unwrap().count), (promised(7), 1));
    set_promise(&disk, promised(8)).unwrap();
    assert_eq!(promise(&disk.power_cut(512, || false)).unwrap(), promised(8));
    set_promise(&disk, None).unwrap();
    assert_eq!(promise(&disk.power_cut(512, || false)).unwrap(), None);
    set_promise(&disk, promised(9)).unwrap();
    set_cluster(&disk, CLUSTER).unwrap();
    assert_eq!(promise(&disk.power_cut(512, || false)).unwrap(), None);
    let error = set_promise(&disk, promised(10)).unwrap_err().to_string();
    assert!(error.contains(&CLUSTER.to_string()), "{error}");
}

/// D5.3.1, ST-6: after a crash there is the old promise or the new one, and what was confirmed is there.
#[test]
fn st_6_a_crash_at_any_point_of_a_promise_leaves_the_old_or_the_new_one() {
    for (old, new) in [(None, promised(1)), (promised(1), promised(2)), (promised(2), None)] {
        for survives in [false, true] {
            for cut in 0.. {
                let disk = MemDisk::new();
                open(&disk, 1, false).unwrap();
                set_promise(&disk, old.clone()).unwrap();
                disk.fail_from(disk.operations() + cut);
                let set = set_promise(&disk, new.clone());
                let disk = disk.power_cut(512, || survives);
                open(&disk, 1, false).unwrap();
                let kept = promise(&disk).unwrap();
                if set.is_ok() {
                    assert_eq!(kept, new);
                    break;
                }
                assert!(kept == old || kept == new, "cut at {cut}: {kept:?}");
            }
        }
    }
}

#[test]
fn every_flipped_bit_and_every_cut_of_the_file_is_found() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    set_promise(&disk, promised(7)).unwrap();
    let good = disk.contents(IDENTITY).unwrap();
    for bit in 0..good.len() * 8 {
        let mut bytes = good.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        disk.put(IDENTITY, &bytes);
        assert!(matches!(open(&disk, 1, true), Err(StoreError::Damaged { .. })), "bit {bit}");
    }
    for len in 0..good.len() {
        disk.put(IDENTITY, &good[..len]);
        assert!(matches!(open(&disk, 1, true), Err(StoreError::Damaged { .. })), "length {len}");
    }
}

#[test]
fn st_6_a_crash_at_any_point_of_making_it_starts_cleanly() {
    for survives in [false, true] {
        for cut in 0.. {
            let disk = MemDisk::new();
            disk.fail_from(cut);
            let made = open(&disk, 1, false);
            let after = disk.power_cut(512, || survives);
            let identity = open(&after, 1, false).unwrap();
            if let Ok(made) = made {
                assert_eq!(identity, made);
                break;
            }
        }
        for cut in 0.. {
            let disk = MemDisk::new();
            let blank = open(&disk, 1, false).unwrap();
            disk.fail_from(disk.operations() + cut);
            let set = set_cluster(&disk, CLUSTER);
            let identity = open(&disk.power_cut(512, || survives), 1, true).unwrap();
            if let Ok(set) = set {
                assert_eq!(identity, set);
                break;
            }
            assert!(identity == blank || identity == Identity { cluster: Some(CLUSTER), ..blank });
        }
    }
}

#[test]
fn boots_are_numbered_and_the_newest_are_kept() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    let total = MAX_BOOTS as u64 + 5;
    for number in 1..=total {
        // Drawn once more if it was there before.
        let mut draws = [Boot(0), Boot(1000 + number.max(2) - 1), Boot(1000 + number)].into_iter();
        let boots = begin_run(&disk, || draws.next().unwrap()).unwrap();
        assert_eq!((boots.count, boots.get(number)), (number, Some(Boot(1000 + number))));
    }
    set_cluster(&disk, CLUSTER).unwrap();
    raise_segment(&disk, 7).unwrap();
    raise_segment(&disk, 6).unwrap();
    let disk = disk.power_cut(512, || false);
    let boots = boots(&disk).unwrap();
    assert_eq!((boots.count, boots.newest.len()), (total, MAX_BOOTS));
    assert_eq!((boots.get(5), boots.get(6), boots.get(total + 1)), (None, Some(Boot(1006)), None));
    assert_eq!((boots.number(Boot(1006)), boots.number(Boot(1005))), (Some(6), None));
    assert_eq!(least_segment(&disk).unwrap(), 7);
    assert_eq!(inspect(&disk).unwrap().0.cluster, Some(CLUSTER));
}

#[test]
fn a_fence_is_kept_through_everything_and_the_first_counts() {
    for cut in 0.. {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        assert_eq!(fenced(&disk).unwrap(), None);
        disk.fail_from(disk.operations() + cut);
        let set = set_fence(&disk, Index(1024));
        let disk = disk.power_cut(512, || false);
        if set.is_err() {
            open(&disk, 1, true).unwrap();
            continue;
        }
        set_fence(&disk, Index(2048)).unwrap();
        set_cluster(&disk, CLUSTER).unwrap();
        begin_run(&disk, || Boot(9)).unwrap();
        raise_segment(&disk, 7).unwrap();
        open(&disk, 1, true).unwrap();
        assert_eq!(fenced(&disk).unwrap(), Some(Index(1024)));
        break;
    }
}

/// D5.1.14: the word that a machine is wrong stays until it was rebuilt, whatever is cut, and then it is gone.
#[test]
fn a_fence_is_lifted_wholly_or_not_at_all() {
    for cut in 0.. {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        set_cluster(&disk, CLUSTER).unwrap();
        set_fence(&disk, Index(1024)).unwrap();
        disk.fail_from(disk.operations() + cut);
        let lifted = lift_fence(&disk);
        let disk = disk.power_cut(512, || false);
        open(&disk, 1, true).unwrap();
        if lifted.is_err() {
            assert_eq!(fenced(&disk).unwrap(), Some(Index(1024)));
            continue;
        }
        assert_eq!(fenced(&disk).unwrap(), None);
        set_fence(&disk, Index(2048)).unwrap();
        assert_eq!(fenced(&disk).unwrap(), Some(Index(2048)), "it may turn out to be wrong again");
        break;
    }
}

/// D5.5.5: the word that a machine has stopped is kept through everything until it is taken back.
#[test]
fn a_stop_is_kept_through_everything_until_the_machine_goes_on() {
    let kept = KeptStop {
        stop: MachineStop { at: LogId::new(3, 17), after: Index(20) },
        why: "ü".repeat(MAX_REASON),
    };
    for cut in 0.. {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        set_cluster(&disk, CLUSTER).unwrap();
        disk.fail_from(disk.operations() + cut);
        let set = set_stop(&disk, Some(kept.clone()));
        let disk = disk.power_cut(512, || false);
        if set.is_err() {
            open(&disk, 1, true).unwrap();
            continue;
        }
        set_rules(&disk).unwrap();
        set_fence(&disk, Index(2048)).unwrap();
        begin_run(&disk, || Boot(9)).unwrap();
        raise_segment(&disk, 7).unwrap();
        open(&disk, 1, true).unwrap();
        let found = stop(&disk).unwrap().unwrap();
        assert_eq!(found.stop, kept.stop);
        assert!(found.why.len() <= MAX_REASON && kept.why.starts_with(&found.why) && !found.why.is_empty());
        set_stop(&disk, None).unwrap();
        assert_eq!((stop(&disk).unwrap(), rules(&disk).unwrap()), (None, true));
        assert_eq!(fenced(&disk).unwrap(), Some(Index(2048)));
        break;
    }
}

#[test]
fn a_boot_is_durable_before_it_is_told() {
    for cut in 0.. {
        let disk = MemDisk::new();
        open(&disk, 1, false).unwrap();
        disk.fail_from(disk.operations() + cut);
        let begun = begin_run(&disk, || Boot(9));
        let kept = boots(&disk.power_cut(512, || false)).unwrap();
        if let Ok(told) = begun {
            assert_eq!(kept, told);
            break;
        }
        assert!(kept.count <= 1);
    }
}

/// D5.2.11: it says what to do.
#[test]
fn other_versions_and_what_they_may_add_are_refused_by_name() {
    let disk = MemDisk::new();
    open(&disk, 1, false).unwrap();
    let good = disk.contents(IDENTITY).unwrap();
    let refusal = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        let sum = crc32c::crc32c(&bytes[4..]);
        bytes[..4].copy_from_slice(&sum.to_le_bytes());
        disk.put(IDENTITY, &bytes);
        open(&disk, 1, true).unwrap_err().to_string()
    };
    assert!(refusal(8, 1).contains("start with an empty directory"), "{}", refusal(8, 1));
    for (at, byte) in [(8, 3), (12, 64), (50, 1), (84, 1), (91, 1), (92, 1), (95, 1)] {
        assert!(refusal(at, byte).contains("upgrade"), "{}", refusal(at, byte));
    }
}
