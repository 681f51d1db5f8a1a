//! What the clients of one address hold, as a part of what all hold.
//!
//! One address never takes everything: whatever its clients do, some places and some memory are left to others. Of the
//! sixth version of the protocol a network of 64 bits is one address, since whoever has one of those has all of it.

use crate::budget::Budget;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The part of the memory that one address may take: three quarters.
pub fn part(whole: usize) -> usize {
    whole - whole / 4
}

/// What clients hold.
#[derive(Debug)]
pub struct Account {
    /// Of which address they are; unspecified where they are of several.
    pub address: IpAddr,
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
        Account { address: Ipv6Addr::UNSPECIFIED.into(), clients, commands, replies }
    }
}

/// The accounts of the addresses that have clients now.
#[derive(Debug)]
pub struct Accounts {
    all: Arc<Account>,
    /// The most clients of one address.
    clients: usize,
    open: Mutex<HashMap<IpAddr, Weak<Account>>>,
}

impl Accounts {
    /// None yet. `all` is what all addresses together hold; `clients` are the most of one.
    pub fn new(all: Arc<Account>, clients: usize) -> Accounts {
        Accounts { all, clients, open: Mutex::default() }
    }

    /// That of an address. It is forgotten when nobody has it any more.
    pub fn of(&self, address: IpAddr) -> Arc<Account> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let address = network(address);
        if let Some(known) = open.get(&address).and_then(Weak::upgrade) {
            return known;
        }
        if open.len() == open.capacity() {
            open.retain(|_, account| account.strong_count() > 0);
        }
        let Account { clients, commands, replies, .. } = &*self.all;
        let account = Arc::new(Account {
            address,
            clients: Budget::within(clients, self.clients),
            commands: Budget::within(commands, part(commands.limit())),
            replies: Budget::within(replies, part(replies.limit())),
        });
        open.insert(address, Arc::downgrade(&account));
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

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_leaves_places_and_memory_to_others() {
        let all = Arc::new(Account::new(10, 100, 100));
        let accounts = Accounts::new(all.clone(), 7);
        let (greedy, other) = (accounts.of(address("192.0.2.1")), accounts.of(address("192.0.2.2")));
        let (mut places, mut bytes) = (greedy.clients.share(), greedy.commands.share());
        assert!(places.set(7) && !places.set(8));
        assert!(bytes.set(75) && !bytes.set(76));
        let again = accounts.of(address("::ffff:192.0.2.1"));
        assert!(!again.clients.share().set(1), "the same address in other words");
        let (mut theirs, mut more) = (other.clients.share(), other.commands.share());
        assert!(theirs.set(3) && more.set(25));
        assert_eq!((all.clients.held(), all.commands.held()), (10, 100));
    }

    #[test]
    fn a_network_of_the_sixth_version_is_one_address() {
        let accounts = Accounts::new(Arc::new(Account::new(10, 0, 0)), 1);
        let one = accounts.of(address("2001:db8::1"));
        assert!(Arc::ptr_eq(&one, &accounts.of(address("2001:db8::2"))));
        assert!(!Arc::ptr_eq(&one, &accounts.of(address("2001:db8:0:1::1"))));
    }

    #[test]
    fn addresses_without_clients_are_forgotten() {
        let accounts = Accounts::new(Arc::new(Account::new(10, 0, 0)), 1);
        let stays = accounts.of(address("2001:db8::1"));
        for bits in 0..100_000u32 {
            drop(accounts.of(IpAddr::from(bits.to_be_bytes())));
        }
        assert!(Arc::ptr_eq(&stays, &accounts.of(address("2001:db8::1"))));
        assert!(accounts.open.lock().unwrap().len() < 100);
    }
}
