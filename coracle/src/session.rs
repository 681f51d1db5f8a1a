//! The handle to a lane of a node's session: what users call for writes that are done once.

use crate::error::{ReadError, WriteError};
use crate::events::Position;
use crate::freshness::{Freshness, Seen};
use crate::inner::Inner;
use crate::reading;
use crate::retrying;
use crate::state_machine::StateMachine;
use crate::watching::Events;
use crate::work::Way;
use crate::writing;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

/// Writes that are done once, and in the order of the calls, whatever becomes of the leader (thesis, section 6.3).
///
/// A write through a session is sent to the leader, this node or another one, again and again until it is answered; the
/// machines of all nodes take each of them once. So the death of a leader is a pause and no error, and an outcome is
/// [unknown](WriteError::Unknown) only where this node stops first, its time is up, or no leader took a word for as long as
/// [`Config::session_timeout`](crate::Config::session_timeout). It lives as long as this node runs: after a restart nobody
/// knows what of an earlier run was done.
///
/// Commands of one session keep the order in which [`write`](Session::write) was polled first, each with the next. Take one
/// for each stream of commands that has an order: sessions do not wait for each other, and cost a few hundred bytes while
/// they are open. Needs members that all know sessions: as long as that is not certain, writes are sent once, as by
/// [`Node::write`](crate::Node::write).
///
/// A session is a handle to the node as little as a future is: if the last [`Node`](crate::Node) is dropped, the node stops.
pub struct Session<S: StateMachine> {
    inner: Arc<Inner>,
    lane: u32,
    way: fn(u32) -> Way,
    machine: PhantomData<fn(S) -> S>,
}

impl<S: StateMachine> Session<S> {
    pub(crate) fn new(inner: Arc<Inner>, way: fn(u32) -> Way) -> Session<S> {
        let lane = inner.lanes.lock().unwrap_or_else(PoisonError::into_inner).take();
        Session { inner, lane, way, machine: PhantomData }
    }

    /// Replicates a command once, and returns what the state machine replied.
    ///
    /// Waits for [`Config::request_timeout`](crate::Config::request_timeout). Dropping the future leaves the outcome unknown,
    /// and what comes after it in its place.
    pub fn write(
        &self,
        command: S::Command,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        self.write_within(command, self.inner.config.request_timeout)
    }

    /// [`write`](Session::write) with a time limit of its own.
    pub fn write_within(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        writing::write::<S>(self.inner.clone(), command, limit, (self.way)(self.lane))
    }

    /// [`write`](Session::write) with a time limit of its own, which is tried again for so long if it was certainly not done for want
    /// of a leader, of a cluster or of room: so an election is a pause wherever this node is, and those that were not done in time
    /// say so. What was tried again comes after what was taken in meanwhile, so await each that has an order.
    pub fn write_retrying(
        &self,
        command: S::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send + use<S> {
        retrying::write::<S>(self.inner.clone(), command, limit, (self.way)(self.lane))
    }

    /// [`Node::read`](crate::Node::read): linearizable, so it reflects every write of this session that was answered.
    pub fn read(
        &self,
        query: S::Query,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        self.read_within(query, self.inner.config.request_timeout)
    }

    /// [`read`](Session::read) with a time limit of its own.
    pub fn read_within(
        &self,
        query: S::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send + use<S> {
        reading::linearizable::<S>(self.inner.clone(), query, limit)
    }

    /// [`Node::read_as`](crate::Node::read_as).
    pub fn read_as(
        &self,
        query: S::Query,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Seen<S::Answer>, ReadError>> + Send + use<S> {
        reading::read::<S>(self.inner.clone(), query, self.inner.config.request_timeout, freshness)
    }

    /// [`Node::events`](crate::Node::events).
    pub fn events(&self, from: Position) -> Events {
        Events::here(self.inner.clone(), from)
    }
}

impl<S: StateMachine> Drop for Session<S> {
    fn drop(&mut self) {
        self.inner.lanes.lock().unwrap_or_else(PoisonError::into_inner).give_back(self.lane);
    }
}

impl<S: StateMachine> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("node", &self.inner.me.id).field("lane", &self.lane).finish()
    }
}
