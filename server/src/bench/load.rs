//! Clients that ask a server as fast as it answers, and what they saw.
//!
//! The load is closed: each client has one request under way and sends the next when the answer is there.
//! Clients share connections evenly; those of one connection are a pipeline. What is answered within the
//! time of measuring is counted, after a warm-up that is not. Whatever is not an answer is an error with a
//! kind: the first word of an error reply, or what became of the connection. What is still under way at
//! the end is told too, since a server that hangs would otherwise look fast.

use super::latency::Latencies;
use crate::client;
use crate::cluster;
use crate::resp::Replies;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::rc::Rc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;
use tokio::time::{sleep, timeout, timeout_at};

/// How long connecting may take, and an answer: longer than a server takes to say that it has no leader.
const LIMIT: Duration = Duration::from_secs(5);

/// The pause after an error reply, so that refusals do not crowd out work.
const AFTER_ERROR: Duration = Duration::from_millis(1);

/// The pause before a lost connection is made anew.
const RECONNECT: Duration = Duration::from_millis(20);

/// How many keys are in play unless told otherwise: enough to be no single place, few enough to cost a server little memory.
pub const KEYS: u64 = 10_000;

/// How much is read at once, in bytes.
const READ: usize = 64 << 10;

/// What to ask, of whom, and for how long.
#[derive(Clone, Debug)]
pub struct Load {
    /// Client addresses of nodes of one cluster. With several, the one that leads is asked, and who leads
    /// is found out again after a lost connection; with one, that node passes writes on.
    pub addresses: Vec<String>,
    /// Requests under way at once.
    pub clients: usize,
    /// Connections that they share; no more than clients.
    pub connections: usize,
    /// The length of a value, in bytes.
    pub value_size: usize,
    /// How many keys are in play.
    pub keys: u64,
    /// How many of a hundred requests are GETs; the others are SETs.
    pub reads: u8,
    /// The time before measuring.
    pub warm_up: Duration,
    /// The time of measuring.
    pub duration: Duration,
}

/// What the clients saw while it was measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How long it was measured.
    pub elapsed: Duration,
    /// The SETs that were answered.
    pub writes: Latencies,
    /// The GETs that were answered.
    pub reads: Latencies,
    /// Requests that failed, and connections that could not be made, by kind.
    pub errors: BTreeMap<String, u64>,
    /// Requests without an answer when the time was over.
    pub under_way: usize,
    /// How long the oldest of these had waited.
    pub oldest_under_way: Duration,
}

impl Outcome {
    /// Requests answered in a second.
    pub fn per_second(&self) -> f64 {
        (self.writes.count() + self.reads.count()) as f64 / self.elapsed.as_secs_f64()
    }

    /// How many errors there were.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Adds what another run of the same load saw.
    pub fn add(&mut self, other: &Outcome) {
        self.elapsed += other.elapsed;
        self.writes.add(&other.writes);
        self.reads.add(&other.reads);
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_default() += count;
        }
        self.under_way += other.under_way;
        self.oldest_under_way = self.oldest_under_way.max(other.oldest_under_way);
    }
}

/// Asks. Fails if nobody can be reached at all; errors after that are part of the outcome.
pub async fn run(load: &Load) -> Result<Outcome, String> {
    // The first connection is the question whether anybody is there.
    let address = choose(&load.addresses).await?;
    drop(connect(&address).await.map_err(|error| format!("{address} does not answer: {error}"))?);

    let start = Instant::now() + load.warm_up;
    let end = start + load.duration;
    let seen = Rc::new(RefCell::new(Seen {
        start,
        end,
        writes: Latencies::default(),
        reads: Latencies::default(),
        errors: BTreeMap::new(),
        under_way: vec![VecDeque::new(); load.connections],
    }));
    let local = LocalSet::new();
    for number in 0..load.connections {
        let clients = load.clients / load.connections + usize::from(number < load.clients % load.connections);
        let (load, seen) = (load.clone(), seen.clone());
        local.spawn_local(Connection { number, clients, load, seen, dice: number as u64 + 1 }.run());
    }
    // The tasks never end by themselves; what they hold is dropped with them.
    drop(timeout_at(end.into(), local.run_until(std::future::pending::<()>())).await);
    drop(local);

    let mut seen = seen.borrow_mut();
    let waiting = seen.under_way.iter().flatten();
    let oldest = waiting.clone().map(|request| end.saturating_duration_since(request.sent)).max();
    Ok(Outcome {
        elapsed: load.duration,
        under_way: waiting.count(),
        oldest_under_way: oldest.unwrap_or_default(),
        writes: std::mem::take(&mut seen.writes),
        reads: std::mem::take(&mut seen.reads),
        errors: std::mem::take(&mut seen.errors),
    })
}

