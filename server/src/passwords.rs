//! Passwords: how they are hashed, and who compares them.
//!
//! A hash is one of Argon2id with 19 MiB, 2 passes and 1 lane (what OWASP recommends), and no other is taken: what comparing
//! one costs is known, whoever made it. It costs tens of milliseconds of a processor, by intention. So one thread of its own
//! does it, for one password after the other, and the threads that serve clients never do. The memory of it is that of one.
//!
//! Whoever guesses makes only itself wait: each address has a queue, and they take turns. An address is that of a
//! computer; in IPv6 a network of 64 bits, which one computer has all of.

use crate::accounts::network;
use crate::secret::Secret;
use crate::users::{Hash, MAX_HASH};
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use bytes::Bytes;
use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// What hashing a password takes: memory in KiB, passes, lanes.
const COST: (u32, u32, u32) = (19_456, 2, 1);

/// What every hash that is taken begins with: these very costs.
const PREFIX: &str = "$argon2id$v=19$m=19456,t=2,p=1$";

/// What a password is compared with whose user there is not, so that this takes as long.
const NOBODY: &[u8] =
    b"$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// The longest password, in bytes.
pub const MAX_PASSWORD: usize = 1024;

/// The most passwords of one address that wait: half a second of work.
const MOST_OF_ONE: usize = 16;

/// The most that wait altogether; with their passwords 300 KiB.
const MOST: usize = 256;

/// How long a client waits for its turn: as long as for the handshake of an encrypted connection.
const LIMIT: Duration = Duration::from_secs(10);

/// What a client hears whose password was not compared.
pub(crate) const BUSY: &str = "BUSY too many passwords wait to be checked, of this address or of all; this one was not; try again later";

/// Who a client says that it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Login {
    /// Its name, unless it means the user `default`.
    pub user: Option<Bytes>,
    /// How it proves it.
    pub password: Secret,
}

/// Hashes a password.
pub fn hash(password: &Secret) -> Result<Hash, String> {
    if password.expose().is_empty() || password.expose().len() > MAX_PASSWORD {
        return Err(format!("a password has 1 to {MAX_PASSWORD} bytes"));
    }
    let hashed = argon2()?.hash_password(password.expose()).map_err(|error| error.to_string())?;
    Ok(Hash(hashed.to_string().into()))
}

/// Whether this is a hash as [`hash`] makes them.
pub fn is_hash(text: &[u8]) -> bool {
    text.len() <= MAX_HASH && parsed(text).is_some()
}

fn parsed(text: &[u8]) -> Option<PasswordHash> {
    let text = std::str::from_utf8(text).ok().filter(|text| text.starts_with(PREFIX))?;
    let whole = |hash: &PasswordHash| hash.salt.is_some() && hash.hash.is_some_and(|hash| hash.len() == 32);
    PasswordHash::new(text).ok().filter(whole)
}

fn argon2() -> Result<Argon2<'static>, String> {
    let (memory, passes, lanes) = COST;
    let params = Params::new(memory, passes, lanes, None).map_err(|error| error.to_string())?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

/// Whether this is the password; takes the same time whatever it is, and if there is no user.
fn matches(hash: Option<&Hash>, password: &Secret) -> bool {
    let known = hash.and_then(|hash| parsed(&hash.0));
    let real = known.is_some();
    let (Some(hash), Ok(argon2)) = (known.or_else(|| parsed(NOBODY)), argon2()) else { return false };
    argon2.verify_password(password.expose(), &hash).is_ok() && real
}

/// Those who wait, by where they come from.
struct Line<T> {
    waiting: BTreeMap<IpAddr, VecDeque<T>>,
    /// Whose turn it is, in this order; each address that waits, once.
    turns: VecDeque<IpAddr>,
    count: usize,
}

impl<T> Line<T> {
    fn new() -> Line<T> {
        Line { waiting: BTreeMap::new(), turns: VecDeque::new(), count: 0 }
    }

    /// One more, if there is room. Where there is none, the last one goes of whoever has the most, unless that is the
    /// address itself.
    fn join(&mut self, from: IpAddr, job: T) -> bool {
        let of_this = self.waiting.get(&from).map_or(0, VecDeque::len);
        if of_this >= MOST_OF_ONE {
            return false;
        }
        if self.count >= MOST {
            let Some((_, most)) = self.waiting.iter_mut().max_by_key(|(_, jobs)| jobs.len()) else {
                return false;
            };
            if most.len() <= of_this + 1 {
                return false;
            }
            most.pop_back();
            self.count -= 1;
        }
        if of_this == 0 {
            self.turns.push_back(from);
        }
        self.waiting.entry(from).or_default().push_back(job);
        self.count += 1;
        true
    }

    /// The next one: one of each address, and then the next of each.
    fn next(&mut self) -> Option<(IpAddr, T)> {
        let from = self.turns.pop_front()?;
        let jobs = self.waiting.get_mut(&from)?;
        let job = jobs.pop_front()?;
        if jobs.is_empty() {
            self.waiting.remove(&from);
        } else {
            self.turns.push_back(from);
        }
        self.count -= 1;
        Some((from, job))
    }
}

struct Job {
    hash: Option<Hash>,
    password: Secret,
    tell: oneshot::Sender<bool>,
}

/// Compares passwords on a thread of its own.
pub struct Checker {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// There is a job, or an end.
    news: Condvar,
}

