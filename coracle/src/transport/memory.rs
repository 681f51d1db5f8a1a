//! A network in memory: nodes of one process reach each other without a port, and a test cuts them apart.
//!
//! It stands where sockets stand, below the handshake: [`connect`](MemoryNetwork::connect) and
//! [`Listener`] give byte streams, over which nodes introduce themselves, ping and say goodbye as ever. What two nodes
//! then have to say to each other needs no bytes: each end of a connection has a [`Door`], through which its peer hands
//! it messages as they are. What finds no room there takes the stream, and waits in that.

use super::PeerMessage;
use bytes::{Buf, BufMut, BytesMut};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

/// How many bytes of a direction wait until they are read. 256 KiB: eight reads.
const IN_FLIGHT: usize = 256 << 10;
/// How many connections wait until their listener takes them. 128, as many systems have it.
const BACKLOG: usize = 128;

/// A network within this process, for nodes of one test or one throw-away cluster: see
/// [`Config::network`](crate::Config::network). Clones are the same network; each network is one of its own, so tests do
/// not get in each other's way.
///
/// Addresses are written as for TCP, numbers only (`10.0.0.1:7000`), and take nothing from the system. With port 0 the
/// network chooses. Connections can be [cut](MemoryNetwork::cut). Nothing is delayed, and nothing is lost but with a connection; for
/// networks that do worse, there is the simulator (feature `sim`).
///
/// ```
/// use coracle::MemoryNetwork;
/// use coracle::{Config, Storage};
///
/// let network = MemoryNetwork::new();
/// let mut config = Config::new(1, "10.0.0.1:7000", Storage::Memory);
/// config.network = Some(network.clone());
/// ```
#[derive(Clone, Default)]
pub struct MemoryNetwork {
    net: Arc<Mutex<Net>>,
    /// Who dials, if that is somebody who listens.
    at: Option<SocketAddr>,
}

#[derive(Default)]
struct Net {
    listeners: BTreeMap<SocketAddr, mpsc::Sender<(MemoryStream, SocketAddr)>>,
    /// Between whom nothing passes, the lesser address first.
    cut: BTreeSet<(SocketAddr, SocketAddr)>,
    isolated: BTreeSet<SocketAddr>,
    /// Who dialed, who was dialed, and the connection while there is one.
    connections: Vec<(SocketAddr, SocketAddr, Weak<Connection>)>,
}

impl PartialEq for MemoryNetwork {
    /// Whether they are the same network.
    fn eq(&self, other: &MemoryNetwork) -> bool {
        Arc::ptr_eq(&self.net, &other.net)
    }
}

impl Eq for MemoryNetwork {}

impl fmt::Debug for MemoryNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let net = self.net();
        f.debug_struct("MemoryNetwork")
            .field("cut", &net.cut)
            .field("isolated", &net.isolated)
            .finish_non_exhaustive()
    }
}

impl MemoryNetwork {
    /// A network that nobody is in.
    pub fn new() -> MemoryNetwork {
        MemoryNetwork::default()
    }

    /// Ends every connection between these two, and has none come about until they are [healed](MemoryNetwork::heal). Both
    /// see their connection end without a goodbye, and get no answer when they dial, which tells neither whether the other
    /// is alive. What has arrived is still heard.
    pub fn cut(&self, one: SocketAddr, other: SocketAddr) {
        let mut net = self.net();
        net.cut.insert(pair(one, other));
        net.end_connections();
    }

    /// Undoes [`cut`](MemoryNetwork::cut). They find each other again by themselves.
    pub fn heal(&self, one: SocketAddr, other: SocketAddr) {
        self.net().cut.remove(&pair(one, other));
    }

    /// Cuts this one off from everybody, clients too, until [`heal_all`](MemoryNetwork::heal_all).
    pub fn isolate(&self, one: SocketAddr) {
        let mut net = self.net();
        net.isolated.insert(one);
        net.end_connections();
    }