/// The address of the node that leads, as far as one of them knows.
async fn choose(addresses: &[String]) -> Result<String, String> {
    if let [only] = addresses {
        return Ok(only.clone());
    }
    let mut trouble = Vec::new();
    for address in addresses {
        let asked = address.clone();
        let report = tokio::task::spawn_blocking(move || cluster::report(&asked, LIMIT)).await;
        match report.map_err(|error| error.to_string()).flatten() {
            Ok(report) if report.leader == Some(report.id) => return Ok(address.clone()),
            Ok(report) => trouble.push(format!("{address} is a {}", report.role)),
            Err(error) => trouble.push(format!("{address}: {error}")),
        }
    }
    Err(format!("none of the addresses is a leader's: {}", trouble.join("; ")))
}

/// A connection, plain or encrypted.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

async fn connect(address: &str) -> io::Result<Box<dyn Stream>> {
    let stream = timeout(LIMIT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Stream> = match client::dialer() {
        Some(dialer) => Box::new(timeout(LIMIT, dialer.connect_async(stream)).await??.0),
        None => Box::new(stream),
    };
    let token = client::token_words();
    if !token.is_empty() {
        // Where it is the wrong one, or none is known, what is asked for is refused, and says so.
        let words = [&[&b"CORACLE"[..]][..], &token].concat();
        let _ = timeout(LIMIT, introduce(&mut stream, &words)).await?;
    }
    if let Some((user, password)) = client::login() {
        let words = [b"AUTH", user.as_bytes(), password.expose()];
        timeout(LIMIT, introduce(&mut stream, &words)).await??;
    }
    Ok(stream)
}

/// Says as whom it asks.
async fn introduce(stream: &mut Box<dyn Stream>, words: &[&[u8]]) -> io::Result<()> {
    let mut out = Replies::default();
    out.array(words.len());
    words.iter().for_each(|word| out.bulk(word));
    stream.write_all(&out.bytes).await?;
    stream.flush().await?;
    let mut input = Vec::new();
    loop {
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reply(&input)? {
            Some((_, Some(error))) => return Err(io::Error::other(error.to_owned())),
            Some((_, None)) => return Ok(()),
            None => {}
        }
    }
}

/// What all connections note down.
struct Seen {
    start: Instant,
    end: Instant,
    writes: Latencies,
    reads: Latencies,
    errors: BTreeMap<String, u64>,
    /// By connection, in the order of sending.
    under_way: Vec<VecDeque<Request>>,
}

#[derive(Clone, Copy)]
struct Request {
    sent: Instant,
    read: bool,
}

impl Seen {
    fn measuring(&self, now: Instant) -> bool {
        (self.start..self.end).contains(&now)
    }

    fn answered(&mut self, request: Request, now: Instant) {
        if self.measuring(now) {
            let latencies = if request.read { &mut self.reads } else { &mut self.writes };
            latencies.record(now - request.sent);
        }
    }

    fn failed(&mut self, kind: &str, count: usize) {
        if self.measuring(Instant::now()) {
            *self.errors.entry(kind.to_owned()).or_default() += count as u64;
        }
    }
}

/// One connection and its clients.
struct Connection {
    number: usize,
    clients: usize,
    load: Load,
    seen: Rc<RefCell<Seen>>,
    dice: u64,
}

impl Connection {
    async fn run(mut self) {
        loop {
            let result = match choose(&self.load.addresses).await {
                Ok(address) => match connect(&address).await {
                    Ok(stream) => self.converse(stream).await,
                    Err(error) => Err(error),
                },
                Err(_) => Err(io::ErrorKind::NotConnected.into()),
            };
            if let Err(error) = result {
                let mut seen = self.seen.borrow_mut();
                let lost = std::mem::take(&mut seen.under_way[self.number]).len();
                seen.failed(&kind(&error), lost.max(1));
            }
            sleep(RECONNECT).await;
        }
    }

    /// Asks until the connection fails.
    async fn converse(&mut self, mut stream: Box<dyn Stream>) -> io::Result<()> {
        let value: Vec<u8> = (0..self.load.value_size).map(|_| b'a' + (self.roll() % 26) as u8).collect();
        let mut out = Replies::default();
        let mut input = Vec::with_capacity(READ);
        (0..self.clients).for_each(|_| self.ask(&value, Instant::now(), &mut out));
        loop {
            // What the server does not take, it does not answer either: both waits have the limit.
            let sent = async {
                stream.write_all(&out.bytes).await?;
                stream.flush().await
            };
            timeout(LIMIT, sent).await??;
            out.bytes.clear();
            if timeout(LIMIT, stream.read_buf(&mut input)).await?? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let now = Instant::now();
            let (mut used, mut refused) = (0, false);
            while let Some((len, error)) = reply(&input[used..])? {
                let mut seen = self.seen.borrow_mut();
                let request = seen.under_way[self.number].pop_front();
                let request = request.ok_or_else(|| malformed("an answer that nobody asked for"))?;
                match error {
                    None => seen.answered(request, now),
                    Some(text) => {
                        seen.failed(text.split(' ').next().unwrap_or_default(), 1);
                        refused = true;
                    }
                }
                drop(seen);
                used += len;
                self.ask(&value, now, &mut out);
            }
            input.drain(..used);
            if refused {
                sleep(AFTER_ERROR).await;
            }
        }
    }

    /// Adds the next request of a client.
    fn ask(&mut self, value: &[u8], now: Instant, out: &mut Replies) {
        let read = self.roll() % 100 < u64::from(self.load.reads);
        let key = format!("bench:{:08}", self.roll() % self.load.keys);
        // A command has the form of an array of strings, as some replies have.
        out.array(if read { 2 } else { 3 });
        out.bulk(if read { b"GET" } else { b"SET" });
        out.bulk(key.as_bytes());
        if !read {
            out.bulk(value);
        }
        self.seen.borrow_mut().under_way[self.number].push_back(Request { sent: now, read });
    }

    /// Marsaglia's xorshift: the keys need no better dice.
    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice >> 8
    }
}

