//! Taking connections.
//!
//! Nothing that a stranger does, and nothing that the system refuses, ends the loop (TR-7). Each connection
//! has a task of its own from its first byte on; until its handshake is over it holds a place among few. A
//! connection is taken from the system only when there is a place for its socket, which is given back after the
//! socket is closed: so however many come and however fast, the descriptors that they take are bounded.

use super::certificate::Insecure;
use super::dial::TcpHalves;
use super::farewell::{finish, reject};
use super::founding;
use super::handshake::{ReadError, Stream, Verdict, authentic, judge};
use super::introduction::Local;
use super::memory::{self, MemoryNetwork, MemoryStream};
use super::notices::Whose;
use super::shared::{HandshakeSlot, Origin, Shared, Unwelcome};
use super::socket::Socket;
use super::visit::Visitor;
use crate::wire::{Hello, Incoming, Refused, RefusedReason, Welcome, WireError};
use coracle_core::NodeId;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

/// What an encrypted connection begins with; no frame does.
const TLS_HANDSHAKE: u8 = 0x16;

/// Where connections come from.
pub(super) enum Listener {
    Tcp(TcpListener),
    Memory(memory::Listener),
}

/// A connection that has just come.
enum Arrived {
    Tcp(TcpStream),
    Memory(MemoryStream),
}

impl Listener {
    /// Listens there, in the system's network or in this one. Where that is, comes along.
    pub(super) async fn bind(
        address: &str,
        network: Option<&MemoryNetwork>,
    ) -> io::Result<(Listener, SocketAddr)> {
        if let Some(network) = network {
            let (listener, at) = network.listen(address)?;
            return Ok((Listener::Memory(listener), at));
        }
        let listener = TcpListener::bind(address).await?;
        let at = listener.local_addr()?;
        Ok((Listener::Tcp(listener), at))
    }

    async fn accept(&mut self) -> io::Result<(Arrived, SocketAddr)> {
        match self {
            Listener::Tcp(listener) => {
                listener.accept().await.map(|(stream, remote)| (Arrived::Tcp(stream), remote))
            }
            Listener::Memory(listener) => {
                let (stream, remote) = listener.accept().await;
                Ok((Arrived::Memory(stream), remote))
            }
        }
    }
}

/// Accepts connections for ever.
pub(super) async fn accept(shared: Arc<Shared>, mut listener: Listener) {
    loop {
        // Handshakes and links never take all places for long: those that are too many are being ended.
        let Ok(place) = Arc::clone(&shared.sockets).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, remote)) => {
                shared.start_handshake(remote.ip(), |slot| {
                    let shared = Arc::clone(&shared);
                    async move {
                        // Dropped last: after the socket.
                        let _place = place;
                        match stream {
                            Arrived::Tcp(stream) => serve_tcp(&shared, slot, stream, remote).await,
                            Arrived::Memory(stream) => {
                                let stream = Stream::of(Socket::Memory(stream));
                                serve(&shared, slot, stream, remote.ip()).await;
                            }
                        }
                    }
                });
                shared.thin_out().await;
            }
            Err(error) => {
                shared.counters.accept_errors.fetch_add(1, Ordering::Relaxed);
                let text = format!("cannot accept connections: {error}");
                shared.notices.warn(Whose::Stranger, "listener", "accept", &text);
                sleep(shared.config.accept_backoff).await;
            }
        }
    }
}

async fn serve_tcp(shared: &Shared, slot: HandshakeSlot, stream: TcpStream, remote: SocketAddr) {
    // It only delays small writes where it fails.
    let _ = stream.set_nodelay(true);
    match timeout(shared.config.handshake_timeout, secured(shared, stream)).await {
        Ok(Ok(Ok(socket))) => serve(shared, slot, Stream::of(socket), remote.ip()).await,
        Ok(Ok(Err((socket, error)))) => {
            let whose = shared.whose_address(remote.ip());
            reject(shared, Stream::of(socket), whose, &remote.ip().to_string(), &error).await;
        }
        Ok(Err(Insecure::Plain(error))) => {
            tracing::debug!(%remote, %error, "a connection ended before its handshake");
        }
        Ok(Err(error @ Insecure::Refused(_))) => {
            shared.counters.refused.fetch_add(1, Ordering::Relaxed);
            let whose = shared.whose_address(remote.ip());
            let text = format!("refused a connection: {error}");
            shared.notices.warn(whose, &remote.ip().to_string(), "certificate", &text);
        }
        // It said nothing: not worth a word.
        Err(_) => tracing::debug!(%remote, "a connection that says nothing was ended"),
    }
}