    /// Undoes all that was cut.
    pub fn heal_all(&self) {
        let mut net = self.net();
        net.cut.clear();
        net.isolated.clear();
    }

    /// The network as this one sees it.
    pub(super) fn seen_from(self, at: SocketAddr) -> MemoryNetwork {
        MemoryNetwork { at: Some(at), ..self }
    }

    /// Listens there, until the listener is dropped.
    pub(super) fn listen(&self, address: &str) -> io::Result<(Listener, SocketAddr)> {
        let mut address = numbers(address)?;
        let mut net = self.net();
        net.listeners.retain(|_, listener| !listener.is_closed());
        if address.port() == 0 {
            let free = (1..=u16::MAX)
                .find(|port| !net.listeners.contains_key(&SocketAddr::new(address.ip(), *port)));
            address.set_port(free.ok_or(io::ErrorKind::AddrInUse)?);
        } else if net.listeners.contains_key(&address) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let (arriving, arrived) = mpsc::channel(BACKLOG);
        net.listeners.insert(address, arriving);
        Ok((Listener(arrived), address))
    }

    /// Connects to whoever listens there.
    pub(super) fn connect(&self, address: &str) -> io::Result<MemoryStream> {
        let address = numbers(address)?;
        let from = self.at.unwrap_or(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let mut net = self.net();
        if net.is_cut(from, address) {
            return Err(io::ErrorKind::HostUnreachable.into());
        }
        let listener = net.listeners.get(&address).ok_or(io::ErrorKind::ConnectionRefused)?;
        let connection = Arc::<Connection>::default();
        let (here, there) = (MemoryStream::new(&connection, 0), MemoryStream::new(&connection, 1));
        match listener.try_send((there, from)) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(io::ErrorKind::ConnectionRefused.into()),
            Err(mpsc::error::TrySendError::Full(_)) => return Err(io::ErrorKind::TimedOut.into()),
        }
        net.connections.retain(|(_, _, connection)| connection.strong_count() > 0);
        net.connections.push((from, address, Arc::downgrade(&connection)));
        Ok(here)
    }

    fn net(&self) -> MutexGuard<'_, Net> {
        lock(&self.net)
    }
}

impl Net {
    fn is_cut(&self, one: SocketAddr, other: SocketAddr) -> bool {
        self.cut.contains(&pair(one, other)) || [one, other].iter().any(|end| self.isolated.contains(end))
    }

    fn end_connections(&mut self) {
        for (one, other, connection) in &self.connections {
            if let Some(connection) = connection.upgrade().filter(|_| self.is_cut(*one, *other)) {
                connection.end();
            }
        }
    }
}

fn pair(one: SocketAddr, other: SocketAddr) -> (SocketAddr, SocketAddr) {
    (one.min(other), one.max(other))
}

