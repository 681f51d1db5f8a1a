//! Making connections.
//!
//! Each member has a dialer: it connects, shakes hands, runs the link to its end and starts over, with
//! pauses that grow while it fails. A link that had lived well is replaced at once, because the next attempt
//! also tells whether the peer's process is still there. A bootstrap's probe is the same first half.

use super::certificate::Insecure;
use super::config::TcpConfig;
use super::handshake::{ReadError, Stream, authentic, check_welcome};
use super::link::End;
use super::secure::problem;
use super::shared::{Answer, Origin, Shared, Target};
use super::socket::{ReadHalf, Socket, WriteHalf};
use crate::error::in_full;
use crate::wire::{CloseReason, Hello, Incoming, Purpose, Refused, RefusedReason, Welcome, WireError};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout};

/// How many addresses of one name are tried. 8: a name with more is not one node's.
const ADDRESSES: usize = 8;

pub(super) type TcpHalves = Stream<ReadHalf, WriteHalf>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("cannot resolve the address: {0}")]
    Resolve(io::Error),
    /// Every address of the name refused.
    #[error("the connection was refused: nothing listens there")]
    Nobody,
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    #[error("no answer within {0:?}")]
    HandshakeTimeout(Duration),
    #[error("the connection ended before an answer: {0}")]
    Cut(String),
    /// The other end says that this end is wrong.
    #[error("turned away: {0}")]
    TurnedAway(String),
    #[error("something else than a node answered: {0}")]
    Protocol(WireError),
    #[error("refused: {}", .0.text)]
    Refused(Refused),
    /// One of the two ends does not believe the other's certificate.
    #[error("the connection is not secure: {0}")]
    Insecure(String),
    /// The answer is not from whom it should be. Boxed, like few are, for its size.
    #[error("{text}")]
    Unfit { reason: RefusedReason, text: String, welcome: Box<Welcome> },
}

/// Keeps a link to a member, for as long as it is one.
pub(super) async fn keep(shared: Arc<Shared>, target: Arc<Target>) {
    let mut backoff = Backoff::new(shared.config.backoff_min, shared.config.backoff_max);
    let over = || target.unneeded.load(Ordering::Relaxed) || shared.closing.load(Ordering::Relaxed);
    let mut cluster = shared.cluster.subscribe();
    for pass in 0u64.. {
        tokio::select! {
            joined = cluster.wait_for(Option::is_some) => if joined.is_err() { return },
            () = target.wake.notified() => backoff.reset(),
        }
        if over() {
            return;
        }
        if shared.local().cluster.is_none() {
            continue;
        }
        if let Some((lived, cut)) = try_all(&shared, &target, pass).await
            && lived >= shared.config.backoff_max
        {
            backoff.reset();
            if cut {
                continue;
            }
        }
        if over() {
            return;
        }
        tokio::select! {
            () = sleep(backoff.next()) => {}
            // There is news of it. What comes first may tell nothing: a process that is just ending cuts a connection that it
            // no longer takes, and only the next attempt finds that nobody is there.
            () = target.wake.notified() => backoff.reset(),
        }
    }
}

/// Looks for a member wherever it may be, and runs the link to it, if there is one: for how long it lived, and whether it
/// was cut.
async fn try_all(shared: &Shared, target: &Target, pass: u64) -> Option<(Duration, bool)> {
    let addresses = shared.addresses(target);
    let last_met = addresses.first().cloned();
    let mut turns = addresses;
    // Where it was found does not always come before what the membership says.
    if pass % 2 == 1 && turns.len() > 1 {
        turns.swap(0, 1);
    }
    for address in turns {
        let lived = attempt(shared, target, &address, last_met.as_ref() == Some(&address)).await;
        if lived.is_some() || target.unneeded.load(Ordering::Relaxed) {
            return lived;
        }
    }
    None
}

