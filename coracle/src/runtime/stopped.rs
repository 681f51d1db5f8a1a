//! The last word of a node.

use crate::error::StopReason;
use tokio::sync::watch;

/// Tells the handles that the node has stopped, however that came about.
pub(crate) struct Stopped(pub(crate) watch::Sender<Option<StopReason>>);

impl Drop for Stopped {
    fn drop(&mut self) {
        let reason = if std::thread::panicking() {
            StopReason::Invariant("the node's loop panicked".to_owned())
        } else {
            StopReason::Requested
        };
        self.0.send_if_modified(|told| {
            let untold = told.is_none();
            told.get_or_insert(reason);
            untold
        });
    }
}
