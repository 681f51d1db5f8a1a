//! A machine that gives effects, and what becomes of them.

use super::*;
use crate::entry::Stamp;
use crate::pending::Token;
use crate::snapshot::{self, Save};

/// Gives two effects for each command and sets a timer, or settles one; of 13 it does one half and gives up, of 14 it panics.
#[derive(Default)]
struct Mailer;

impl StateMachine for Mailer {
    type Command = Result<u64, Token>;
    type Reply = bool;
    type Query = ();
    type Answer = ();

    fn apply(&mut self, context: &mut Context, command: Result<u64, Token>) -> bool {
        match command {
            Err(token) => context.settle(token),
            Ok(number) => {
                context.effect(&number).unwrap();
                if number == 13 {
                    context.fatal("unlucky");
                }
                assert_ne!(number, 14, "worse");
                context.effect_bytes(b"more").unwrap();
                context.set_timer(number, number).is_ok()
            }
        }
    }

    fn on_timer(&mut self, context: &mut Context, name: u64) {
        context.effect(&(name * 100)).unwrap();
    }

    fn query(&self, _: &QueryContext, (): ()) {}

    fn snapshot(&self) -> impl Save {
        snapshot::save(())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from)
    }
}

fn command(index: u64, command: Result<u64, Token>) -> Entry {
    let payload = Mailer::encode_command(&command).unwrap();
    Entry::new(LogId::new(2, index), Kind::Command, Stamp::default(), &payload)
}

fn firing(index: u64, cluster_time: u64) -> Entry {
    let stamp = Stamp { cluster_time, version: 1, ..Stamp::default() };
    Entry::new(LogId::new(2, index), Kind::Timer, stamp, &[])
}

fn token(index: u64, ordinal: u32) -> Token {
    Token { term: 2, index, ordinal }
}

fn given(changes: Vec<Change>) -> Vec<Token> {
    let token = |change| match change {
        Change::Given(token, _) => Some(token),
        _ => None,
    };
    changes.into_iter().filter_map(token).collect()
}

#[test]
fn effects_are_told_once_by_their_places_and_come_back_with_the_blob() {
    let mut one = Replicated::new(Mailer);
    one.compared_every = 1;
    assert!(one.apply(&command(1, Ok(5))).is_ok() && one.apply(&command(2, Ok(6))).is_ok());
    // Those of one entry are numbered on, whichever timer gives them.
    one.apply(&firing(3, 6)).unwrap();
    let tokens = [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)].map(|(index, at)| token(index, at));
    assert_eq!(given(one.changed_effects()), tokens);
    let Ok(Applied::Replied(true, _)) = one.apply(&command(4, Err(token(2, 0)))) else {
        panic!("it was pending")
    };
    assert_eq!(one.changed_effects(), [Change::Settled(token(2, 0))]);
    let Ok(Applied::Replied(false, _)) = one.apply(&command(5, Err(token(2, 0)))) else {
        panic!("it was settled")
    };
    assert_eq!(one.changed_effects(), []);
    // What is in the snapshot's header is what was pending, and the digests see it.
    let mut other = Replicated::new(Mailer);
    other.compared_every = 1;
    let blob = blob::encode(&one.meta());
    other.stand_at(blob::decode(&blob).unwrap()).unwrap();
    let [Change::All(all)] = &other.changed_effects()[..] else { panic!("the state jumped") };
    let left = [tokens[0], tokens[1], tokens[3], tokens[4], tokens[5]];
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), left);
    other.context.pending.settle(token(1, 0));
    for replicated in [&mut one, &mut other] {
        replicated.apply(&command(6, Ok(9))).unwrap();
    }
    assert_ne!(one.applied(), other.applied());
    assert_ne!(one.compared(), other.compared());
}

/// Nobody is told of an effect of an entry that cannot be applied, and what the state is set to has none of it.
#[test]
fn an_entry_that_fails_leaves_no_effect() {
    for number in [13, 14] {
        let mut one = Replicated::new(Mailer);
        one.apply(&command(1, Ok(5))).unwrap();
        let (state, _) = (one.meta(), one.changed_effects());
        assert!(one.apply(&command(2, Ok(number))).is_err());
        assert_eq!(one.changed_effects(), []);
        one.stand_at(state.clone()).unwrap();
        assert_eq!(one.meta(), state);
        one.skip(&command(2, Ok(number)), Index(9)).unwrap();
        assert_eq!(one.context.pending.all().count(), 2);
    }
}
