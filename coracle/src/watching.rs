//! The handle of those who watch a machine.

use crate::codec::CodecError;
use crate::error::{StopReason, WatchError};
use crate::events::{Event, Position};
use crate::inner::Inner;
use crate::state_machine::StateMachine;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use tokio::sync::watch;

/// What a machine publishes, from a place on: see [`Node::events`](crate::Node::events).
///
/// It holds a place and at most 64 events that were not asked for yet, so it may be as slow as it likes; one that falls behind
/// what the node remembers is told so. It is no handle to the node.
pub struct Events {
    inner: Arc<Inner>,
    news: watch::Receiver<bool>,
    ending: watch::Receiver<Option<StopReason>>,
    at: Position,
    taken: VecDeque<Event>,
}

impl Events {
    pub(crate) fn new(inner: Arc<Inner>, from: Position) -> Events {
        let (news, ending) = (inner.published.news.subscribe(), inner.ending.clone());
        Events { inner, news, ending, at: from, taken: VecDeque::new() }
    }

    /// The next event, as soon as there is one. No event comes twice, and none is left out: where that is not possible, this
    /// ends with [`Compacted`](WatchError::Compacted). Cancel safe.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        if !self.inner.published.keeps {
            return Err(WatchError::Off);
        }
        loop {
            if let Some(event) = self.taken.pop_front() {
                self.at = event.next();
                return Ok(event);
            }
            // Before the look, so that nothing that comes after it goes unheard.
            let fenced = *self.news.borrow_and_update();
            self.taken = self.inner.published.from(self.at).map_err(WatchError::Compacted)?.into();
            if self.taken.is_empty() {
                if fenced {
                    return Err(WatchError::Diverged);
                }
                tokio::select! {
                    biased;
                    reason = self.ending.wait_for(Option::is_some) => drop(reason),
                    changed = self.news.changed() => if changed.is_ok() { continue },
                }
                return Err(WatchError::Stopped(self.inner.stop_reason()));
            }
        }
    }

    /// The place of what comes next: where to [watch](crate::Node::events) from to go on, at this node or any other.
    pub fn position(&self) -> Position {
        self.at
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("node", &self.inner.me.id).field("position", &self.at).finish()
    }
}

impl Event {
    /// The command, of a machine that publishes [commands](crate::Publishes::Commands).
    pub fn command<S: StateMachine>(&self) -> Result<S::Command, CodecError> {
        S::decode_command(&self.payload)
    }
}
