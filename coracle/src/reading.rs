//! A read, from a handle's side: sent to consensus or to the machine, and waited for.

use crate::clock;
use crate::error::ReadError;
use crate::freshness::{Freshness, Seen};
use crate::inner::Inner;
use crate::requests::{Asked, Request};
use crate::state_machine::StateMachine;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Asks the machine for what is newest, within this time.
pub(crate) async fn linearizable<S: StateMachine>(
    inner: Arc<Inner>,
    query: S::Query,
    limit: Duration,
) -> Result<S::Answer, ReadError> {
    read::<S>(inner, query, limit, Freshness::Linearizable).await.map(|seen| seen.answer)
}

/// Asks the machine, within this time.
pub(crate) async fn read<S: StateMachine>(
    inner: Arc<Inner>,
    query: S::Query,
    limit: Duration,
    freshness: Freshness,
) -> Result<Seen<S::Answer>, ReadError> {
    let begun = inner.confirmed.begin(freshness, clock::since_boot());
    let (reader, waiting) = Asked::<S>::new(query);
    let asked = waiting.asked();
    let answered = async {
        let sent = inner.requests.send(Request::Read { reader, from: begun.from }).await;
        sent.map_err(|refused| inner.read_refused(refused))?;
        Ok(waiting.await)
    };
    let (answer, applied) = match timeout(limit, answered).await {
        Ok(Ok(Some(outcome))) => outcome?,
        Ok(Err(error)) => return Err(error),
        Ok(Ok(None)) => return Err(ReadError::Stopped(inner.stop_reason())),
        Err(_) if asked.confirmed().is_some() => return Err(ReadError::Lagging),
        Err(_) => return Err(ReadError::Timeout),
    };
    let age = inner.confirmed.end(&begun, asked.confirmed(), clock::since_boot());
    Ok(Seen { answer, applied, age })
}
