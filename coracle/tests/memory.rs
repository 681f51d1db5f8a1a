//! What things take of memory, as docs/performance.md states it: counted by an allocator, and not guessed from a process.

use coracle::sim::counting::Row;
use coracle::snapshot::{self, Save};
use coracle::{Context, QueryContext, StateMachine};
use dhat::HeapStats;
use std::io;

#[global_allocator]
static ALLOCATOR: dhat::Alloc = dhat::Alloc;

#[derive(Default)]
struct Sum(u64);

impl StateMachine for Sum {
    type Command = u64;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn apply(&mut self, _: &mut Context, command: u64) -> u64 {
        self.0 += command;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

/// The bytes that are there after this and were not before, for each of so many.
fn each(count: u64, of: impl FnOnce()) -> u64 {
    let before = HeapStats::get().curr_bytes;
    of();
    (HeapStats::get().curr_bytes.saturating_sub(before)) as u64 / count
}

/// One test, since there is one allocator. The nodes share an entry's bytes, and each has places for it: in the tail, and in its
/// log, which is in memory here. What a session takes comes on top of its own entry.
#[test]
fn entries_in_memory_and_sessions_take_no_more_than_is_stated() {
    // Lists double their room: from one power of two to the next they do so once, wherever they began.
    const COUNT: u64 = 4_096;
    let _counting = dhat::Profiler::builder().testing().build();
    let write = |row: &mut Row<Sum>| (0..COUNT).for_each(|_| drop(row.write(vec![1])));
    let half_full = || {
        let mut row = Row::elected(Sum::default);
        write(&mut row);
        row
    };
    let mut row = half_full();
    let entry = each(COUNT, || write(&mut row));
    println!("an entry of a small command takes {entry} bytes in three nodes");
    assert!((3 * 60..=3 * 190).contains(&entry), "an entry takes {entry} bytes in three nodes");
    let mut row = half_full();
    let session = each(COUNT, || row.open_sessions(COUNT)).saturating_sub(entry) / 3;
    println!("a session takes {session} bytes at each node");
    assert!((60..=150).contains(&session), "a session takes {session} bytes at each node");
}