/// What the connection's end is called among the errors.
fn kind(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "no answer in 5 s".into(),
        io::ErrorKind::NotConnected => "no leader found".into(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => "connection lost".into(),
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        _ => error.to_string(),
    }
}

/// The first reply in the bytes, if it is whole: its length, and its text where it is an error.
fn reply(bytes: &[u8]) -> io::Result<Option<(usize, Option<&str>)>> {
    let Some(end) = bytes.windows(2).position(|pair| pair == b"\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[1..end]).map_err(|_| malformed("a line that is no text"))?;
    let line = end + 2;
    match bytes[0] {
        b'-' => Ok(Some((line, Some(text)))),
        b'+' | b':' | b'_' => Ok(Some((line, None))),
        b'$' => match text.parse::<i64>().map_err(|_| malformed("not a length"))? {
            ..0 => Ok(Some((line, None))),
            len => {
                let whole = usize::try_from(len).ok().and_then(|len| len.checked_add(line + 2));
                let whole = whole.ok_or_else(|| malformed("a length that cannot be"))?;
                Ok((bytes.len() >= whole).then_some((whole, None)))
            }
        },
        _ => Err(malformed("an answer of a kind that was not asked for")),
    }
}

fn malformed(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("malformed: {problem}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_are_found_in_what_has_come_so_far() {
        let stream = b"+OK\r\n$3\r\na\r\n\r\n-BUSY later\r\n$-1\r\n_\r\n:7\r\n";
        let mut at = 0;
        let mut seen = Vec::new();
        while at < stream.len() {
            let (len, error) = reply(&stream[at..]).unwrap().unwrap();
            // Each prefix of it is not whole yet.
            assert!((0..len).all(|cut| reply(&stream[at..at + cut]).unwrap().is_none()), "{at}");
            seen.push((len, error));
            at += len;
        }
        let errors: Vec<_> = seen.iter().filter_map(|(_, error)| *error).collect();
        assert_eq!((seen.len(), errors), (6, vec!["BUSY later"]));
        assert!(reply(b"*1\r\n").is_err());
        assert!(reply(b"$x\r\n").is_err());
        assert!(reply(b"$9223372036854775807\r\n").is_err() || usize::BITS > 63);
    }
}
