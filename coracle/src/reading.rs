//! A read, from a handle's side: sent to consensus or to the machine, and waited for.

use crate::clock;
use crate::error::ReadError;
use crate::freshness::{Freshness, Seen};
use crate::inner::Inner;
use crate::requests::{Asked, Request};
use crate::state_machine::StateMachine;
use coracle_core::LogId;
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
    let called = clock::since_boot();
    let told =
        ask(&inner, Query::<S> { query, freshness }, called, limit).await.map_err(|(error, _)| error)?;
    let age = told.since.map(|since| clock::since_boot().saturating_sub(since));
    Ok(Seen { answer: told.answer, applied: told.applied, age })
}

/// An answer.
pub(crate) struct Told<A> {
    pub(crate) answer: A,
    /// The newest entry that is reflected in it.
    applied: LogId,
    /// It reflects every write that was completed before that time, if anything is known of that.
    since: Option<Duration>,
}

/// What is asked.
pub(crate) struct Query<S: StateMachine> {
    query: S::Query,
    freshness: Freshness,
}

impl<S: StateMachine> Query<S> {
    /// A question for what is newest.
    pub(crate) fn newest(query: S::Query) -> Query<S> {
        Query { query, freshness: Freshness::Linearizable }
    }
}

/// Asks the machine, in a call of this time, within so long. An error has the query with it, unless that got as far as the machine.
pub(crate) async fn ask<S: StateMachine>(
    inner: &Inner,
    Query { query, freshness }: Query<S>,
    called: Duration,
    limit: Duration,
) -> Result<Told<S::Answer>, (ReadError, Option<Query<S>>)> {
    let begun = inner.confirmed.begin(freshness, called);
    let (reader, mut asked) = Asked::<S>::new(query);
    let answered = async {
        let sent = inner.requests.send(Request::Read { reader, from: begun.from }).await;
        sent.map_err(|refused| inner.read_refused(refused))?;
        (&mut asked).await.unwrap_or_else(|| Err(ReadError::Stopped(inner.stop_reason())))
    };
    let answered = match timeout(limit, answered).await {
        Ok(answered) => answered,
        Err(_) if asked.shared().confirmed().is_some() => Err(ReadError::Lagging),
        Err(_) => Err(ReadError::Timeout),
    };
    let back = || asked.shared().take_back().map(|query| Query { query, freshness });
    let (answer, applied) = answered.map_err(|error| (error, back()))?;
    let since = inner.confirmed.end(&begun, asked.shared().confirmed(), clock::since_boot);
    Ok(Told { answer, applied, since })
}
