//! The handle of those who watch a machine, in this process or from outside.

use crate::codec::CodecError;
use crate::error::WatchError;
use crate::events::{Event, Position};
use crate::inner::{Boxed, Inner};
use crate::state_machine::StateMachine;
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// How many bytes of events are sent at a time, but for a single one that is larger.
const TOGETHER: usize = 256 << 10;

/// Where events come from.
pub(crate) trait Source: Send {
    /// The next ones from this place on, one at least, as soon as there is one. Cancel safe.
    fn some(&mut self, from: Position) -> Boxed<'_, Result<Vec<Event>, WatchError>>;
}

/// What a machine publishes, from a place on: see [`Node::events`](crate::Node::events) and
/// [`Client::events`](crate::client::Client::events).
///
/// It holds a place and at most 64 events that were not asked for yet, so it may be as slow as it likes; one that falls behind
/// what the nodes remember is told so. That of a node is no handle to it; that of a client keeps it running.
pub struct Events {
    source: Box<dyn Source>,
    at: Position,
    taken: VecDeque<Event>,
}

impl Events {
    /// Those of this node.
    pub(crate) fn here(inner: Arc<Inner>, from: Position) -> Events {
        Events::of(inner, from)
    }

    pub(crate) fn of(source: impl Source + 'static, from: Position) -> Events {
        Events { source: Box::new(source), at: from, taken: VecDeque::new() }
    }

    /// The next event, as soon as there is one. No event comes twice, and none is left out: where that is not possible, this
    /// ends with [`Compacted`](WatchError::Compacted). Cancel safe; after an error it may be called again.
    pub async fn next(&mut self) -> Result<Event, WatchError> {
        loop {
            if let Some(event) = self.taken.pop_front() {
                self.at = event.next();
                return Ok(event);
            }
            self.taken = self.source.some(self.at).await?.into();
        }
    }

    /// The place of what comes next: where to watch from to go on, at this node or any other.
    pub fn position(&self) -> Position {
        self.at
    }
}

impl Source for Arc<Inner> {
    fn some(&mut self, from: Position) -> Boxed<'_, Result<Vec<Event>, WatchError>> {
        Box::pin(next_of(self.clone(), from))
    }
}

/// The next events of this node, as soon as there are some.
async fn next_of(inner: Arc<Inner>, from: Position) -> Result<Vec<Event>, WatchError> {
    if !inner.published.keeps {
        return Err(WatchError::Off);
    }
    let (mut news, mut ending) = (inner.published.news.subscribe(), inner.ending.clone());
    loop {
        // Before the look, so that nothing that comes after it goes unheard.
        let fenced = *news.borrow_and_update();
        let events = inner.published.from(from).map_err(WatchError::Compacted)?;
        if !events.is_empty() {
            return Ok(events);
        }
        if fenced {
            return Err(WatchError::Diverged);
        }
        tokio::select! {
            biased;
            reason = ending.wait_for(Option::is_some) => drop(reason),
            changed = news.changed() => if changed.is_ok() { continue },
        }
        return Err(WatchError::Stopped(inner.stop_reason()));
    }
}

/// The next events of this node, for somebody who is elsewhere: none, if there are none within this time.
pub(crate) async fn some(
    inner: Arc<Inner>,
    from: Position,
    limit: Duration,
) -> Result<Vec<Event>, WatchError> {
    let Ok(events) = timeout(limit, next_of(inner, from)).await else { return Ok(Vec::new()) };
    let (mut events, mut bytes) = (events?, 0);
    let fits = events.iter().skip(1).take_while(|event| {
        bytes += event.payload.len();
        bytes <= TOGETHER
    });
    events.truncate(1 + fits.count());
    Ok(events)
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("position", &self.at).finish_non_exhaustive()
    }
}

impl Event {
    /// The command, of a machine that publishes [commands](crate::Publishes::Commands).
    pub fn command<S: StateMachine>(&self) -> Result<S::Command, CodecError> {
        S::decode_command(&self.payload)
    }
}
