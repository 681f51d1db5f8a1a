//! How a handle has the machine of its node rebuilt, and waits for that.

use crate::given_up::RebuildError;
use crate::inner::{Boxed, Inner};
use crate::requests::Request;
use crate::status::{Rebuilding, Status};
use coracle_core::LogId;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How often it is looked how far it has come.
const LOOK: Duration = Duration::from_millis(50);

impl Inner {
    pub(crate) fn rebuild(&self, limit: Duration) -> Boxed<'_, Result<LogId, RebuildError>> {
        Box::pin(self.rebuild_within(limit))
    }

    async fn rebuild_within(&self, limit: Duration) -> Result<LogId, RebuildError> {
        let mut waits = RebuildError::NoLeader;
        let done = timeout(limit, self.rebuild_at_last(&mut waits)).await;
        done.unwrap_or(Err(waits))
    }

    /// Says meanwhile what it waits for.
    async fn rebuild_at_last(&self, waits: &mut RebuildError) -> Result<LogId, RebuildError> {
        loop {
            match self.begin_to_rebuild().await {
                Ok(()) => break,
                Err(error @ RebuildError::NoLeader) => *waits = error,
                Err(error @ RebuildError::Leads) => {
                    *waits = error;
                    // Who leads next has a machine to rebuild this one from.
                    drop(self.transfer_leadership(None).await);
                }
                Err(error) => return Err(error),
            }
            sleep(LOOK).await;
        }
        loop {
            let status = self.status().await.map_err(RebuildError::Stopped)?;
            if status.fenced.is_none() {
                return Ok(status.applied);
            }
            *waits = RebuildError::Timeout(waits_for(&status));
            sleep(LOOK).await;
        }
    }

    async fn begin_to_rebuild(&self) -> Result<(), RebuildError> {
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(Request::Rebuild { answer }).await.is_err() {
            return Err(RebuildError::Stopped(self.stop_reason()));
        }
        answered.await.unwrap_or_else(|_| Err(RebuildError::Stopped(self.stop_reason())))
    }
}

/// What it waits for, in words.
fn waits_for(status: &Status) -> String {
    match (status.rebuilding, &status.snapshots.receiving, status.raft.leader) {
        (Some(Rebuilding::Takes), ..) => "the machine takes the state that came".to_owned(),
        (_, Some(coming), _) => {
            let (peer, done, bytes) = (coming.peer, coming.done, coming.bytes);
            format!("a snapshot comes from node {peer}, {done} of {bytes} bytes are here")
        }
        (Some(Rebuilding::Asks(after)), None, Some(leader)) => {
            format!("node {leader} leads, and is asked for a snapshot from after entry {after}")
        }
        _ => "there is no leader now that could send a snapshot".to_owned(),
    }
}
