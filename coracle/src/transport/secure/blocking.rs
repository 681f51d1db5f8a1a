//! Encrypted connections for programs without a runtime, to ports of nodes that speak another protocol.

use super::read;
use crate::transport::certificate::{CertificateName, Insecure, Role};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// Whom a program believes that dials a node's port by itself, and what it shows, if anything. What is checked is what
/// [`Tls`](crate::Tls) checks; the certificate has to be that of a node.
#[derive(Clone, Debug)]
pub struct TlsDialer {
    config: Arc<ClientConfig>,
    /// The cluster of the own certificate, if there is one.
    cluster: Option<String>,
}

impl TlsDialer {
    pub(super) fn of(config: Arc<ClientConfig>, cluster: Option<String>) -> TlsDialer {
        TlsDialer { config, cluster }
    }

    /// Makes a connection an encrypted one, within the time limits of the socket, each of which holds for one wait. Returns
    /// it and which node is at its other end.
    ///
    /// The error is of the kind `PermissionDenied` where one of the two ends does not believe the other, and `InvalidData`
    /// where the other end does not speak TLS.
    pub fn connect(&self, mut stream: TcpStream) -> io::Result<(BlockingStream, CertificateName)> {
        // Never sent, and never compared.
        let nobody = ServerName::try_from("coracle").map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(&self.config), nobody).map_err(io::Error::other)?;
        while session.is_handshaking() {
            session.complete_io(&mut stream).map_err(problem)?;
        }
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| Insecure::Refused("it shows no certificate".to_owned()))?;
        let name = read::known(leaf, self.cluster.as_deref())?;
        if !matches!(name.role, Role::Node(_)) {
            return Err(
                Insecure::Refused(format!("the certificate of the other end is that of {name}")).into()
            );
        }
        Ok((BlockingStream(Box::new(StreamOwned::new(session, stream))), name))
    }
}

/// What an error of an encrypted connection means.
pub(in crate::transport) fn problem(error: io::Error) -> Insecure {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        None | Some(rustls::Error::InvalidMessage(_)) => Insecure::Plain(error),
        Some(tls) => Insecure::Refused(tls.to_string()),
    }
}

/// An encrypted connection that waits in its calls.
#[derive(Debug)]
pub struct BlockingStream(Box<StreamOwned<ClientConnection, TcpStream>>);

impl Read for BlockingStream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // Whoever is refused hears of it here: a server judges certificates after the client's part is done.
        self.0.read(buffer).map_err(|error| problem(error).into())
    }
}

impl Write for BlockingStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}
