//! A node and its client port, from start to stop.
//!
//! Everything but the log's writer runs on one thread: the tasks of a server wait far more than they
//! compute, and what shares a thread needs no locks and no hops. The accept loop has to outlive trouble: a
//! process without free file descriptors waits and goes on, and a connection that fails takes nothing with
//! it. The server ends in two ways: it is asked to (then what is under way is finished first), or its node
//! stops by itself, for example because a sync failed.

use crate::admission;
use crate::backups;
use crate::budget::Budget;
use crate::client;
use crate::connection::{Limits, Shared};
use crate::door::{self, ClientTls, Door};
use crate::joining::{self, Join};
use crate::kv::Machine;
use crate::renewal;
use crate::session::About;
use coracle::{Config, MachineThread, Node, StartError, StopReason, Storage, TlsMode, in_full};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

/// The pause after a failed accept: long enough not to spin, short against a client's patience.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How often a failing accept is logged at most.
const ACCEPT_REPORT: Duration = Duration::from_secs(10);

/// The largest batch of operations, encoded, in bytes: one command and one turn of a connection (8 MiB and
/// 64 KiB), with as much again for the lengths of a great many short strings.
const MAX_BATCH: usize = 2 * crate::resp::MAX_COMMAND;

/// File descriptors that clients cannot have: the log, the peers and the process need them.
const RESERVED_FILES: u64 = 128;

/// What is kept for clients even where file descriptors are so few that nothing can be reserved.
const FEWEST_CLIENTS: usize = 16;

/// Silence after which a client's connection is probed, the interval of probes, and how many may go
/// unanswered: a client that vanished is noticed after 5 to 6 minutes, as in redis.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(300), Duration::from_secs(20), 3);

/// How long connections may take to finish what is under way when the server stops, beside the time
/// limit of requests.
const DRAIN: Duration = Duration::from_secs(1);

/// What to serve, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node: its id, its storage and the address where peers reach it. Id 0: what its directory says, or the cluster
    /// that it joins.
    pub config: Config,
    /// Where clients reach it, as `host:port`; port 0 takes a free one.
    pub client_addr: String,
    /// How long a client's request may take, waiting for a leader included.
    pub timeout: Duration,
    /// What clients may cost.
    pub limits: Limits,
    /// Whom to join.
    pub join: Join,
    /// Which of the clients' connections are encrypted, if any; and the node's own to the clients' ports of others.
    pub client_tls: Option<ClientTls>,
}

/// Where a server can be reached, once it can.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ready {
    /// The node's id.
    pub id: u64,
    /// By clients.
    pub clients: SocketAddr,
    /// By peers.
    pub peers: SocketAddr,
}

/// Why a server did not start, or did not go on.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The client address cannot be listened on.
    #[error("cannot listen for clients on {address}")]
    Listen {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The node was given no id, and none can be found out.
    #[error("this node has no id: {0}")]
    Nameless(String),
    /// The node did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The node stopped by itself.
    #[error("the node stopped: {}", in_full(.0))]
    Stopped(StopReason),
}

/// Serves until `shutdown` resolves. Calls `ready` once clients are accepted.
pub async fn serve<M: Machine>(
    options: Options,
    machine: M,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(Ready),
) -> Result<(), ServeError> {
    // The port first: finding it taken is cheaper than opening the log in vain.
    let unusable = |source| ServeError::Listen { address: options.client_addr.clone(), source };
    let listener = TcpListener::bind(&options.client_addr).await.map_err(unusable)?;
    let clients = listener.local_addr().map_err(unusable)?;
    let durable = !matches!(options.config.storage, Storage::Memory);
    let mut config = options.config;
    if let Some(ClientTls { tls, plain, .. }) = options.client_tls.clone() {
        client::encrypt(plain, move || tls.dialer());
    }
    let certified = options.client_tls.as_ref().is_some_and(|rules| rules.certified);
    tokio::pin!(shutdown);
    if config.id.0 == 0 {
        let named = admission::start(&config, &options.join).map_err(ServeError::Nameless)?;
        let name = tokio::select! {
            () = &mut shutdown => return Ok(()),
            name = named => name.unwrap_or_else(|_| Err("whoever asked for it ended".to_owned())),
        };
        let name = name.map_err(ServeError::Nameless)?;
        (config.id, config.incarnation) = (name.id, name.incarnation);
    }
    let id = config.id.0;
    adjust(&mut config, clients);
    let tls = config.tls.clone();
    let node = Node::start(config, machine).await?;
    let peers = node.peer_addr();
    let secure = tls.as_ref().is_some_and(|tls| tls.mode() == TlsMode::Require);
    warn_of(&[("clients", clients, certified), ("peers", peers, secure)]);
    ready(Ready { id, clients, peers });
    if !options.join.to.is_empty() {
        joining::start(options.join.clone(), node.clone());
    }
    let (stop, stopping) = watch::channel(false);
    let shared = Arc::new(Shared {
        node: node.clone(),
        timeout: options.timeout,
        about: Arc::new(About {
            node: id,
            durable,
            port: clients.port(),
            clients: Budget::new(room_for(options.limits.clients)),
            commands: Budget::new(options.limits.commands),
            replies: Budget::new(options.limits.replies),
        }),
        limits: options.limits,
        token: options.join.token,
        backups: Budget::new(backups::MOST),
        stopping,
    });
    let door = options.client_tls.map(|rules| Arc::new(Door::new(rules)));
    let mut connections = JoinSet::new();
    let stopped = tokio::select! {
        () = &mut shutdown => None,
        reason = node.stopped() => Some(reason),
        never = renewal::watch(tls) => match never {},
        never = accept(&listener, door.as_ref(), &shared, &mut connections) => match never {},
    };

    // Nobody new; those under way finish, while the node still runs.
    drop(listener);
    stop.send_replace(true);
    drain(connections, options.timeout + DRAIN).await;
    node.stop().await;
    stopped.map_or(Ok(()), |reason| Err(ServeError::Stopped(reason)))
}

