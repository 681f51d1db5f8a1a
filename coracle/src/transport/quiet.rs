//! Says a thing once.
//!
//! A misconfigured peer dials again and again, and a port scanner never tires; the operator should hear of
//! each once. What was said is forgotten when the remote turns out well, so that its next trouble is heard.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// How many remotes and reasons are remembered. 256: far more than a cluster has; a stranger that comes from
/// ever new addresses fills it, and from then on new ones are not heard.
const REMEMBERED: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Quiet {
    said: Mutex<BTreeSet<(String, String)>>,
}

impl Quiet {
    /// Warns, unless the same was said of this remote. `reason` tells kinds of trouble apart.
    pub(super) fn warn(&self, remote: &str, reason: &str, text: &dyn std::fmt::Display) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (remote.to_owned(), reason.to_owned());
        if said.len() < REMEMBERED && said.insert(key) {
            drop(said);
            tracing::warn!(remote, reason, "{text}");
        }
    }

    /// Forgets what was said of a remote.
    pub(super) fn forget(&self, remote: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        said.retain(|(known, _)| known != remote);
    }
}
