//! Connections for operators, where clients have taken every place.
//!
//! A few more connections than clients may have are taken. Such a guest may ask only for what concerns the node itself:
//! `CORACLE …`, and what a client says to greet. So `coracle status` and the commands that change the membership are answered
//! whatever clients do. A guest has to say at once what it wants, and may not stay for long without asking. Where all of these
//! seats are taken, too, the oldest guest of the address that has most of them gives way to a new one, once it has had a moment: an answer
//! takes less.

use crate::accounts::Account;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;

/// How many guests there may be.
pub const SEATS: usize = 16;

/// What guests' commands may take together beyond what each connection has, in bytes; and their replies. A piece of a backup
/// is a quarter of the latter.
const MEMORY: usize = 1 << 20;

/// For how long nobody has to give way.
const MOMENT: Duration = Duration::from_millis(20);

/// How long a guest may say nothing: at first, and later.
const SILENCE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// Where guests sit. See the [module](self).
#[derive(Debug)]
pub struct Guests {
    seats: Mutex<Seats>,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// By number, so oldest first.
    taken: BTreeMap<u64, Seat>,
}

#[derive(Debug)]
struct Seat {
    address: IpAddr,
    since: Instant,
    away: Arc<Notify>,
}

impl Seats {
    /// A seat for one more, and its number.
    fn take(&mut self, address: IpAddr, now: Instant) -> Option<(u64, Arc<Notify>)> {
        if self.taken.len() >= SEATS {
            let oldest = self.oldest_of_greediest()?;
            let seat = self.taken.get(&oldest).filter(|seat| now.duration_since(seat.since) >= MOMENT)?;
            seat.away.notify_one();
            self.taken.remove(&oldest);
        }
        self.next += 1;
        let away = Arc::new(Notify::new());
        self.taken.insert(self.next, Seat { address, since: now, away: away.clone() });
        Some((self.next, away))
    }

    fn oldest_of_greediest(&self) -> Option<u64> {
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        self.taken.values().for_each(|seat| *counts.entry(seat.address).or_default() += 1);
        let greediest = counts.into_iter().max_by_key(|(_, count)| *count)?.0;
        self.taken.iter().find(|(_, seat)| seat.address == greediest).map(|(number, _)| *number)
    }
}

impl Default for Guests {
    fn default() -> Guests {
        let account = Arc::new(Account::new(SEATS, MEMORY, MEMORY));
        Guests { seats: Mutex::default(), account }
    }
}

impl Guests {
    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.seats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes one in.
    pub fn enter(self: &Arc<Guests>, address: IpAddr) -> Option<Guest> {
        let (number, away) = self.seats().take(address, Instant::now())?;
        Some(Guest { guests: self.clone(), number, away, asked: false })
    }
}

/// One of them. The seat is free when this is dropped.
#[derive(Debug)]
pub struct Guest {
    guests: Arc<Guests>,
    number: u64,
    away: Arc<Notify>,
    /// Whether it has asked for something.
    asked: bool,
}

impl Guest {
    /// What guests hold.
    pub fn account(&self) -> &Arc<Account> {
        &self.guests.account
    }

    /// How long it may say nothing now.
    pub fn silence(&self) -> Duration {
        if self.asked { SILENCE.1 } else { SILENCE.0 }
    }

    /// It has asked for something.
    pub fn asked(&mut self) {
        self.asked = true;
    }

    /// What to wait for: resolves when the guest is to give way.
    pub fn away(&self) -> Arc<Notify> {
        self.away.clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.seats().taken.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> IpAddr {
        [192, 0, 2, number].into()
    }

    #[test]
    fn the_oldest_of_the_greediest_gives_way_once_it_had_its_moment() {
        let (mut seats, start) = (Seats::default(), Instant::now());
        let (operator, stays) = seats.take(address(1), start).unwrap();
        let (first, goes) = seats.take(address(2), start).unwrap();
        for _ in 2..SEATS {
            seats.take(address(2), start).unwrap();
        }
        assert!(seats.take(address(3), start + MOMENT / 2).is_none());
        assert!(seats.take(address(3), start + MOMENT).is_some());
        assert!(seats.taken.contains_key(&operator) && !seats.taken.contains_key(&first));
        assert_eq!((Arc::strong_count(&stays), Arc::strong_count(&goes)), (2, 1));
        assert_eq!(seats.taken.len(), SEATS);
    }

    #[test]
    fn a_seat_is_free_when_its_guest_has_gone() {
        let guests = Arc::new(Guests::default());
        let all: Vec<_> = (0..SEATS).map(|_| guests.enter(address(1)).unwrap()).collect();
        drop(all);
        assert!(guests.seats().taken.is_empty());
    }
}
