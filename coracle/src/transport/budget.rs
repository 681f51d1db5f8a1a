//! What a node's clients may take, which is nothing that peers need.

use super::config::TcpConfig;
use std::sync::Arc;
use tokio::sync::Semaphore;

/// What a node has for its clients, all of them together.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    /// Places for connections.
    pub(super) places: Arc<Semaphore>,
    /// Bytes of requests that are under way.
    pub(super) requests: Arc<Semaphore>,
    /// Bytes of unfinished frames, beyond 64 KiB each.
    pub(super) unfinished: Arc<Semaphore>,
    /// Bytes of answers that wait to be read, beyond 64 KiB each.
    pub(super) answers: Arc<Semaphore>,
}

impl Budget {
    pub(super) fn new(config: &TcpConfig) -> Budget {
        let semaphore = |permits: usize| Arc::new(Semaphore::new(permits.min(Semaphore::MAX_PERMITS)));
        let bytes = || semaphore(config.client_bytes.min(u32::MAX as usize));
        Budget {
            places: semaphore(config.max_clients),
            requests: bytes(),
            unfinished: bytes(),
            answers: bytes(),
        }
    }
}
