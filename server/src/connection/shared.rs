//! What connections share, what each of them may cost, and whose it is.

use crate::access::Rules;
use crate::accounts::{self, Account};
use crate::budget::{Budget, Share};
use crate::gate::{Gate, Passed};
use crate::guests::Guest;
use crate::kv::Machine;
use crate::session::About;
use crate::waits::Waits;
use coracle::{Node, Role};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a client may cost.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most client connections at a time; the default is redis's, 10,000.
    pub clients: usize,
    /// The most of one address. Three quarters of all by default.
    pub clients_per_address: Option<usize>,
    /// How long a command may take from its first byte to its last, however they come. 60 s by default: a living client
    /// sends a command in one go, and TCP itself retries a lost packet for less.
    pub half_command: Duration,
    /// How long a client may take nothing of the replies that wait for it. 60 s by default, likewise.
    pub stalled: Duration,
    /// The most memory for unfinished and waiting commands of all connections together, beyond [`OWN`](super::OWN) each, in bytes.
    /// 128 MiB by default: 8 of the largest commands, with what is made of them. One address has three quarters of it.
    pub commands: usize,
    /// The most memory for replies that wait to be taken, of all connections together, beyond [`OWN`](super::OWN) each, in bytes. 128 MiB
    /// by default: 2 of the [largest answers](crate::kv::MAX_ANSWER). One address has three quarters of it.
    pub replies: usize,
    /// With how many bytes of keys and values, with what each key takes besides, nothing is taken that adds to them. No limit by
    /// default.
    pub memory: Option<u64>,
}

impl Limits {
    /// The most clients of one address.
    pub fn per_address(&self) -> usize {
        self.clients_per_address.unwrap_or(accounts::part(self.clients)).max(1)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        let minute = Duration::from_secs(60);
        Limits {
            clients: 10_000,
            clients_per_address: None,
            half_command: minute,
            stalled: minute,
            commands: 128 << 20,
            replies: 128 << 20,
            memory: None,
        }
    }
}

/// What the connections of a server share.
pub struct Shared<M: Machine> {
    /// The node.
    pub node: Node<M>,
    /// How long a request may take, waiting for a leader included.
    pub timeout: Duration,
    /// What clients may cost.
    pub limits: Limits,
    /// Who may do what.
    pub rules: Arc<Rules>,
    /// What may be said about the server, and what its clients hold.
    pub about: Arc<About>,
    /// Backups that are given out.
    pub backups: Arc<Budget>,
    /// What is under way in the node.
    pub gate: Gate,
    /// Who holds memory and is waited for.
    pub waits: Waits,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl<M: Machine> Shared<M> {
    /// Waits until a request of so many bytes may go to the node. None: it is to be refused.
    pub(super) async fn pass(&self, account: &Account, bytes: usize) -> Option<Passed<'_>> {
        self.gate.pass(account.address, bytes, || self.node.leader().is_none().then_some(self.timeout)).await
    }
}

/// Whose connection it is.
pub struct Newcomer {
    /// Its number.
    pub id: u64,
    /// Where it comes from.
    pub from: SocketAddr,
    /// Whose certificate it has shown, if it has.
    pub shown: Option<Role>,
    /// Its place.
    pub place: Place,
}

/// A connection's place, and what it takes its memory from.
#[derive(Debug)]
pub enum Place {
    /// One among the clients.
    Client(Arc<Account>, #[allow(dead_code, reason = "only its drop matters")] Share),
    /// One of the few that are left for operators.
    Guest(Guest),
}

impl Place {
    pub(super) fn account(&self) -> &Account {
        match self {
            Place::Client(account, _) => account,
            Place::Guest(guest) => guest.account(),
        }
    }

    pub(super) fn guest(&mut self) -> Option<&mut Guest> {
        match self {
            Place::Client(..) => None,
            Place::Guest(guest) => Some(guest),
        }
    }
}
