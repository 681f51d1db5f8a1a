//! Encrypted connections of programs, most of them without a runtime, to ports of nodes that speak another protocol.

use super::{Anchor, Encrypted, read};
use crate::transport::certificate::{CertificateName, Insecure, Role};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use tokio_rustls::{TlsConnector, TlsStream};

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
        let name = self.node(session.peer_certificates())?;
        Ok((BlockingStream(Box::new(StreamOwned::new(session, stream))), name))
    }

    /// The same for a program with a runtime; how long it takes is for the caller to limit. What is written has to be
    /// flushed.
    pub async fn connect_async(
        &self,
        stream: tokio::net::TcpStream,
    ) -> io::Result<(Encrypted, CertificateName)> {
        // Never sent, and never compared.
        let nobody = ServerName::try_from("coracle").map_err(io::Error::other)?;
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(nobody, Anchor::Here(stream)).await.map_err(problem)?;
        let name = self.node(stream.get_ref().1.peer_certificates())?;
        Ok((Encrypted(Box::new(TlsStream::from(stream))), name))
    }

    /// Which node showed these certificates.
    fn node(&self, shown: Option<&[CertificateDer<'_>]>) -> io::Result<CertificateName> {
        let leaf = shown.and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| Insecure::Refused("it shows no certificate".to_owned()))?;
        let name = read::known(leaf, self.cluster.as_deref())?;
        match name.role {
            Role::Node(_) => Ok(name),
            _ => Err(Insecure::Refused(format!("the certificate of the other end is that of {name}")).into()),
        }
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
