//! A machine that sets timers, and what becomes of them.

use super::*;
use crate::entry::Stamp;
use crate::snapshot::{self, Save};

/// Sets a timer for each command, which is its name and its time; panics when 13 fires.
#[derive(Default)]
struct Clock(Vec<u64>);

impl StateMachine for Clock {
    type Command = u64;
    type Reply = ();
    type Query = ();
    type Answer = ();

    fn apply(&mut self, context: &mut Context, command: u64) {
        context.set_timer(command, command).unwrap();
        assert_eq!(context.timer(command), Some(command));
    }

    fn on_timer(&mut self, context: &mut Context, name: u64) {
        assert_ne!(name, 13, "unlucky");
        assert_eq!(context.timer(name), None);
        self.0.push(name);
        if name == 5 {
            // Due at once, and of the same entry as what fires: for the next one.
            context.set_timer(4, 0).unwrap();
        }
    }

    fn query(&self, _: &QueryContext, (): ()) {}

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|fired| self.0 = fired)
    }
}

fn sets(index: u64, command: u64) -> Entry {
    let payload = Clock::encode_command(&command).unwrap();
    Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), &payload)
}

fn firing(index: u64, cluster_time: u64) -> Entry {
    let stamp = Stamp { cluster_time, version: 1, ..Stamp::default() };
    Entry::new(LogId::new(1, index), Kind::Timer, stamp, &[])
}

#[test]
fn timers_fire_by_entries_of_their_own_and_come_back_with_the_blob() {
    let mut one = Replicated::new(Clock::default());
    one.compared_every = 1;
    let entries = [sets(1, 8), sets(2, 5), firing(3, 4), sets(4, 20), firing(5, 5), firing(6, 5)];
    let fired: [&[u64]; 6] = [&[], &[], &[], &[], &[5], &[5, 4]];
    for (entry, fired) in entries.iter().zip(fired) {
        one.apply(entry).unwrap();
        assert_eq!(one.machine.0, fired, "{entry:?}");
    }
    assert_eq!(one.due(), Some((8, Index(1))));
    let meta = blob::decode(&blob::encode(&one.meta())).unwrap();
    assert_eq!((&meta, meta.level), (&one.meta(), 2));
    let mut other = Replicated::new(Clock(one.machine.0.clone()));
    other.compared_every = 1;
    other.go_on_from(meta).unwrap();
    for machine in [&mut one, &mut other] {
        machine.apply(&firing(7, 30)).unwrap();
        assert_eq!((&machine.machine.0[..], machine.due()), (&[5, 4, 8, 20][..], None));
    }
    assert_eq!(one.meta(), other.meta());
}

/// A table that differs is seen by all digests, though entries and replies are alike.
#[test]
fn the_digests_see_timers() {
    let (mut one, mut other) = (Replicated::new(Clock::default()), Replicated::new(Clock::default()));
    for machine in [&mut one, &mut other] {
        machine.compared_every = 1;
        machine.apply(&sets(1, 8)).unwrap();
    }
    assert_eq!((one.applied(), one.compared()), (other.applied(), other.compared()));
    other.context.timers.cancel(8);
    for machine in [&mut one, &mut other] {
        machine.apply(&sets(2, 9)).unwrap();
    }
    assert!(one.applied() != other.applied() && one.compared() != other.compared());
}

#[test]
fn a_panic_in_on_timer_says_which() {
    let mut machine = Replicated::new(Clock::default());
    machine.apply(&sets(1, 13)).unwrap();
    let Err(StopReason::Panicked { at, message }) = machine.apply(&firing(2, 13)) else { panic!() };
    assert_eq!(at, "entry 2.1, timer 13");
    assert!(message.contains("unlucky"), "{message}");
}
