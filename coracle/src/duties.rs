//! The handle of those who carry out a leader's effects.

use crate::error::StopReason;
use crate::inner::Inner;
use crate::outstanding::{Effect, Place};
use std::fmt;
use std::sync::Arc;

/// The effects that this node is to carry out: see [`Node::effects`](crate::Node::effects).
///
/// It holds a place, and no effects. It is no handle to the node, and keeps nothing running.
pub struct Effects {
    inner: Arc<Inner>,
    place: Place,
}

impl Effects {
    pub(crate) fn of(inner: Arc<Inner>) -> Effects {
        Effects { inner, place: Place::default() }
    }

    /// The next effect, in the order in which they were given, as soon as there is one and this node is in
    /// [office](crate::Node::office). The node stops: an error says why.
    ///
    /// Each comes once for each of the node's offices: whoever could not carry one out tries again by itself, or settles it by
    /// a command that says so. What is still pending when the node is in a later office comes again. Cancel safe: an effect
    /// that was not returned comes at the next call.
    pub async fn next(&mut self) -> Result<Effect, StopReason> {
        let Effects { inner, place } = self;
        let (mut office, mut news) = (inner.office.clone(), inner.outstanding.news.subscribe());
        let mut ending = inner.ending.clone();
        loop {
            if ending.borrow_and_update().is_some() {
                return Err(inner.stop_reason());
            }
            // Before the look, so that nothing that comes after it goes unheard.
            news.mark_unchanged();
            let term = *office.borrow_and_update();
            if let Some(effect) = inner.outstanding.next(term, place) {
                return Ok(effect);
            }
            let alive = tokio::select! {
                changed = ending.changed() => changed.is_ok(),
                changed = office.changed() => changed.is_ok(),
                changed = news.changed() => changed.is_ok(),
            };
            if !alive {
                return Err(inner.stop_reason());
            }
        }
    }
}

impl fmt::Debug for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Effects").field("place", &self.place).finish_non_exhaustive()
    }
}
