//! What connections share, what each of them may cost, and whose it is.

use crate::access::Rules;
use crate::accounts::{self, Account, Accounts, Holder};
use crate::budget::{Budget, Share};
use crate::gate::{Gate, Passed};
use crate::guests::Guest;
use crate::kv::Machine;
use crate::session::About;
use bytes::Bytes;
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
    /// The most of one address, and of one user. Three quarters of all by default.
    pub clients_per_address: Option<usize>,
    /// How long a command may take from its first byte to its last, however they come. 60 s by default: a living client
    /// sends a command in one go, and TCP itself retries a lost packet for less.
    pub half_command: Duration,
    /// How long a client may take nothing of the replies that wait for it. 60 s by default, likewise.
    pub stalled: Duration,
    /// The most memory for unfinished and waiting commands of all connections together, beyond [`OWN`](super::OWN) each, in bytes.
    /// 128 MiB by default: 6 of the largest commands, with what is made of them. One address has three quarters of it, and so has one user.
    pub commands: usize,
    /// The most memory for replies that wait to be taken, of all connections together, beyond [`OWN`](super::OWN) each, in bytes. 128 MiB
    /// by default: 2 of the [largest answers](crate::kv::MAX_ANSWER). One address has three quarters of it, and so has one user.
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
    /// What clients hold, by address and by user.
    pub accounts: Accounts,
    /// What is under way in the node.
    pub gate: Gate,
    /// Becomes true when the server stops.
    pub stopping: watch::Receiver<bool>,
}

impl<M: Machine> Shared<M> {
    /// Waits until a request of so many bytes may go to the node. None: it is to be refused.
    pub(super) async fn pass(&self, whose: &Holder, bytes: usize) -> Option<Passed<'_>> {
        self.gate.pass(whose, bytes, || self.node.leader().is_none().then_some(self.timeout)).await
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
    Client(Client),
    /// One of the few that are left for operators.
    Guest(Guest),
}

/// A place among the clients.
#[derive(Debug)]
pub struct Client {
    address: Seat,
    /// The same of the user that it is.
    user: Option<Seat>,
}

/// A place in an account.
#[derive(Debug)]
struct Seat {
    account: Arc<Account>,
    #[allow(dead_code, reason = "only its drop matters")]
    place: Share,
}

impl Seat {
    fn take(account: Arc<Account>) -> Option<Seat> {
        let mut place = account.clients.share();
        place.set(1).then_some(Seat { account, place })
    }
}

impl Client {
    /// One more of this address, if it may have more.
    pub fn enter(address: Arc<Account>) -> Option<Client> {
        Some(Client { address: Seat::take(address)?, user: None })
    }
}

impl Place {
    /// That of its address, or of all guests.
    pub(super) fn account(&self) -> &Account {
        match self {
            Place::Client(client) => &client.address.account,
            Place::Guest(guest) => guest.account(),
        }
    }

    /// That of the user that it is, if it is one.
    pub(super) fn user_account(&self) -> Option<&Account> {
        match self {
            Place::Client(client) => client.user.as_ref().map(|seat| &*seat.account),
            Place::Guest(_) => None,
        }
    }

    /// Whose requests they are that come from there.
    pub(super) fn whose(&self) -> &Holder {
        &self.user_account().unwrap_or(self.account()).holder
    }

    /// It is this user's now, or nobody's. Returns whether that is news; an error: the user has all the places that it may.
    /// Guests have no other account than theirs, so that no client can keep them from answers.
    pub(super) fn is_of(&mut self, user: Option<&Bytes>, accounts: &Accounts) -> Result<bool, ()> {
        let Place::Client(client) = self else { return Ok(false) };
        let before = client.user.as_ref().map(|seat| &seat.account.holder);
        if match (before, user) {
            (None, None) => true,
            (Some(Holder::User(before)), Some(user)) => before == user,
            _ => false,
        } {
            return Ok(false);
        }
        client.user = None;
        if let Some(user) = user {
            client.user = Some(Seat::take(accounts.of_user(user)).ok_or(())?);
        }
        Ok(true)
    }

    pub(super) fn guest(&mut self) -> Option<&mut Guest> {
        match self {
            Place::Client(_) => None,
            Place::Guest(guest) => Some(guest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guests::Guests;
    use std::net::IpAddr;

    #[test]
    fn a_place_is_that_of_its_user_and_without_one_that_of_its_address() {
        let accounts = Accounts::new(Arc::new(Account::new(10, 100, 100)), 1);
        let [one, two]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let place = |from| Place::Client(Client::enter(accounts.of_address(from)).unwrap());
        let (mut first, mut second) = (place(one), place(two));
        let (ann, of_ann) = (Bytes::from_static(b"ann"), Holder::User(Bytes::from_static(b"ann")));
        assert_eq!(first.whose(), &Holder::Address(one));
        assert_eq!(first.is_of(Some(&ann), &accounts), Ok(true));
        assert_eq!(first.is_of(Some(&ann), &accounts), Ok(false), "it is no news");
        assert_eq!(first.whose(), &of_ann);
        assert_eq!(second.is_of(Some(&ann), &accounts), Err(()), "the user has one place");
        assert_eq!(second.whose(), &Holder::Address(two));
        assert_eq!(first.is_of(None, &accounts), Ok(true));
        assert_eq!(first.whose(), &Holder::Address(one));
        assert_eq!(second.is_of(Some(&ann), &accounts), Ok(true));
        assert_eq!(second.whose(), &of_ann);
        let mut guest = Place::Guest(Arc::new(Guests::default()).enter(one).unwrap());
        assert_eq!(guest.is_of(Some(&ann), &accounts), Ok(false), "an operator needs no place of a user");
        assert!(guest.user_account().is_none());
    }
}