/// The connection, encrypted if it begins so and this node can, or why a plain one is refused.
async fn secured(
    shared: &Shared,
    stream: TcpStream,
) -> Result<Result<Socket, (Socket, WireError)>, Insecure> {
    let mut first = [0];
    stream.peek(&mut first).await.map_err(Insecure::Plain)?;
    let encrypted = first == [TLS_HANDSHAKE];
    let refused = match &shared.config.tls {
        Some(tls) if encrypted => {
            let (stream, name) = tls.accept(stream).await?;
            return Ok(Ok(Socket::Encrypted(stream, name)));
        }
        Some(tls) if tls.is_required() => "a plain connection: this node takes none but encrypted ones",
        None if encrypted => "an encrypted connection: this node has no certificate",
        _ => return Ok(Ok(Socket::Plain(stream))),
    };
    Ok(Err((Socket::Plain(stream), WireError::Invalid(refused))))
}

/// What becomes of a connection that begins like that. The certificate of one that is let in is noted.
fn judged(
    shared: &Shared,
    local: &Local,
    stream: &TcpHalves,
    hello: &Hello,
) -> Result<Verdict, (RefusedReason, String)> {
    let (shown, from) = (stream.certificate.as_ref(), hello.facts.from.id);
    authentic(&shared.config, shown, from, hello.purpose)?;
    let verdict = judge(local, &shared.config, hello)?;
    if let Some(shown) = shown {
        shared.has_shown(hello.facts.from, shown.mark);
    }
    Ok(verdict)
}

/// Serves one connection from its handshake to its end.
async fn serve(shared: &Shared, slot: HandshakeSlot, mut stream: TcpHalves, source: IpAddr) {
    let (limit, remote) = (shared.config.handshake_timeout, &source.to_string());
    let hello = match timeout(limit, stream.reader.receive()).await {
        Ok(Ok(Incoming::Hello(hello))) => hello,
        Ok(Ok(_)) => {
            let error = WireError::Invalid("a connection that does not start with a Hello");
            return reject(shared, stream, shared.whose_address(source), remote, &error).await;
        }
        Ok(Err(ReadError::Wire(error))) => {
            return reject(shared, stream, shared.whose_address(source), remote, &error).await;
        }
        // It said nothing, or went away in the middle: not worth a word.
        Ok(Err(ReadError::Io(_) | ReadError::End)) | Err(_) => {
            tracing::debug!(remote, "a connection ended before its handshake");
            return;
        }
    };
    let (local, facts) = shared.facts(hello.facts.from.id);
    let verdict = judged(shared, &local, &stream, &hello);
    let from = hello.facts.from.id;
    let welcome = Welcome { facts }.encode();
    let (reason, text) = match verdict {
        Ok(Verdict::Introduce) => {
            return finish(shared, stream, &welcome).await;
        }
        Ok(Verdict::Found) => return founding::serve(shared, stream, &hello.facts, &welcome).await,
        Ok(Verdict::Serve) => match Visitor::welcome(shared, &hello.facts) {
            Ok(visitor) => return visitor.hand_over(shared, stream).await,
            Err(refusal) => refusal,
        },
        Ok(Verdict::Talk(cluster)) => {
            let encrypted = stream.certificate.is_some();
            match shared.register(&hello.facts, cluster, encrypted, Origin::Accepted(source, welcome)) {
                Ok((link, alarm)) => {
                    drop(slot);
                    if let Some(alarm) = alarm {
                        shared.alarm(alarm).await;
                    }
                    stream.established(shared.config.max_frame);
                    let end = link.run(shared, stream).await;
                    tracing::debug!(remote, peer = %link.peer.id, ?end, "an accepted connection ended");
                    if let super::link::End::Protocol(error) = &end {
                        shared.notices.warn(shared.whose(link.peer.id), remote, "protocol", error);
                    }
                    return shared.unregister(&link, &end).await;
                }
                Err(Unwelcome { reason, text, alarm }) => {
                    if let Some(alarm) = alarm {
                        shared.alarm(alarm).await;
                    }
                    (reason, text)
                }
            }
        }
        Err(refusal) => refusal,
    };
    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    // Whoever founds a cluster dials itself too, to see that its own address is right.
    let itself = hello.facts.from == local.peer && hello.facts.boot == local.boot;
    // Who asks for nobody wants to know who is here.
    let asks = hello.to == NodeId(0);
    if reason != RefusedReason::Blank && !itself && !asks {
        let text = format!("refused node {from}: {text}");
        shared.notices.warn(shared.whose(from), remote, &reason.to_string(), &text);
    }
    let refused = Refused { reason, text, from: local.peer, boot: local.boot };
    finish(shared, stream, &refused.encode()).await;
}
