//! Who is connected: for CLIENT LIST, and for CLIENT KILL.

use crate::commands::COMMANDS;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::Notify;

/// In the place of a command's: it has asked for none yet.
const NOTHING: usize = usize::MAX;

/// All connections of the clients' port.
#[derive(Default, Debug)]
pub struct Clients(Mutex<BTreeMap<u64, Arc<Client>>>);

/// One of them.
#[derive(Debug)]
pub struct Client {
    /// Its number.
    pub id: u64,
    /// Where it comes from.
    pub from: SocketAddr,
    since: Instant,
    seen: Mutex<Seen>,
    /// What it asked for last, as a place in the list of commands, and in which database.
    command: AtomicUsize,
    database: AtomicU8,
    /// When, in seconds of the clock that costs the least.
    asked: AtomicU64,
    killed: AtomicBool,
    /// Told when it is to end, since it was killed or the server stops. Whoever is told once is told once for all.
    pub(crate) woken: Notify,
}

/// What it says of itself.
#[derive(Clone, Debug)]
struct Seen {
    name: Arc<[u8]>,
    user: Arc<str>,
}

/// Its place among the others, until it is dropped.
#[derive(Debug)]
pub(crate) struct Listed {
    all: Arc<Clients>,
    client: Arc<Client>,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.all.locked().remove(&self.client.id);
    }
}

impl std::ops::Deref for Listed {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

/// Whom to end.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    pub(crate) id: Option<u64>,
    pub(crate) from: Option<SocketAddr>,
    pub(crate) user: Option<String>,
    /// All but this one.
    pub(crate) but: Option<u64>,
}

impl Clients {
    /// Lists one who comes.
    pub(crate) fn enter(self: &Arc<Clients>, id: u64, from: SocketAddr) -> Listed {
        let since = Instant::now();
        let (name, user) = (Arc::from([]), Arc::from("default"));
        let client = Arc::new(Client {
            id,
            from,
            since,
            seen: Mutex::new(Seen { name, user }),
            command: AtomicUsize::new(NOTHING),
            database: AtomicU8::new(0),
            asked: AtomicU64::new(seconds()),
            killed: AtomicBool::new(false),
            woken: Notify::new(),
        });
        self.locked().insert(id, client.clone());
        Listed { all: self.clone(), client }
    }

    /// A line about each, in the order in which they came.
    pub(crate) fn lines(&self) -> String {
        let clients: Vec<_> = self.locked().values().cloned().collect();
        clients.iter().map(|client| client.line() + "\n").collect()
    }

    /// Ends those who are wanted, after what they have under way. How many they are.
    pub(crate) fn kill(&self, wanted: &Wanted) -> usize {
        let clients = self.locked();
        let chosen = clients.values().filter(|client| client.is(wanted));
        let kill = |client: &&Arc<Client>| {
            client.killed.store(true, Ordering::Relaxed);
            client.woken.notify_one();
        };
        chosen.inspect(kill).count()
    }

    /// Tells all of them that the server stops.
    pub(crate) fn wake_all(&self) {
        self.locked().values().for_each(|client| client.woken.notify_one());
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Client {
    /// A line about it, as redis's CLIENT LIST has them.
    pub(crate) fn line(&self) -> String {
        let Seen { name, user } = self.seen().clone();
        let name = String::from_utf8_lossy(&name).into_owned();
        let command = match self.command.load(Ordering::Relaxed) {
            NOTHING => "NULL",
            place => COMMANDS.get(place).map_or("unknown", |known| known.name),
        };
        format!(
            "id={} addr={} name={name} age={} idle={} flags=N db={} cmd={command} user={user}",
            self.id,
            self.from,
            self.since.elapsed().as_secs(),
            seconds().saturating_sub(self.asked.load(Ordering::Relaxed)),
            self.database.load(Ordering::Relaxed),
        )
    }

    /// It asked for the command at this place of the list, or for none that is there, just now and in this database.
    pub(crate) fn asked(&self, place: Option<usize>, database: u8) {
        self.command.store(place.unwrap_or(COMMANDS.len()), Ordering::Relaxed);
        self.database.store(database, Ordering::Relaxed);
        self.asked.store(seconds(), Ordering::Relaxed);
    }

    /// Whether it is to end at once, whatever it waits for.
    pub(crate) fn is_killed(&self) -> bool {
        self.killed.load(Ordering::Relaxed)
    }

    /// It is called so.
    pub(crate) fn named(&self, name: &[u8]) {
        self.seen().name = name.into();
    }

    /// It is this user.
    pub(crate) fn is_user(&self, user: &str) {
        self.seen().user = user.into();
    }

    fn is(&self, wanted: &Wanted) -> bool {
        let Wanted { id, from, user, but } = wanted;
        id.is_none_or(|id| id == self.id)
            && from.is_none_or(|from| from == self.from)
            && user.as_ref().is_none_or(|user| **user == *self.seen().user)
            && *but != Some(self.id)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A clock that is asked with every command, and shown in seconds.
fn seconds() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    u64::try_from(now.tv_sec).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands;

    #[test]
    fn who_is_here_is_listed_and_who_is_wanted_is_told() {
        let all = Arc::new(Clients::default());
        let first = all.enter(1, "127.0.0.1:1000".parse().unwrap());
        let second = all.enter(2, "[::1]:1000".parse().unwrap());
        second.named(b"me");
        second.is_user("ann");
        second.asked(commands::place(b"GET"), 3);
        let lines = all.lines();
        let lines: Vec<_> = lines.lines().collect();
        assert!(
            lines[0].starts_with(
                "id=1 addr=127.0.0.1:1000 name= age=0 idle=0 flags=N db=0 cmd=NULL user=default"
            )
        );
        assert!(
            lines[1].starts_with("id=2 addr=[::1]:1000 name=me age=0 idle=0 flags=N db=3 cmd=get user=ann")
        );
        let kill = |wanted: Wanted| all.kill(&wanted);
        assert_eq!(kill(Wanted { id: Some(3), ..Wanted::default() }), 0);
        assert_eq!(kill(Wanted { user: Some("ann".into()), ..Wanted::default() }), 1);
        assert_eq!(kill(Wanted { from: Some(first.from), ..Wanted::default() }), 1);
        assert_eq!(kill(Wanted { but: Some(1), ..Wanted::default() }), 1);
        drop(first);
        assert_eq!(all.lines().lines().count(), 1);
        drop(second);
        assert_eq!(all.lines(), "");
    }
}