/// What the server sets by itself, whatever the operator does. Clients are served there.
fn adjust(config: &mut Config, clients: SocketAddr) {
    config.forward = true;
    config.machine_thread = MachineThread::Runtime;
    // Nobody watches through the clients' port.
    config.events_bytes = 0;
    config.max_command_bytes = MAX_BATCH;
    // So that whoever must ask the leader is told where.
    config.metadata = clients.to_string().into_bytes();
}

/// Waits for so long until these have finished, and ends those that have not.
async fn drain(mut connections: JoinSet<()>, limit: Duration) {
    let finish = async { while connections.join_next().await.is_some() {} };
    if timeout(limit, finish).await.is_err() {
        tracing::warn!("{} connections did not finish in time", connections.len());
        connections.shutdown().await;
    }
}

/// Accepts connections for ever.
async fn accept<M: Machine>(
    listener: &TcpListener,
    door: Option<&Arc<Door>>,
    shared: &Arc<Shared<M>>,
    connections: &mut JoinSet<()>,
) -> std::convert::Infallible {
    let mut last_id = 0;
    let mut reported: Option<Instant> = None;
    loop {
        tokio::select! {
            biased;
            // First: a place that became free is given to the next one.
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!("the task of a client connection panicked, which is a bug: {error}");
                }
            }
            accepted = listener.accept() => match accepted {
                Ok((stream, from)) => {
                    let mut place = shared.about.clients.share();
                    if place.set(1) {
                        last_id += 1;
                        prepare(&stream);
                        connections.spawn(door::serve(door.cloned(), stream, from.ip(), last_id, place, shared.clone()));
                    } else {
                        turn_away(stream);
                    }
                }
                Err(error) => {
                    if reported.is_none_or(|at| at.elapsed() >= ACCEPT_REPORT) {
                        tracing::warn!("cannot accept a client, and tries again: {error}");
                        reported = Some(Instant::now());
                    }
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}

/// Says why, if that costs no waiting, and closes.
fn turn_away(stream: TcpStream) {
    // Tokio does not know yet that the socket can be written to; the system does.
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(b"-ERR max number of clients reached\r\n");
    }
}

fn prepare(stream: &TcpStream) {
    use rustix::net::sockopt;
    let (idle, interval, probes) = KEEPALIVE;
    // A connection works without these too.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(stream, true);
    let _ = sockopt::set_tcp_keepidle(stream, idle);
    let _ = sockopt::set_tcp_keepintvl(stream, interval);
    let _ = sockopt::set_tcp_keepcnt(stream, probes);
}

/// Warns of ports that others can reach, unless strangers are kept out of them.
fn warn_of(ports: &[(&str, SocketAddr, bool)]) {
    for (who, address, _) in ports.iter().filter(|(_, _, kept)| !kept) {
        if let Some(warning) = exposure(who, *address) {
            tracing::warn!("{warning}");
        }
    }
}

/// What to say of a port that others than this computer can reach: nobody has to show who he is.
fn exposure(who: &str, address: SocketAddr) -> Option<String> {
    (!address.ip().is_loopback()).then(|| {
        format!(
            "{address} takes {who} from other computers, and trusts whoever reaches it: see that only those can who may"
        )
    })
}

/// Asks the system for as many open files as it allows, and says how many clients they are enough for.
fn room_for(clients: usize) -> usize {
    let limit = getrlimit(Resource::Nofile);
    let wanted = clients as u64 + RESERVED_FILES;
    let mut files = limit.current.unwrap_or(u64::MAX);
    if files < wanted {
        let more = wanted.min(limit.maximum.unwrap_or(u64::MAX));
        if setrlimit(Resource::Nofile, Rlimit { current: Some(more), maximum: limit.maximum }).is_ok() {
            files = more;
        }
    }
    let room = files.saturating_sub(RESERVED_FILES).min(clients as u64) as usize;
    if room < clients {
        tracing::warn!(
            "only {files} files may be open, so at most {} clients are taken; raise `ulimit -n` for more",
            room.max(FEWEST_CLIENTS)
        );
    }
    room.max(FEWEST_CLIENTS).min(clients)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_listens_beyond_loopback_is_warned() {
        for (address, warned) in [
            ("127.0.0.1:1", false),
            ("[::1]:1", false),
            ("0.0.0.0:1", true),
            ("192.0.2.1:1", true),
            ("[::]:1", true),
        ] {
            assert_eq!(exposure("peers", address.parse().unwrap()).is_some(), warned, "{address}");
        }
    }
}
