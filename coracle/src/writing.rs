//! A write, from a handle's side: encoded, sent to consensus, and waited for.

use crate::error::{Cause, WriteError};
use crate::inner::Inner;
use crate::requests::{Request, Written};
use crate::state_machine::StateMachine;
use crate::work::Way;
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Writes a command in this way, within this time.
pub(crate) async fn write<S: StateMachine>(
    inner: Arc<Inner>,
    command: S::Command,
    limit: Duration,
    way: Way,
) -> Result<S::Reply, WriteError> {
    let encoded = encode::<S>(&inner, command)?;
    send::<S>(&inner, encoded, limit, way).await
}

/// A command as it goes into the log, if it may.
pub(crate) fn encode<S: StateMachine>(inner: &Inner, command: S::Command) -> Result<Bytes, WriteError> {
    inner.check_version(S::version_of(&command))?;
    let encoded = S::encode_command(&command)?;
    drop(command);
    inner.check_length(&encoded)?;
    // What cannot be read back would stop every node, now and after each restart.
    S::decode_command(&encoded)?;
    Ok(encoded)
}

/// Writes what was encoded.
pub(crate) async fn send<S: StateMachine>(
    inner: &Inner,
    command: Bytes,
    limit: Duration,
    way: Way,
) -> Result<S::Reply, WriteError> {
    let (writer, waiting) = Written::<S>::new();
    let request = Request::Write { command, limit, way, writer };
    let asked = async {
        inner.requests.send(request).await.map_err(|refused| inner.write_refused(refused))?;
        Ok(waiting.await)
    };
    match timeout(limit, asked).await {
        Ok(Ok(Some(outcome))) => outcome?.decode(),
        Ok(Err(error)) => Err(error),
        Ok(Ok(None)) => Err(WriteError::Unknown(Cause::Stopped(inner.stop_reason()))),
        Err(_) => Err(WriteError::Unknown(Cause::Timeout)),
    }
}
