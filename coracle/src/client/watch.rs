//! A watch from outside: what is published is asked for piece by piece, of whichever node has it.

use super::Shared;
use super::agent::NODES;
use crate::error::{ReadError, WatchError, in_full};
use crate::events::{Event, Position};
use crate::inner::Boxed;
use crate::watching::Source;
use crate::wire::{Mode, Watched};
use bytes::Bytes;
use coracle_core::Index;
use std::sync::Arc;

/// The source of a client's events.
pub(super) struct Watch {
    pub(super) shared: Arc<Shared>,
    /// Which node is asked first. The next one, if that has nothing: what it does not hear of is published elsewhere.
    pub(super) first: u32,
}

impl Source for Watch {
    fn some(&mut self, from: Position) -> Boxed<'_, Result<Vec<Event>, WatchError>> {
        Box::pin(self.ask(from))
    }
}

impl Watch {
    async fn ask(&mut self, from: Position) -> Result<Vec<Event>, WatchError> {
        // How many nodes said that they do not have it, and the most that one of them has.
        let (mut without, mut compacted) = (0, None::<Index>);
        loop {
            let limit = self.shared.config.request_timeout;
            let asked = self.shared.clone().read(Mode::Watch(from), Bytes::new(), self.first, limit);
            match asked.await.map(|seen| Watched::decode(seen.answer)) {
                Ok(Ok(Watched::Events(events))) if !events.is_empty() => return Ok(events),
                Ok(Ok(Watched::Events(_))) => {}
                Ok(Ok(Watched::Compacted(upto))) => {
                    (without, compacted) = (without + 1, Some(compacted.unwrap_or(upto).min(upto)));
                }
                Ok(Ok(Watched::Off)) => without += 1,
                Ok(Err(error)) => return Err(WatchError::Unreachable(in_full(&error))),
                // Nobody leads, or is far enough: events come again once somebody is.
                Err(ReadError::Timeout | ReadError::NoLeader | ReadError::Lagging) => {}
                Err(ReadError::Diverged) => return Err(WatchError::Diverged),
                Err(ReadError::Stopped(reason)) => return Err(WatchError::Stopped(reason)),
                Err(ReadError::Unreachable(why)) => return Err(WatchError::Unreachable(why)),
                Err(error) => return Err(WatchError::Unreachable(in_full(&error))),
            }
            if without == NODES {
                return Err(compacted.map_or(WatchError::Off, WatchError::Compacted));
            }
            self.first = self.first.wrapping_add(1);
        }
    }
}
