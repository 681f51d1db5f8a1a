//! A node and its client port, from start to stop.
//!
//! Everything but the log's writer runs on one thread: the tasks of a server wait far more than they
//! compute, and what shares a thread needs no locks and no hops. The accept loop has to outlive trouble: a
//! process without free file descriptors waits and goes on, and a connection that fails takes nothing with
//! it. The server ends in two ways: it is asked to (then what is under way is finished first), or its node
//! stops by itself, for example because a sync failed.

use crate::access::Rules;
use crate::accounts::{Account, Accounts};
use crate::admission;
use crate::backups;
use crate::budget::Budget;
use crate::client;
use crate::connection::{Client, FULL, Limits, Newcomer, Place, Shared};
use crate::descriptors::{Plan, Wanted};
use crate::door::{self, ClientTls, Door};
use crate::figures::Figures;
use crate::gate::Gate;
use crate::guests::Guests;
use crate::joining::{self, Join};
use crate::kv::Machine;
use crate::monitor::{self, Monitor, Refused};
use crate::renewal;
use crate::roster::Roster;
use crate::session::About;
use crate::supervised;

use coracle::{Config, MachineThread, Node, StartError, StopReason, Storage, TlsMode, in_full};
use sd_notify::NotifyState;
use std::future::Future;
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
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

/// The largest batch of operations, encoded, in bytes: one command and one turn of a connection (10 MiB and
/// 64 KiB), with as much again for the lengths of a great many short strings.
const MAX_BATCH: usize = 2 * crate::resp::MAX_COMMAND;

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
    /// Where whoever looks at it by HTTP reaches it, if anywhere.
    pub admin_addr: Option<String>,
    /// How long a client's request may take, waiting for a leader included.
    pub timeout: Duration,
    /// What clients may cost.
    pub limits: Limits,
    /// Whom to join.
    pub join: Join,
    /// Which of the clients' connections are encrypted, if any; and the node's own to the clients' ports of others.
    pub client_tls: Option<ClientTls>,
    /// Where the machine publishes its users.
    pub roster: Roster,
    /// Where it publishes how many keys it has.
    pub figures: Figures,
    /// Whether clients on other computers are served while there are no users, whoever they are.
    pub open_without_users: bool,
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
    /// Who may have how many descriptors.
    pub plan: Plan,
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
    /// Nor can the admin address.
    #[error("cannot listen on the admin address {address}")]
    Admin {
        /// The address asked for.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// Too few files may be open.
    #[error("{0}")]
    Descriptors(String),
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
    let plan = share_out(&options)?;
    // The port first: finding it taken is cheaper than opening the log in vain.
    let unusable = |source| ServeError::Listen { address: options.client_addr.clone(), source };
    let listener = TcpListener::bind(&options.client_addr).await.map_err(unusable)?;
    let clients = listener.local_addr().map_err(unusable)?;
    let admin = admin_port(options.admin_addr.as_deref()).await?;
    let durable = !matches!(options.config.storage, Storage::Memory);
    let mut config = options.config;
    (config.max_peer_sockets, config.max_clients) = (plan.peers, plan.library);
    if let Some(ClientTls { tls, plain, .. }) = options.client_tls.clone() {
        client::encrypt(plain, move || tls.dialer());
    }
    let certified = options.client_tls.as_ref().is_some_and(|rules| rules.certified);
    tokio::pin!(shutdown);
    if config.id.0 == 0 && !name(&mut config, &options.join, &mut shutdown).await? {
        return Ok(());
    }
    let id = config.id.0;
    adjust(&mut config, clients);
    let tls = config.tls.clone();
    let node = Node::start(config, machine).await?;
    let peers = node.peer_addr();
    let secure = tls.as_ref().is_some_and(|tls| tls.mode() == TlsMode::Require);
    say_who_gets_in(clients, certified, options.open_without_users);
    exposure("peers", peers).filter(|_| !secure).iter().for_each(|warning| tracing::warn!("{warning}"));
    ready(Ready { id, clients, peers, plan });
    supervised::tell(NotifyState::Ready);
    if !options.join.to.is_empty() {
        joining::start(options.join.clone(), node.clone());
    }
    let (stop, stopping) = watch::channel(false);
    let limits = Limits { clients: plan.clients, ..options.limits };
    let all = Arc::new(Account::new(limits.clients, limits.commands, limits.replies));
    let open = options.open_without_users || certified;
    let rules = Rules { roster: options.roster, token: options.join.token, open, ..Rules::default() };
    let about = About::new(id, durable, clients.port(), all);
    let about = About { figures: options.figures, max_memory: limits.memory.unwrap_or(0).into(), ..about };
    let shared = share(&node, options.timeout, limits, rules, about, stopping);
    let door = options.client_tls.map(|rules| Arc::new(Door::new(rules)));
    let mut connections = JoinSet::new();
    let stopped = tokio::select! {
        () = &mut shutdown => None,
        reason = node.stopped() => Some(reason),
        never = renewal::watch(tls) => match never {},
        never = supervised::attend(&node, &shared.about) => match never {},
        never = monitored(admin.as_ref(), &shared) => match never {},
        never = accept(&listener, door.as_ref(), &shared, &mut connections) => match never {},
    };

    // Nobody new; those under way finish, while the node still runs.
    supervised::tell(NotifyState::Stopping);
    drop(listener);
    stop.send_replace(true);
    shared.about.clients.wake_all();
    drain(connections, options.timeout + DRAIN).await;
    node.stop().await;
    stopped.map_or(Ok(()), |reason| Err(ServeError::Stopped(reason)))
}

