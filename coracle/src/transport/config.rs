//! The limits of the TCP transport: each with its unit and its reason.

use super::memory::MemoryNetwork;
use super::secure::Tls;
use crate::entry;
use crate::wire;
use std::time::Duration;

/// The largest frame that is taken by default, in bytes: it holds the largest entry. What all entries of one
/// message may take together is less than this by a header and [`wire::MAX_META`].
pub const MAX_FRAME: usize = wire::frame_limit(entry::HEADER + entry::MAX_PAYLOAD);

/// The settings of a [`Tcp`](super::tcp::Tcp). The defaults suit a cluster within one data centre or a few.
#[derive(Clone, Debug)]
pub struct TcpConfig {
    /// For how long resolving a name, and then connecting to each of its addresses, may take. 1 s: a
    /// connect that loses its first packet repeats it after one second, and by then a fresh try is as good.
    pub connect_timeout: Duration,
    /// For how long a handshake may take, on either side. 5 s: generous to a loaded peer, and short enough
    /// that connections which say nothing do not pile up (TR-6).
    pub handshake_timeout: Duration,
    /// The first pause before dialing again. 20 ms: a restarted process is met again well within an election
    /// timeout.
    pub backoff_min: Duration,
    /// The longest pause before dialing again, and how long a connection must have lived for the pauses to
    /// start from the first again. 1 s: a peer that comes back is met again soon, and a peer that stays away
    /// costs one packet a second.
    pub backoff_max: Duration,
    /// How long nothing may be said or heard on a connection before a ping is sent, which is answered. 1 s:
    /// three of them fit into `idle_timeout`.
    pub ping_interval: Duration,
    /// After how long without hearing anything, or without being able to write what is queued, a connection
    /// is given up. 3 s: the kernel would take minutes to hours to see that the other end is gone (TR-4).
    pub idle_timeout: Duration,
    /// For how long a close may take: to say goodbye on each connection and to hear that it was read. 1 s:
    /// whoever has not read it by then will see the connection end without it.
    pub close_timeout: Duration,
    /// The pause after the system refused to accept a connection. 100 ms: the usual cause, too many open
    /// files, does not pass sooner, and trying in a tight loop would take a processor (TR-7).
    pub accept_backoff: Duration,
    /// How many bytes may wait to be written to one peer. 64 MiB: twice the largest entry, so that one of
    /// them never shuts out the heartbeats after it. A message of any size goes into an empty outbox.
    pub outbox_bytes: usize,
    /// How many messages may wait to be written to one peer. 4,096: more is a peer that does not read.
    pub outbox_messages: usize,
    /// The largest frame taken, in bytes; peers are told. The default holds the largest entry.
    pub max_frame: usize,
    /// How many accepted connections may be open, beyond unfinished handshakes. 1,024: every node of the
    /// largest cluster. One that is in the newest membership gets in all the same, in the place of one that is not.
    ///
    pub max_connections: usize,
    /// How many sockets may be accepted and not closed yet, those of clients aside: connections, handshakes, and one that is to
    /// give way. Never more than half of the descriptors that the process may open when the transport starts: the rest is
    /// for the log, for clients and for connections of its own.
    pub max_sockets: usize,
    /// How many accepted connections of nodes that are not in the newest membership may come from one address. 64:
    /// a node that was never told its cluster, and so knows no members, is behind the same address as they are.
    pub max_per_address: usize,
    /// How many bytes the unfinished frames of all nodes that are not in the newest membership may take, beyond 64
    /// KiB each; who finds it used up is not read from. 64 MiB: nearly two of the largest. What members send is
    /// bounded by their number.
    pub unfinished_bytes: usize,
    /// How long any frame of such a node may take from its first bytes to its end, but for the time in which it was not read
    /// from; the same for clients. 10 s: 3 MiB a second for the largest.
    pub unfinished_timeout: Duration,
    /// How many accepted connections may be in their handshake. 256. One more, and the oldest of the address
    /// that has most of them is cut off: a handshake that is meant takes a round trip, so those that are old
    /// are not, and peers get in however many others hold a connection open (TR-6).
    pub max_handshakes: usize,
    /// How many bytes of messages may be on their way from the network to the node, over all connections;
    /// who finds it used up stops reading. 64 MiB: the largest frame, twice nearly.
    pub inbound_bytes: usize,
    /// How many clients may be connected. 0: none is served. They take no place of peers, and never more than a quarter of
    /// the descriptors that the process may open when the transport starts.
    pub max_clients: usize,
    /// The largest frame that is taken from a client, in bytes; clients are told.
    pub client_frame: usize,
    /// How many requests of one client may be under way; then it is not read from. 4,096: more than a client of this
    /// library sends.
    pub client_requests: usize,
    /// How many bytes the requests of all clients that are under way may take; and as many again their unfinished frames
    /// beyond 64 KiB each; and as many again the answers that wait for them, beyond 64 KiB each. 64 MiB: nearly two of the
    /// largest. Who finds the first two used up is not read from, and who finds the last used up is cut off.
    pub client_bytes: usize,
    /// The certificate of this end, and whom it believes. None: every connection is plain, and anybody may be anybody.
    pub tls: Option<Tls>,
    /// The network in memory to listen and dial in, instead of that of the system.
    pub network: Option<MemoryNetwork>,
    /// The features offered to peers, one bit each. All that this version has
    /// ([`wire::FEATURES`]); on a connection those count that both sides offer.
    pub features: u64,
}

