//! What the clients of one address, and of one user, hold, as a part of what all hold.
//!
//! One address never takes everything: whatever its clients do, some places and some memory are left to others. Of the
//! sixth version of the protocol a network of 64 bits is one address, since whoever has one of those has all of it. Nor does
//! one user, from however many addresses it comes: what its clients hold is counted in the account of their address and in
//! that of the user, and neither may pass its limit.

use crate::budget::Budget;
use bytes::Bytes;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The part of the memory that one address or user may take: three quarters.
pub fn part(whole: usize) -> usize {
    whole - whole / 4
}

/// Whose clients they are.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Holder {
    /// Of this address; unspecified where they are of several.
    Address(IpAddr),
    /// Of the user of this name, wherever they come from.
    User(Bytes),
}

/// What clients hold.
#[derive(Debug)]
pub struct Account {
    /// Whose they are.
    pub holder: Holder,
    /// Places.
    pub clients: Arc<Budget>,
    /// Memory for unfinished and waiting commands, in bytes.
    pub commands: Arc<Budget>,
    /// Memory for replies that wait to be taken, in bytes.
    pub replies: Arc<Budget>,
}

impl Account {
    /// Of which nothing is held, with these limits.
    pub fn new(clients: usize, commands: usize, replies: usize) -> Account {
        let [clients, commands, replies] = [clients, commands, replies].map(Budget::new);
        Account { holder: Holder::Address(Ipv6Addr::UNSPECIFIED.into()), clients, commands, replies }
    }
}

/// The accounts of the addresses and of the users that have clients now.
#[derive(Debug)]
pub struct Accounts {
    all: Arc<Account>,
    /// The most clients of one.
    clients: usize,
    open: Mutex<HashMap<Holder, Weak<Account>>>,
}

impl Accounts {
    /// None yet. `all` is what all addresses together hold; `clients` are the most of one address, and of one user.
    pub fn new(all: Arc<Account>, clients: usize) -> Accounts {
        Accounts { all, clients, open: Mutex::default() }
    }

    /// That of an address. It is forgotten when nobody has it any more.
    pub fn of_address(&self, address: IpAddr) -> Arc<Account> {
        self.of(Holder::Address(network(address)))
    }

    /// That of a user; forgotten likewise. All that it holds is held of addresses, too, and so of the whole.
    pub fn of_user(&self, name: &Bytes) -> Arc<Account> {
        self.of(Holder::User(name.clone()))
    }

    fn of(&self, holder: Holder) -> Arc<Account> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = open.get(&holder).and_then(Weak::upgrade) {
            return known;
        }
        if open.len() == open.capacity() {
            open.retain(|_, account| account.strong_count() > 0);
        }
        let budget = |whole: &Arc<Budget>, limit| match holder {
            Holder::Address(_) => Budget::within(whole, limit),
            Holder::User(_) => Budget::new(limit),
        };
        let Account { clients, commands, replies, .. } = &*self.all;
        let account = Arc::new(Account {
            clients: budget(clients, self.clients),
            commands: budget(commands, part(commands.limit())),
            replies: budget(replies, part(replies.limit())),
            holder: holder.clone(),
        });
        open.insert(holder, Arc::downgrade(&account));
        account
    }
}

/// What of an address is one.
pub(crate) fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(it) => Ipv6Addr::from_bits(it.to_bits() >> 64 << 64).into(),
        it => it,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::budget::Shares;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_leaves_places_and_memory_to_others() {
        let all = Arc::new(Account::new(10, 100, 100));
        let accounts = Accounts::new(all.clone(), 7);
        let (greedy, other) =
            (accounts.of_address(address("192.0.2.1")), accounts.of_address(address("192.0.2.2")));
        let (mut places, mut bytes) = (greedy.clients.share(), greedy.commands.share());
        assert!(places.set(7) && !places.set(8));
        assert!(bytes.set(75) && !bytes.set(76));
        let again = accounts.of_address(address("::ffff:192.0.2.1"));
        assert!(!again.clients.share().set(1), "the same address in other words");
        let (mut theirs, mut more) = (other.clients.share(), other.commands.share());
        assert!(theirs.set(3) && more.set(25));
        assert_eq!((all.clients.held(), all.commands.held()), (10, 100));
    }

    #[test]
    fn a_network_of_the_sixth_version_is_one_address() {
        let accounts = Accounts::new(Arc::new(Account::new(10, 0, 0)), 1);
        let one = accounts.of_address(address("2001:db8::1"));
        assert!(Arc::ptr_eq(&one, &accounts.of_address(address("2001:db8::2"))));
        assert!(!Arc::ptr_eq(&one, &accounts.of_address(address("2001:db8:0:1::1"))));
    }

    #[test]
    fn one_user_leaves_memory_to_others_from_however_many_addresses_it_comes() {
        let all = Arc::new(Account::new(10, 100, 100));
        let accounts = Accounts::new(all.clone(), 7);
        let user = accounts.of_user(&Bytes::from_static(b"mallory"));
        let again = accounts.of_user(&Bytes::from_static(b"mallory"));
        let mut mine = Shares::new(&accounts.of_address(address("192.0.2.1")).commands);
        let mut more = Shares::new(&accounts.of_address(address("192.0.2.2")).commands);
        mine.of_user(Some(&user.commands));
        more.of_user(Some(&again.commands));
        assert!(mine.set(50) && more.set(25) && !more.set(26), "one user has 75");
        assert_eq!((user.commands.held(), all.commands.held()), (75, 75));
        let mut other = Shares::new(&accounts.of_address(address("192.0.2.2")).commands);
        other.of_user(Some(&accounts.of_user(&Bytes::from_static(b"alice")).commands));
        assert!(other.set(25), "is left to somebody else");
        let mut places = [user.clients.share(), again.clients.share()];
        assert!(places[0].set(7) && !places[1].set(1), "and so it is with places");
        drop((mine, more));
        assert_eq!((user.commands.held(), all.commands.held()), (0, 25));
    }

    #[test]
    fn users_and_addresses_without_clients_are_forgotten() {
        let accounts = Accounts::new(Arc::new(Account::new(10, 0, 0)), 1);
        let stays = accounts.of_address(address("2001:db8::1"));
        for bits in 0..100_000u32 {
            drop(accounts.of_address(IpAddr::from(bits.to_be_bytes())));
            drop(accounts.of_user(&Bytes::copy_from_slice(&bits.to_be_bytes())));
        }
        assert!(Arc::ptr_eq(&stays, &accounts.of_address(address("2001:db8::1"))));
        assert!(accounts.open.lock().unwrap().len() < 100);
    }
}