/// What all connections of a server share.
fn share<M: Machine>(
    node: &Node<M>,
    timeout: Duration,
    limits: Limits,
    rules: Rules,
    about: About,
    stopping: watch::Receiver<bool>,
) -> Arc<Shared<M>> {
    Arc::new(Shared {
        node: node.clone(),
        timeout,
        accounts: Accounts::new(about.all.clone(), limits.per_address()),
        limits,
        rules: Arc::new(rules),
        about: Arc::new(about),
        backups: Budget::new(backups::MOST),
        gate: Gate::default(),
        stopping,
    })
}

/// Finds out who the node is. False: it was told to stop before that.
async fn name(
    config: &mut Config,
    join: &Join,
    shutdown: &mut (impl Future<Output = ()> + Unpin),
) -> Result<bool, ServeError> {
    let named = admission::start(config, join).map_err(ServeError::Nameless)?;
    let name = tokio::select! {
        () = shutdown => return Ok(false),
        name = named => name.unwrap_or_else(|_| Err("whoever asked for it ended".to_owned())),
    };
    let name = name.map_err(ServeError::Nameless)?;
    (config.id, config.incarnation) = (name.id, name.incarnation);
    Ok(true)
}

/// Listens on the admin address, if there is one.
async fn admin_port(address: Option<&str>) -> Result<Option<TcpListener>, ServeError> {
    let Some(address) = address else { return Ok(None) };
    let unusable = |source| ServeError::Admin { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(unusable)?;
    if let Some(warning) =
        exposure("whoever asks how the node stands", listener.local_addr().map_err(unusable)?)
    {
        tracing::warn!("{warning}");
    }
    Ok(Some(listener))
}

/// Answers there, for ever.
async fn monitored<M: Machine>(
    listener: Option<&TcpListener>,
    shared: &Shared<M>,
) -> std::convert::Infallible {
    match listener {
        Some(listener) => monitor::serve(listener, &Monitor::new(&shared.node, shared.about.clone())).await,
        None => std::future::pending().await,
    }
}

/// Who may have how many descriptors.
fn share_out(options: &Options) -> Result<Plan, ServeError> {
    let wanted = Wanted {
        peers: options.config.max_peer_sockets,
        library: options.config.max_clients,
        clients: options.limits.clients,
    };
    let plan = wanted.plan().map_err(ServeError::Descriptors)?;
    if plan.clients < wanted.clients {
        let Plan { clients, .. } = plan;
        tracing::warn!("at most {clients} clients are taken: {plan}; raise `ulimit -n` for more");
    }
    Ok(plan)
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

/// A place for one who comes from there.
fn place(from: IpAddr, accounts: &Accounts, guests: &Arc<Guests>) -> Option<Place> {
    let client = Client::enter(accounts.of_address(from)).map(Place::Client);
    client.or_else(|| guests.enter(from).map(Place::Guest))
}

/// Accepts connections for ever.
async fn accept<M: Machine>(
    listener: &TcpListener,
    door: Option<&Arc<Door>>,
    shared: &Arc<Shared<M>>,
    connections: &mut JoinSet<()>,
) -> std::convert::Infallible {
    let (mut last_id, guests) = (0, Arc::default());
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
                    if let Some(place) = place(from.ip(), &shared.accounts, &guests) {
                        last_id += 1;
                        prepare(&stream);
                        let newcomer = Newcomer { id: last_id, from, shown: None, place };
                        connections.spawn(door::serve(door.cloned(), stream, newcomer, shared.clone()));
                    } else {
                        shared.about.served.refuse(Refused::Connection);
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
        let _ = stream.write(format!("-{FULL}\r\n").as_bytes());
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

/// Says whom the clients' port takes while there are no users.
fn say_who_gets_in(clients: SocketAddr, certified: bool, open: bool) {
    match exposure("clients", clients) {
        None => tracing::info!("{clients} takes clients from this computer alone"),
        Some(_) if certified => {
            tracing::info!(
                "{clients} takes clients with a certificate of the cluster; while there are no users they may do everything"
            );
        }
        Some(warning) if open => tracing::warn!("while there are no users, {warning}"),
        Some(_) => tracing::warn!(
            "protected mode: while there are no users, {clients} takes clients from this computer alone, and from others only \
             those that show a certificate or the join token; --open-without-users would take all"
        ),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kv::Kv;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, BufStream};

    /// As an encrypted one may where its socket takes no more: what is not flushed is never seen.
    #[tokio::test]
    async fn a_connection_that_keeps_what_is_written_until_it_is_flushed_sends_each_reply() {
        let config = Config::new(1, "127.0.0.1:0", Storage::Memory);
        let node = Node::start(config, Kv::new()).await.unwrap();
        let (limits, all) = (Limits::default(), Arc::new(Account::new(10, 1 << 20, 1 << 20)));
        let from: SocketAddr = "127.0.0.1:1".parse().unwrap();
        let (_stop, stopping) = watch::channel(false);
        let about = About::new(1, false, 1, all);
        let shared = share(&node, Duration::from_secs(5), limits, Rules::default(), about, stopping);
        let place = place(from.ip(), &shared.accounts, &Arc::default()).unwrap();
        let (here, mut there) = tokio::io::duplex(1 << 16);
        let newcomer = Newcomer { id: 1, from, shown: None, place };
        let served = tokio::spawn(crate::connection::serve(BufStream::new(here), newcomer, shared));
        for _ in 0..3 {
            there.write_all(b"PING\r\n").await.unwrap();
            let mut reply = [0; 7];
            timeout(Duration::from_secs(60), there.read_exact(&mut reply)).await.unwrap().unwrap();
            assert_eq!(&reply, b"+PONG\r\n");
        }
        drop(there);
        served.await.unwrap();
        node.stop().await;
    }

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