fn numbers(address: &str) -> io::Result<SocketAddr> {
    let problem =
        || format!("{address} is no address of a network in memory, which are numbers, as 10.0.0.1:7000");
    address.parse().map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, problem()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes connections.
#[derive(Debug)]
pub(super) struct Listener(mpsc::Receiver<(MemoryStream, SocketAddr)>);

impl Listener {
    /// The next connection, and from where it comes. Cancel safe.
    pub(super) async fn accept(&mut self) -> (MemoryStream, SocketAddr) {
        match self.0.recv().await {
            Some(arrived) => arrived,
            // The network is gone, and with it all who could come.
            None => std::future::pending().await,
        }
    }
}

/// What takes messages at the end of a connection. A message that it has no room for is given back.
type Door = Box<dyn Fn(PeerMessage) -> Result<(), PeerMessage> + Send + Sync>;

/// What the two ends share: at each place, what that end writes, and where it hears messages.
#[derive(Default)]
struct Connection {
    lanes: [Mutex<Lane>; 2],
    doors: [Mutex<Option<Door>>; 2],
}

/// The bytes of one direction.
#[derive(Default)]
struct Lane {
    bytes: BytesMut,
    /// Nothing more is written, or read.
    over: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Lane {
    fn end(&mut self) {
        self.over = true;
        let waiting = [self.reader.take(), self.writer.take()];
        waiting.into_iter().flatten().for_each(Waker::wake);
    }
}

impl Connection {
    /// Ends it in the middle of whatever is said.
    fn end(&self) {
        for lane in &self.lanes {
            let mut lane = lock(lane);
            lane.bytes.clear();
            lane.end();
        }
        // A door that opens from now on sees that it is over.
        self.doors.iter().for_each(|door| *lock(door) = None);
    }
}

/// One end of a connection. Dropped, it is over for the other end.
#[derive(Debug)]
pub(super) struct MemoryStream {
    pub(super) reader: MemoryReader,
    pub(super) writer: MemoryWriter,
}

/// What one end reads from, and writes to.
pub(super) struct MemoryReader(End);
pub(super) struct MemoryWriter(End);

#[derive(Clone)]
struct End {
    connection: Arc<Connection>,
    side: usize,
}

impl MemoryStream {
    fn new(connection: &Arc<Connection>, side: usize) -> MemoryStream {
        let end = End { connection: Arc::clone(connection), side };
        MemoryStream { reader: MemoryReader(end.clone()), writer: MemoryWriter(end) }
    }
}

/// The way past the stream, for whole messages.
pub(super) struct Direct(End);

impl MemoryWriter {
    pub(super) fn direct(&self) -> Direct {
        Direct(self.0.clone())
    }
}

impl Direct {
    /// From now on this end is handed messages here, while its reader is there.
    pub(super) fn hear(&self, door: impl Fn(PeerMessage) -> Result<(), PeerMessage> + Send + Sync + 'static) {
        let End { connection, side } = &self.0;
        let mut own = lock(&connection.doors[*side]);
        if !lock(&connection.lanes[1 - side]).over {
            *own = Some(Box::new(door));
        }
    }

    /// Hands a message to the other end. Given back if nobody hears it there, or there is no room.
    #[allow(
        clippy::result_large_err,
        reason = "what is given back is the message, which a box would cost each time"
    )]
    pub(super) fn hand_over(&self, message: PeerMessage) -> Result<(), PeerMessage> {
        let End { connection, side } = &self.0;
        match &*lock(&connection.doors[1 - side]) {
            Some(door) => door(message),
            None => Err(message),
        }
    }
}

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct")
    }
}

impl fmt::Debug for MemoryReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryReader")
    }
}

impl fmt::Debug for MemoryWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MemoryWriter")
    }
}

impl Drop for MemoryReader {
    fn drop(&mut self) {
        let End { connection, side } = &self.0;
        *lock(&connection.doors[*side]) = None;
        lock(&connection.lanes[1 - side]).end();
    }
}

impl Drop for MemoryWriter {
    fn drop(&mut self) {
        lock(&self.0.connection.lanes[self.0.side]).end();
    }
}

impl AsyncRead for MemoryReader {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut lane = lock(&self.0.connection.lanes[1 - self.0.side]);
        if lane.bytes.is_empty() && !lane.over {
            lane.reader = Some(context.waker().clone());
            return Poll::Pending;
        }
        let most = lane.bytes.len().min(buffer.remaining());
        buffer.put_slice(&lane.bytes[..most]);
        lane.bytes.advance(most);
        if let Some(writer) = lane.writer.take() {
            writer.wake();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for MemoryWriter {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut lane = lock(&self.0.connection.lanes[self.0.side]);
        if lane.over {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let room = IN_FLIGHT - lane.bytes.len();
        if room == 0 {
            lane.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        let most = bytes.len().min(room);
        lane.bytes.put_slice(&bytes[..most]);
        if let Some(reader) = lane.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(most))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        lock(&self.0.connection.lanes[self.0.side]).end();
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
#[path = "memory_tests.rs"]
mod tests;
