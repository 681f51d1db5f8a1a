use super::*;
use crate::replicated::Replicated;
use crate::snapshot::{self, Save};
use crate::state_machine::{Context, QueryContext};
use crate::storage::mem_disk::MemDisk;
use crate::storage::wal::MIN_SEGMENT_BYTES;
use crate::timers::Timers;
use bytes::Bytes;
use coracle_core::{Broken, ClusterId, Incarnation, Index, LogId, Member, Membership, NodeId, Peer, Term};
use std::collections::BTreeSet;

const ME: NodeId = NodeId(7);
const FRESH: Incarnation = Incarnation(99);

/// A state that is as large as it says.
struct Large(Vec<u8>);

impl StateMachine for Large {
    type Command = ();
    type Reply = ();
    type Query = ();
    type Answer = ();
    fn apply(&mut self, _: &mut Context, (): ()) {}
    fn query(&self, _: &QueryContext, (): ()) {}
    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }
    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|state| self.0 = state)
    }
}

fn meta() -> Meta {
    Meta {
        id: LogId::new(5, 900),
        digest: [3; 16],
        cluster_time: 44,
        machine_version: 1,
        compared: None,
        membership: (LogId::new(1, 1), encode_membership(&old())),
        level: 2,
        sessions: Bytes::from_static(&[0; 4]),
        timers: timers(),
        entries_version: 0,
        rulings: Bytes::new(),
        effects: Bytes::new(),
    }
}

/// The cluster before: node 3 was removed from it.
fn old() -> Membership {
    let member = |id| Member { id: NodeId(id), incarnation: Incarnation(id), address: "old:1".to_owned() };
    let mark = |id| (NodeId(id), Mark { issued: 100, key: [id as u8; 32] });
    Membership { marks: [mark(1), mark(3)].into(), ..Membership::of_voters(ClusterId(1), [1, 2].map(member)) }
}

/// One, due at 50.
fn timers() -> Bytes {
    let mut timers = Timers::new(Broken::default());
    timers.set(7, 1, 50).unwrap();
    timers.encode()
}

fn keeper() -> Keeper {
    Keeper::Wal { segment_bytes: MIN_SEGMENT_BYTES, broken: Broken::default() }
}

fn build(disk: &MemDisk) -> Result<Membership, RebuildError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let me = Member { id: ME, incarnation: FRESH, address: "a:1".to_owned() };
    found(&shared, &keeper(), me, meta(), Term(6), snapshot::save(vec![9u8; 3000]))
}

/// What a start makes of a disk: the cluster if it has one, and then all of it; or nothing at all.
fn start(disk: &MemDisk) -> Option<ClusterId> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let opened = open::open_disk(ME, Incarnation(1), shared, &keeper(), Broken::default()).unwrap();
    let Some(cluster) = opened.cluster else {
        assert!(opened.snapshot.is_none() && opened.recovered.last == LogId::ZERO);
        return None;
    };
    let kept = opened.snapshot.expect("a cluster comes with its state");
    let id = kept.meta.id;
    // The machine's timers are a part of its state; sessions are with the old cluster.
    assert_eq!((kept.meta.level, &kept.meta.sessions, &kept.meta.timers), (0, &Bytes::new(), &timers()));
    assert_eq!((id, opened.recovered.last, opened.recovered.purged), (meta().id, meta().id, meta().id));
    assert_eq!(opened.incarnation, FRESH, "another disk would not be the member");
    let membership = decode_membership(&kept.meta.membership.1).unwrap();
    assert_eq!(opened.recovered.memberships, [kept.meta.membership]);
    assert_eq!((membership.cluster, membership.members.len()), (cluster, 1));
    assert!(membership.is_voter(Peer { id: ME, incarnation: FRESH }));
    // What the removed node had is nobody's here either, and what node 1 had before that.
    let marks: Vec<_> = membership.marks.iter().map(|(id, mark)| (id.0, mark.issued)).collect();
    assert_eq!(marks, [(1, 99), (3, 100)]);
    assert!(opened.recovered.hard_state.term >= id.term);
    let mut replicated = Replicated::new(Large(Vec::new()));
    replicated.restore(snapshots::open(&*opened.files, id).unwrap()).unwrap();
    assert_eq!((replicated.applied().0, replicated.due()), (id, Some((50, Index(7)))));
    Some(cluster)
}

/// RS: wherever the power goes while the node is built, and whatever of what was not synced survives, a start finds a
/// blank node or the whole.
#[test]
fn a_cut_anywhere_leaves_a_blank_node_or_the_whole() {
    let whole = MemDisk::new();
    let built = build(&whole).unwrap();
    assert_eq!(start(&whole.copy()), Some(built.cluster));
    let mut found = BTreeSet::new();
    for cut in 0..whole.operations() {
        for choice in 0..40u64 {
            let disk = MemDisk::new();
            disk.fail_from(cut);
            assert!(build(&disk).is_err(), "the power is off");
            let mut bits = choice.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let left = disk.power_cut(512, || {
                bits = bits.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                match choice {
                    0 => false,
                    1 => true,
                    _ => bits >> 63 == 1,
                }
            });
            let cluster = start(&left);
            assert_eq!(start(&left), cluster, "a second start finds the same");
            found.insert((cut, cluster.is_some()));
        }
    }
    let of = |whole: bool| found.iter().filter(|(_, is)| *is == whole).count();
    assert!(of(false) > 3 && of(true) > 3, "{found:?}");
}

#[test]
fn a_failed_operation_is_told_and_nothing_is_claimed() {
    let whole = MemDisk::new();
    build(&whole).unwrap();
    for at in 0..whole.operations() {
        let disk = MemDisk::new();
        disk.fail_at(at, io::ErrorKind::StorageFull);
        // Some are only of help, such as a file that is made ahead.
        if build(&disk).is_ok() {
            disk.clear_faults();
            assert!(start(&disk.power_cut(512, || false)).is_some(), "operation {at}");
        }
    }
}

#[test]
fn an_address_that_nobody_can_dial_is_refused() {
    for wrong in ["", "host", "host:", "host:0", "host:x", "host:70000"] {
        assert!(check_address(wrong).is_err(), "{wrong}");
    }
    assert!(check_address("[::1]:7").is_ok() && check_address("host:7").is_ok());
}

/// An attempt that is killed while it removes what an earlier one left must not look like somebody else's directory.
#[test]
fn what_an_attempt_left_goes_and_its_lock_stays() {
    use std::os::unix::fs::MetadataExt;
    let home = tempfile::tempdir().unwrap();
    let new = home.path().join("node.restoring");
    drop(build_in(&new).unwrap());
    fs::create_dir(new.join("deep")).unwrap();
    for name in ["deep/file", "log-1", "snapshot-1.tmp"] {
        fs::write(new.join(name), "left over").unwrap();
    }
    let lock = || fs::metadata(new.join(LOCK)).unwrap().ino();
    let before = lock();
    drop(build_in(&new).unwrap());
    let names: Vec<_> = fs::read_dir(&new).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!((names, lock()), (vec![OsString::from(LOCK)], before));
    fs::remove_file(new.join(LOCK)).unwrap();
    fs::write(new.join("precious"), "somebody's").unwrap();
    let refused = build_in(&new).err().unwrap().to_string();
    assert!(refused.contains("in the way"), "{refused}");
}
