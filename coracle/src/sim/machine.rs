//! The machine that simulated clusters replicate: a small key-value store whose replies tell all.

use crate::snapshot::{self, Save};
use crate::state_machine::{Context, QueryContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// What a client asks for. Every written text is unique in its run, so a history tells who wrote what.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Ask {
    /// Set the value.
    Put(u8, String),
    /// Add to the end of the value.
    Append(u8, String),
    /// Set the value if it is the first text; both sides may be nothing.
    Cas(u8, Option<String>, String),
}

/// What a command returned.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// Done.
    Done,
    /// The value was not the expected one.
    Differs,
}

/// The store.
#[derive(Clone, Debug, Default)]
pub(super) struct Kv {
    values: BTreeMap<u8, String>,
}

impl StateMachine for Kv {
    type Command = Ask;
    type Reply = Told;
    type Query = u8;
    type Answer = Option<String>;

    fn apply(&mut self, _: &mut Context, ask: Ask) -> Told {
        match ask {
            Ask::Put(key, text) => {
                self.values.insert(key, text);
            }
            Ask::Append(key, text) => self.values.entry(key).or_default().push_str(&text),
            Ask::Cas(key, expected, text) => {
                if self.values.get(&key) != expected.as_ref() {
                    return Told::Differs;
                }
                self.values.insert(key, text);
            }
        }
        Told::Done
    }

    fn query(&self, _: &QueryContext, key: u8) -> Option<String> {
        self.values.get(&key).cloned()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.values.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|values| self.values = values)
    }
}
