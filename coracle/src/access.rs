//! One way to use a cluster, whoever uses it: a [`Node`] in one's own process, or a [`Client`] of nodes elsewhere.

use crate::client::{self, Client};
use crate::error::{ReadError, WriteError};
use crate::events::Position;
use crate::freshness::{Freshness, Seen};
use crate::node::Node;
use crate::session::Session;
use crate::state_machine::StateMachine;
use crate::watching::Events;
use std::time::Duration;

/// What writes to a replicated machine and reads it: a [`Node`], a [`Client`], or a session of one of them. A program that
/// takes an `impl Access` runs inside of the cluster and outside of it.
///
/// ```
/// # use coracle::{Access, StateMachine, WriteError};
/// async fn add_twice<A>(counter: &A) -> Result<u64, WriteError>
/// where
///     A: Access<Machine: StateMachine<Command = u64, Reply = u64>>,
/// {
///     counter.write(1).await?;
///     counter.write(1).await
/// }
/// ```
///
/// What is done once, and what is unknown after an error, each of them says of itself; all of them mean by
/// [`WriteError::certainly_not_done`] the same.
pub trait Access: Send + Sync {
    /// The machine.
    type Machine: StateMachine;

    /// Replicates a command, and returns what the state machine replied. Waits for as long as it is set up to.
    fn write(
        &self,
        command: <Self::Machine as StateMachine>::Command,
    ) -> impl Future<Output = Result<<Self::Machine as StateMachine>::Reply, WriteError>> + Send;

    /// [`write`](Access::write) with a time limit of its own.
    fn write_within(
        &self,
        command: <Self::Machine as StateMachine>::Command,
        limit: Duration,
    ) -> impl Future<Output = Result<<Self::Machine as StateMachine>::Reply, WriteError>> + Send;

    /// Asks the state machine, linearizably. Waits for as long as it is set up to.
    fn read(
        &self,
        query: <Self::Machine as StateMachine>::Query,
    ) -> impl Future<Output = Result<<Self::Machine as StateMachine>::Answer, ReadError>> + Send;

    /// [`read`](Access::read) with a time limit of its own.
    fn read_within(
        &self,
        query: <Self::Machine as StateMachine>::Query,
        limit: Duration,
    ) -> impl Future<Output = Result<<Self::Machine as StateMachine>::Answer, ReadError>> + Send;

    /// [`read`](Access::read) with a choice of how fresh the answer has to be, which says how fresh it is.
    fn read_as(
        &self,
        query: <Self::Machine as StateMachine>::Query,
        freshness: Freshness,
    ) -> impl Future<Output = Result<Seen<<Self::Machine as StateMachine>::Answer>, ReadError>> + Send;

    /// What the state machine publishes, from this place on.
    fn events(&self, from: Position) -> Events;
}

/// The methods of the trait are those of the type, by the same names.
macro_rules! by_its_own_methods {
    ($of:ident $(:: $inner:ident)?) => {
        impl<S: StateMachine> Access for $of$(::$inner)?<S> {
            type Machine = S;

            fn write(
                &self,
                command: S::Command,
            ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send {
                self.write(command)
            }

            fn write_within(
                &self,
                command: S::Command,
                limit: Duration,
            ) -> impl Future<Output = Result<S::Reply, WriteError>> + Send {
                self.write_within(command, limit)
            }

            fn read(&self, query: S::Query) -> impl Future<Output = Result<S::Answer, ReadError>> + Send {
                self.read(query)
            }

            fn read_within(
                &self,
                query: S::Query,
                limit: Duration,
            ) -> impl Future<Output = Result<S::Answer, ReadError>> + Send {
                self.read_within(query, limit)
            }

            fn read_as(
                &self,
                query: S::Query,
                freshness: Freshness,
            ) -> impl Future<Output = Result<Seen<S::Answer>, ReadError>> + Send {
                self.read_as(query, freshness)
            }

            fn events(&self, from: Position) -> Events {
                self.events(from)
            }
        }
    };
}

by_its_own_methods!(Node);
by_its_own_methods!(Session);
by_its_own_methods!(Client);
by_its_own_methods!(client::Session);