impl Default for TcpConfig {
    fn default() -> TcpConfig {
        TcpConfig {
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(5),
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            ping_interval: Duration::from_secs(1),
            idle_timeout: Duration::from_secs(3),
            close_timeout: Duration::from_secs(1),
            accept_backoff: Duration::from_millis(100),
            outbox_bytes: 64 << 20,
            outbox_messages: 4_096,
            max_frame: MAX_FRAME,
            max_connections: 1_024,
            max_sockets: usize::MAX,
            max_per_address: 64,
            unfinished_bytes: 64 << 20,
            unfinished_timeout: Duration::from_secs(10),
            max_handshakes: 256,
            inbound_bytes: 64 << 20,
            max_clients: 1_024,
            client_frame: MAX_FRAME,
            client_requests: 4_096,
            client_bytes: 64 << 20,
            tls: None,
            network: None,
            features: wire::FEATURES,
        }
    }
}

impl TcpConfig {
    /// The settings, where this process may open so many descriptors.
    pub(super) fn within(mut self, descriptors: u64) -> TcpConfig {
        let half = usize::try_from(descriptors / 2).unwrap_or(usize::MAX);
        let share = self.max_sockets.min(half);
        self.max_handshakes = self.max_handshakes.min(share / 4).max(1);
        self.max_connections =
            self.max_connections.min(share.saturating_sub(self.max_handshakes + SPARE)).max(1);
        self.max_clients = self.max_clients.min(half / 2);
        self
    }

    /// How many sockets may be accepted and not closed yet, those of clients aside.
    pub(super) fn sockets(&self) -> usize {
        self.max_handshakes.saturating_add(self.max_connections).saturating_add(SPARE)
    }
}

/// The socket that was accepted last, before another one gives way to it.
const SPARE: usize = 1;

/// How many descriptors this process may open.
pub(super) fn descriptors() -> u64 {
    use rustix::process::{Resource, getrlimit};
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_take_at_most_half_of_the_descriptors() {
        for descriptors in [8, 64, 256, 1_024, 4_096, 1 << 20, u64::MAX] {
            let config = TcpConfig::default().within(descriptors);
            assert!(config.sockets() as u64 <= descriptors / 2, "{descriptors}: {config:?}");
            assert!(config.max_handshakes >= 1 && config.max_connections >= 1);
            assert!(config.max_clients as u64 <= descriptors / 4);
        }
        let ample = TcpConfig::default().within(1 << 20);
        assert_eq!((ample.max_handshakes, ample.max_connections), (256, 1_024));
        for max_sockets in 3..2_000 {
            let config = TcpConfig { max_sockets, ..TcpConfig::default() }.within(1 << 20);
            assert!(config.sockets() <= max_sockets, "{max_sockets}: {config:?}");
        }
    }
}