struct State {
    line: Line<Job>,
    running: bool,
    over: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Works until the end.
    fn work(&self) {
        let mut state = self.lock();
        while !state.over {
            let Some((from, Job { hash, password, tell })) = state.line.next() else {
                state = self.news.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(state);
            // Whoever has gone costs nothing.
            if !tell.is_closed() {
                let right = matches(hash.as_ref(), &password);
                tracing::debug!(%from, right, "checked a password");
                let _ = tell.send(right);
            }
            state = self.lock();
        }
    }
}

impl Default for Checker {
    fn default() -> Checker {
        let state = State { line: Line::new(), running: false, over: false };
        Checker { shared: Arc::new(Shared { state: Mutex::new(state), news: Condvar::new() }) }
    }
}

impl Checker {
    /// Whether this is the password of which the hash is, when it is the turn of whoever asks from there. An error is the
    /// text of a reply: it was not compared.
    pub(crate) async fn check(
        &self,
        from: IpAddr,
        hash: Option<Hash>,
        password: Secret,
    ) -> Result<bool, &'static str> {
        if password.expose().len() > MAX_PASSWORD {
            return Ok(false);
        }
        let (tell, told) = oneshot::channel();
        let from = network(from);
        let (joined, first) = {
            let mut state = self.shared.lock();
            let joined = state.line.join(from, Job { hash, password, tell });
            (joined, !std::mem::replace(&mut state.running, true))
        };
        if first {
            // Whoever has no users has no such thread.
            let shared = self.shared.clone();
            std::thread::spawn(move || shared.work());
        }
        self.shared.news.notify_one();
        tracing::debug!(%from, joined, "a password is to be checked");
        // One that had to go was told nothing.
        timeout(LIMIT, told).await.ok().and_then(Result::ok).ok_or(BUSY)
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.shared.lock().over = true;
        self.shared.news.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [10, 0, 0, last].into()
    }

    #[test]
    fn a_password_is_known_again_by_its_hash_alone() {
        let (right, wrong) = (Secret::new(b"sesame"), Secret::new(b"sesam"));
        let one = hash(&right).unwrap();
        assert_ne!(one, hash(&right).unwrap(), "salted");
        assert!(is_hash(&one.0) && one.0.len() <= MAX_HASH && is_hash(NOBODY));
        assert!(matches(Some(&one), &right));
        assert!(!matches(Some(&one), &wrong) && !matches(None, &right));
        assert!(hash(&Secret::new(b"")).is_err() && hash(&Secret::new(&[b'x'; 1025])).is_err());
    }

    /// By the processor's time of this thread, which nobody else can make longer.
    #[test]
    fn a_name_that_nobody_has_costs_the_work_of_a_wrong_password() {
        let known = hash(&Secret::new(b"sesame")).unwrap();
        let work = |hash: Option<&Hash>| {
            let clock = || rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
            let before = clock();
            assert!(!matches(hash, &Secret::new(b"guessed")));
            let after = clock();
            (after.tv_sec - before.tv_sec) * 1_000_000_000 + (after.tv_nsec - before.tv_nsec)
        };
        let least = |hash| (0..3).map(|_| work(hash)).min().unwrap();
        let (wrong, unknown) = (least(Some(&known)), least(None));
        assert!(wrong < 2 * unknown && unknown < 2 * wrong, "{wrong} and {unknown} ns");
    }

    /// What comparing costs is not for whoever made the hash to say.
    #[test]
    fn a_hash_of_other_costs_is_none() {
        let good = String::from_utf8(NOBODY.to_vec()).unwrap();
        for wrong in [
            good.replace("m=19456", "m=4194304"),
            good.replace("t=2", "t=200"),
            good.replace("argon2id", "argon2i"),
            good.replace("v=19", "v=16"),
            good[..good.len() - 1].to_owned(),
            good[..good.rfind('$').unwrap()].to_owned(),
            format!("{good}$"),
            format!("{good}{}", "A".repeat(200)),
            "sesame".to_owned(),
        ] {
            assert!(!is_hash(wrong.as_bytes()), "{wrong}");
            assert!(!matches(Some(&Hash(wrong.into())), &Secret::new(b"x")));
        }
    }

    #[test]
    fn addresses_take_turns_however_many_one_has_sent() {
        let mut line = Line::new();
        let taken = (0..200).filter(|n| line.join(ip(1), *n)).count();
        assert_eq!(taken, MOST_OF_ONE, "the rest is told so at once");
        assert!(line.join(ip(2), 1000) && line.join(ip(2), 1001));
        let order: Vec<_> =
            std::iter::from_fn(|| line.next()).map(|(from, job)| (from == ip(2), job)).collect();
        assert_eq!(order[..5], [(false, 0), (true, 1000), (false, 1), (true, 1001), (false, 2)]);
        assert_eq!((order.len(), line.count, line.waiting.len()), (MOST_OF_ONE + 2, 0, 0));
    }

    #[test]
    fn where_all_is_full_whoever_has_the_most_gives_way() {
        let mut line = Line::new();
        let full = MOST / MOST_OF_ONE;
        for from in 0..full {
            assert!((0..MOST_OF_ONE).all(|job| line.join(ip(from as u8), job)));
        }
        assert!((0..5).all(|job| line.join(ip(100), job)));
        assert_eq!(line.count, MOST);
        let waits = |line: &Line<usize>, from| line.waiting.get(&ip(from)).map_or(0, VecDeque::len);
        assert_eq!(waits(&line, 100), 5);
        assert!((0..full as u8).all(|from| waits(&line, from) >= MOST_OF_ONE - 1), "each gave one");
    }
}