/// Dials once and runs the link, if there is one. `last_met`: whether this is where the member was met last, so that
/// whoever answers there, or that nobody does, says something of it.
async fn attempt(
    shared: &Shared,
    target: &Target,
    address: &str,
    last_met: bool,
) -> Option<(Duration, bool)> {
    let peer = target.peer;
    let (local, facts) = shared.facts(peer.id);
    let hello = Hello { facts, to: peer.id, to_incarnation: Some(peer.incarnation), purpose: Purpose::Raft };
    let (mut stream, welcome) = match dial(shared, address, &hello).await {
        Ok(answer) => answer,
        Err(error) => {
            complain(shared, target, address, last_met, &error);
            match error {
                _ if !last_met => {}
                DialError::Nobody => shared.answered(peer, Answer::Nobody).await,
                DialError::Refused(refused) => {
                    shared.answered(peer, Answer::Someone(refused.from, refused.boot)).await;
                }
                DialError::Unfit { welcome, .. } => {
                    let Welcome { facts } = *welcome;
                    shared.answered(peer, Answer::Someone(facts.from, facts.boot)).await;
                }
                _ => {}
            }
            return None;
        }
    };
    shared.quiet.forget(address);
    shared.found(target, (welcome.facts.from, welcome.facts.boot), address);
    shared.answered(peer, Answer::Someone(welcome.facts.from, welcome.facts.boot)).await;
    let (cluster, encrypted) = (local.cluster?, stream.certificate.is_some());
    if let Some(shown) = &stream.certificate {
        shared.has_shown(peer, shown.mark);
    }
    let registered = shared.register(&welcome.facts, cluster, encrypted, Origin::Dialed(target));
    let (link, alarm) = match registered {
        Ok((link, alarm)) => (Some(link), alarm),
        Err(unwelcome) => (None, unwelcome.alarm),
    };
    if let Some(alarm) = alarm {
        shared.alarm(alarm).await;
    }
    let link = link?;
    stream.established(shared.config.max_frame);
    let start = Instant::now();
    let end = link.run(shared, stream).await;
    tracing::debug!(address, peer = %peer.id, ?end, "a dialed connection ended");
    if let End::Protocol(error) = &end {
        shared.quiet.warn(address, "protocol", error);
    }
    shared.unregister(&link, &end).await;
    Some((start.elapsed(), matches!(end, End::Cut | End::Silent)))
}

/// Connects and shakes hands.
pub(super) async fn dial(
    shared: &Shared,
    address: &str,
    hello: &Hello,
) -> Result<(TcpHalves, Welcome), DialError> {
    shared.counters.dials.fetch_add(1, Ordering::Relaxed);
    knock(address, &shared.config, hello).await
}

/// The same for whoever is no node.
pub(super) async fn knock(
    address: &str,
    config: &TcpConfig,
    hello: &Hello,
) -> Result<(TcpHalves, Welcome), DialError> {
    let mut stream = Stream::of(secured(address, config).await?);
    let limit = config.handshake_timeout;
    let answer = timeout(limit, async {
        stream.send(&hello.encode()).await?;
        stream.reader.receive().await
    });
    match answer.await {
        Err(_) => Err(DialError::HandshakeTimeout(limit)),
        Ok(Ok(Incoming::Welcome(welcome))) => {
            // Whoever answers is a node, whatever it is asked for.
            let (shown, from) = (stream.certificate.as_ref(), welcome.facts.from.id);
            let authentic = authentic(config, shown, from, Purpose::Raft);
            match authentic.and_then(|()| check_welcome(config, hello, &welcome)) {
                Ok(()) => Ok((stream, welcome)),
                Err((reason, text)) => Err(DialError::Unfit { reason, text, welcome: Box::new(welcome) }),
            }
        }
        Ok(Ok(Incoming::Refused(refused))) => Err(DialError::Refused(refused)),
        Ok(Ok(Incoming::Close(close))) if close.reason == CloseReason::Protocol => {
            Err(DialError::TurnedAway(close.text))
        }
        Ok(Ok(Incoming::Close(close))) => Err(DialError::Cut(close.text)),
        Ok(Ok(_)) => Err(DialError::Protocol(WireError::Invalid("no answer to a Hello"))),
        Ok(Err(ReadError::Wire(error))) => Err(DialError::Protocol(error)),
        // The other end judges the certificate after this end has believed that it was done.
        Ok(Err(ReadError::Io(error))) => match problem(error) {
            Insecure::Plain(error) => Err(DialError::Cut(in_full(&error))),
            Insecure::Refused(text) => Err(DialError::Insecure(text)),
        },
        Ok(Err(error)) => Err(DialError::Cut(in_full(&error))),
    }
}

/// A connection that is as secure as it has to be. Where plain ones will do, one is made if the other end does not speak TLS,
/// and never if the two did not believe each other.
async fn secured(address: &str, config: &TcpConfig) -> Result<Socket, DialError> {
    if let Some(network) = &config.network {
        return match network.connect(address) {
            Ok(stream) => Ok(Socket::Memory(stream)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Err(DialError::Nobody),
            Err(error) => Err(DialError::Connect(error)),
        };
    }
    let limit = config.connect_timeout;
    let stream = connect(address, limit).await?;
    let Some(tls) = &config.tls else { return Ok(Socket::Plain(stream)) };
    let limit = config.handshake_timeout;
    match timeout(limit, tls.connect(stream)).await {
        Err(_) => Err(DialError::HandshakeTimeout(limit)),
        Ok(Ok((stream, name))) => Ok(Socket::Encrypted(stream, name)),
        Ok(Err(Insecure::Plain(_))) if !tls.is_required() => {
            connect(address, config.connect_timeout).await.map(Socket::Plain)
        }
        Ok(Err(Insecure::Plain(error))) => Err(DialError::Cut(in_full(&error))),
        Ok(Err(Insecure::Refused(text))) => Err(DialError::Insecure(text)),
    }
}

/// Connects to the first address of a name that takes the connection. Names are resolved anew each time: a
/// peer may have moved.
async fn connect(address: &str, limit: Duration) -> Result<TcpStream, DialError> {
    let addresses: Vec<SocketAddr> = match timeout(limit, lookup_host(address)).await {
        Ok(Ok(addresses)) => addresses.take(ADDRESSES).collect(),
        Ok(Err(error)) => return Err(DialError::Resolve(error)),
        Err(_) => return Err(DialError::Resolve(io::ErrorKind::TimedOut.into())),
    };
    let mut last = DialError::Resolve(io::ErrorKind::NotFound.into());
    let mut nobody = true;
    for address in addresses {
        last = match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // It only delays small writes where it fails.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                if nobody {
                    DialError::Nobody
                } else {
                    DialError::Connect(error)
                }
            }
            Ok(Err(error)) => DialError::Connect(error),
            Err(_) => DialError::ConnectTimeout(limit),
        };
        nobody = matches!(last, DialError::Nobody);
    }
    Err(last)
}

/// Warns of what will not pass by itself: a wrong peer, cluster or version. That a peer is not there is
/// everyday life.
fn complain(shared: &Shared, target: &Target, address: &str, last_met: bool, error: &DialError) {
    let kind = match error {
        DialError::Refused(Refused { reason: RefusedReason::Busy | RefusedReason::Blank, .. }) => None,
        DialError::Refused(refused) => Some(refused.reason.to_string()),
        DialError::Unfit { reason, .. } => Some(reason.to_string()),
        DialError::Protocol(_) | DialError::TurnedAway(_) => Some("protocol".to_owned()),
        DialError::Resolve(_) => Some("resolve".to_owned()),
        DialError::Insecure(_) => Some("certificate".to_owned()),
        _ => None,
    };
    match kind {
        Some(kind) if last_met => shared.quiet.warn(
            address,
            &kind,
            &format_args!("cannot talk to node {}: {error}", target.peer.id),
        ),
        _ => tracing::debug!(address, peer = %target.peer.id, %error, "cannot connect"),
    }
}

/// Growing pauses with jitter, so that nodes which lost the same peer do not come back in step.
struct Backoff {
    min: Duration,
    max: Duration,
    now: Duration,
}

impl Backoff {
    fn new(min: Duration, max: Duration) -> Backoff {
        Backoff { min, max, now: min }
    }

    fn reset(&mut self) {
        self.now = self.min;
    }

    /// A random pause between half of the present one and all of it; the next is up to twice as long.
    fn next(&mut self) -> Duration {
        let part = getrandom::u32().unwrap_or(u32::MAX / 2);
        let pause = self.now / 2 + (self.now / 2).mul_f64(f64::from(part) / f64::from(u32::MAX));
        self.now = (self.now * 2).min(self.max);
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_limit_and_start_over() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(20), ms(100));
        for (low, high) in [(10, 20), (20, 40), (40, 80), (50, 100), (50, 100)] {
            let pause = backoff.next();
            assert!((ms(low)..=ms(high)).contains(&pause), "{pause:?}");
        }
        backoff.reset();
        assert!(backoff.next() <= ms(20));
    }
}
