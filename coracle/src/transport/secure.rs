//! Encrypted connections, and who is at their other end (TLS 1.3, both ends with a certificate).
//!
//! What is checked, at either end: that the certificate is valid today and leads to the authority of the own files; that it
//! names the same cluster as the own one; and, by [`judge`](super::handshake::judge), that whoever speaks for node 3 has the
//! certificate of node 3. A certificate's name is a URI among its alternative names: `coracle://CLUSTER/node/ID` or
//! `coracle://CLUSTER/client/NAME`, where `CLUSTER` is a word that the operator chose. Host names play no part: a node may
//! move.
//!
//! Nothing is resumed and nothing is sent early, so each connection shows its certificate anew and can be replayed to nobody.

mod blocking;
mod read;
mod verify;

pub(super) use blocking::problem;
pub use blocking::{BlockingStream, TlsDialer};

use super::certificate::{CertificateName, Insecure, Known, Shown};
use coracle_core::Mark;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use verify::AnyNode;

/// How much the session of a [client](Tls::accept_client) keeps of what was written and is not sent, in bytes.
const CLIENT_BUFFER: usize = 32 << 10;

/// Where a node's certificate is, and whom it believes. All are PEM.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsFiles {
    /// The certificates of the authorities that are believed: one, or two while the authority changes.
    pub authority: PathBuf,
    /// The own certificate, with those between it and the authority, if there are any.
    pub certificate: PathBuf,
    /// Its private key, which nobody but the owner may read.
    pub key: PathBuf,
}

/// How much of it there has to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TlsMode {
    /// Connections are encrypted where the other end can, and plain otherwise: for as long as a cluster goes over from plain
    /// connections. Whoever shows a certificate has to show a right one. It keeps nobody out.
    Prefer,
    /// Nothing is plain.
    Require,
}

/// Why it cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {problem}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// What the system, or the reader of PEM, said.
        problem: String,
    },
    /// Others may read the key.
    #[error("others may read the key {}: allow that to nobody but its owner (chmod 600)", path.display())]
    Exposed {
        /// The key.
        path: PathBuf,
    },
    /// The certificate does not say who this is.
    #[error("{}: {problem}", path.display())]
    Name {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The certificate, the key and the authority do not fit together.
    #[error("the certificate {} cannot be used: {problem}", path.display())]
    Unfit {
        /// The certificate.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The new certificate is somebody else's: only a renewed one can take the place of another.
    #[error("the new certificate is that of {new}, the one in use that of {old}")]
    Renamed {
        /// Whose is in use.
        old: CertificateName,
        /// Whose would be.
        new: CertificateName,
    },
    /// No cryptography was built in, or chosen.
    #[error(
        "there is no cryptography: build with one of the features `ring` and `aws-lc-rs`, or install a provider of rustls"
    )]
    NoProvider,
}

/// A node's or a client's certificate, and the authority that it believes. Cheap to clone; clones are the same, and
/// [reload](Tls::reload) together.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

struct Inner {
    files: TlsFiles,
    mode: TlsMode,
    provider: Arc<CryptoProvider>,
    current: RwLock<Arc<Current>>,
    /// Whose certificates the newest membership knows.
    known: RwLock<Known>,
}

/// What the files said when they were read last.
struct Current {
    acceptor: TlsAcceptor,
    /// The same, but for those who show no certificate.
    open: TlsAcceptor,
    connector: TlsConnector,
    own: Shown,
    expires: SystemTime,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { files, mode, .. } = &*self.0;
        f.debug_struct("Tls").field("files", files).field("mode", mode).finish_non_exhaustive()
    }
}

impl PartialEq for Tls {
    fn eq(&self, other: &Tls) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Tls {}

impl Tls {
    /// Reads the files. The cryptography is the process's default, if one is installed, or else the one that was built in.
    pub fn load(files: TlsFiles, mode: TlsMode) -> Result<Tls, TlsError> {
        let provider = provider().ok_or(TlsError::NoProvider)?;
        let current = RwLock::new(Arc::new(Current::read(&files, &provider)?));
        Ok(Tls(Arc::new(Inner { files, mode, provider, current, known: RwLock::default() })))
    }

    /// Reads the files again. New connections use what they say now, and those that are there go on. After an error all is
    /// as it was.
    pub fn reload(&self) -> Result<(), TlsError> {
        let new = Current::read(&self.0.files, &self.0.provider)?;
        let old = self.name();
        if new.own.name != old {
            return Err(TlsError::Renamed { old, new: new.own.name });
        }
        if let Err(problem) = self.judge(&new.own) {
            // Whoever was shown it would refuse it.
            return Err(TlsError::Unfit { path: self.0.files.certificate.clone(), problem });
        }
        *self.0.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
        Ok(())
    }

    /// How much of it there has to be.
    pub fn mode(&self) -> TlsMode {
        self.0.mode
    }

    /// Who the certificate says that this is.
    pub fn name(&self) -> CertificateName {
        self.current().own.name.clone()
    }

    /// When the first of the certificates is not valid any more that this end shows or believes.
    pub fn expires(&self) -> SystemTime {
        self.current().expires
    }

    /// Where the files are.
    pub fn files(&self) -> &TlsFiles {
        &self.0.files
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.0.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The own certificate, as the membership knows it.
    pub(crate) fn mark(&self) -> Mark {
        self.current().own.mark
    }

    /// The newest membership knows these.
    pub(super) fn set_known(&self, known: Known) {
        *self.0.known.write().unwrap_or_else(PoisonError::into_inner) = known;
    }

    /// Whether a certificate is still somebody's, or why not.
    pub(super) fn judge(&self, shown: &Shown) -> Result<(), String> {
        self.0.known.read().unwrap_or_else(PoisonError::into_inner).judge(shown)
    }

    /// Whether nothing is plain.
    pub(crate) fn is_required(&self) -> bool {
        self.0.mode == TlsMode::Require
    }

    /// Takes in a connection that begins as an encrypted one does.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<(Encrypted, Shown), Insecure> {
        let current = self.current();
        let stream = current.acceptor.accept(Anchor::Here(stream)).await.map_err(problem)?;
        current.known(TlsStream::from(stream))
    }

    /// Takes in an encrypted connection of a client that speaks a protocol of its own, on a port of its own. The own
    /// certificate is shown. Who shows one as well must have a right one of the own cluster, a node's or a client's, and is
    /// returned; nobody must, unless `certified`.
    ///
    /// The connection may close at any time; how long this takes is for the caller to limit. What is written has to be
    /// flushed. The error is of the kind `PermissionDenied` where one of the two ends does not believe the other.
    pub async fn accept_client(
        &self,
        stream: TcpStream,
        certified: bool,
    ) -> io::Result<(Encrypted, Option<CertificateName>)> {
        let current = self.current();
        let acceptor = if certified { &current.acceptor } else { &current.open };
        let limited = |session: &mut rustls::ServerConnection| session.set_buffer_limit(Some(CLIENT_BUFFER));
        let stream = acceptor.accept_with(Anchor::Here(stream), limited).await.map_err(problem)?;
        let stream = TlsStream::from(stream);
        if !certified && stream.get_ref().1.peer_certificates().is_none() {
            return Ok((Encrypted(Box::new(stream)), None));
        }
        let (stream, shown) = current.known(stream)?;
        self.judge(&shown).map_err(Insecure::Refused)?;
        Ok((stream, Some(shown.name)))
    }

    /// For a program's own connections to other nodes' ports, with blocking sockets: what the files said when they were read
    /// last.
    pub fn dialer(&self) -> TlsDialer {
        let current = self.current();
        TlsDialer::of(Arc::clone(current.connector.config()), Some(current.own.name.cluster.clone()))
    }

    /// Makes a connection an encrypted one.
    pub(super) async fn connect(&self, stream: TcpStream) -> Result<(Encrypted, Shown), Insecure> {
        let current = self.current();
        // Never sent, and never compared.
        let nobody = ServerName::try_from("coracle").map_err(|error| Insecure::Refused(error.to_string()))?;
        let stream = current.connector.connect(nobody, Anchor::Here(stream)).await.map_err(problem)?;
        current.known(TlsStream::from(stream))
    }
}

impl TlsDialer {
    /// Reads the files: the authorities that are believed, and the own certificate and its key, if there are any. Without
    /// them, any cluster is right that these authorities sign for.
    pub fn load(authority: &Path, own: Option<(&Path, &Path)>) -> Result<TlsDialer, TlsError> {
        let provider = provider().ok_or(TlsError::NoProvider)?;
        if let Some((certificate, key)) = own {
            let (authority, certificate, key) = (authority.into(), certificate.into(), key.into());
            let own = Current::read(&TlsFiles { authority, certificate, key }, &provider)?;
            return Ok(TlsDialer::of(Arc::clone(own.connector.config()), Some(own.own.name.cluster)));
        }
        let roots = believed(authority, certificates(authority)?)?;
        let client = dials(roots, &provider, None);
        let unfit =
            |error: rustls::Error| TlsError::Unfit { path: authority.into(), problem: error.to_string() };
        Ok(TlsDialer::of(Arc::new(client.map_err(unfit)?), None))
    }
}

impl Current {
    fn read(files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Current, TlsError> {
        let TlsFiles { authority, certificate, key } = files;
        let chain = certificates(certificate)?;
        let authorities = certificates(authority)?;
        let own = match chain.first() {
            Some(leaf) => {
                read::name_of(leaf).and_then(|name| Ok(Shown { name, mark: read::mark_of(leaf, provider)? }))
            }
            None => Err("it holds no certificate".to_owned()),
        };
        let own = own.map_err(|problem| TlsError::Name { path: certificate.clone(), problem })?;
        let mut expires = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 40);
        for one in chain.iter().chain(&authorities) {
            expires = expires.min(read::expires(one).unwrap_or(SystemTime::UNIX_EPOCH));
        }
        let unfit = |problem: String| TlsError::Unfit { path: certificate.clone(), problem };
        let (roots, key) = (believed(authority, authorities)?, private(key)?);
        let accepts = |anybody: bool| {
            let visitors =
                WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(provider));
            let visitors = if anybody { visitors.allow_unauthenticated() } else { visitors };
            let visitors = visitors.build().map_err(|error| unfit(error.to_string()))?;
            let server = ServerConfig::builder_with_provider(Arc::clone(provider))
                .with_protocol_versions(&[&TLS13])
                .and_then(|builder| {
                    let builder = builder.with_client_cert_verifier(visitors);
                    builder.with_single_cert(chain.clone(), key.clone_key())
                });
            let mut server = server.map_err(|error| unfit(error.to_string()))?;
            server.session_storage = Arc::new(NoServerSessionStorage {});
            server.send_tls13_tickets = 0;
            Ok(TlsAcceptor::from(Arc::new(server)))
        };
        let (acceptor, open) = (accepts(false)?, accepts(true)?);
        let client = dials(roots, provider, Some((chain, key))).map_err(|error| unfit(error.to_string()))?;
        let provider = Arc::clone(provider);
        Ok(Current { acceptor, open, connector: Arc::new(client).into(), own, expires, provider })
    }

    /// The connection, if whoever is at its other end has a name in the own cluster.
    fn known(&self, stream: TlsStream<Anchor>) -> Result<(Encrypted, Shown), Insecure> {
        let (_, session) = stream.get_ref();
        let leaf = session.peer_certificates().and_then(|chain| chain.first());
        let leaf = leaf.ok_or_else(|| Insecure::Refused("it shows no certificate".to_owned()))?;
        let name = read::known(leaf, Some(&self.own.name.cluster))?;
        let mark = read::mark_of(leaf, &self.provider).map_err(Insecure::Refused)?;
        Ok((Encrypted(Box::new(stream)), Shown { name, mark }))
    }
}

/// How connections are made: all are believed that the authorities signed for, and those are judged by their names.
fn dials(
    roots: Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, rustls::Error> {
    let builder =
        ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13])?;
    let builder = builder.dangerous().with_custom_certificate_verifier(AnyNode::of(roots, provider));
    let mut client = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
        None => builder.with_no_client_auth(),
    };
    client.enable_sni = false;
    client.resumption = rustls::client::Resumption::disabled();
    Ok(client)
}

/// Those who are believed.
fn believed(path: &Path, authorities: Vec<CertificateDer<'static>>) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for one in authorities {
        let added = roots.add(one);
        added.map_err(|error| TlsError::Unfit { path: path.to_owned(), problem: error.to_string() })?;
    }
    Ok(Arc::new(roots))
}

/// What does the cryptography.
fn provider() -> Option<Arc<CryptoProvider>> {
    if let Some(installed) = CryptoProvider::get_default() {
        return Some(Arc::clone(installed));
    }
    #[cfg(feature = "aws-lc-rs")]
    return Some(Arc::new(rustls::crypto::aws_lc_rs::default_provider()));
    #[cfg(all(feature = "ring", not(feature = "aws-lc-rs")))]
    return Some(Arc::new(rustls::crypto::ring::default_provider()));
    #[cfg(not(any(feature = "ring", feature = "aws-lc-rs")))]
    None
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let all = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(error.to_string()))?;
    let all = all.collect::<Result<Vec<_>, _>>().map_err(|error| unreadable(error.to_string()))?;
    if all.is_empty() {
        return Err(unreadable("it holds no certificate".to_owned()));
    }
    Ok(all)
}

fn private(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let unreadable = |problem: String| TlsError::File { path: path.to_owned(), problem };
    let about = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?;
    if about.mode() & 0o077 != 0 {
        return Err(TlsError::Exposed { path: path.to_owned() });
    }
    PrivateKeyDer::from_pem_file(path).map_err(|error| unreadable(error.to_string()))
}

/// The socket under an encrypted connection, which can go from one runtime to another.
#[derive(Debug)]
enum Anchor {
    Here(TcpStream),
    Detached(std::net::TcpStream),
    Gone,
}

/// An encrypted connection, which is written to and read from as any other.
#[derive(Debug)]
pub struct Encrypted(Box<TlsStream<Anchor>>);

impl Encrypted {
    /// Lets go of the runtime.
    pub(super) fn detach(&mut self) -> io::Result<()> {
        self.0.get_mut().0.turn(|stream| match stream {
            Anchor::Here(stream) => stream.into_std().map(Anchor::Detached),
            other => Ok(other),
        })
    }

    /// Takes hold of the runtime that this is called in.
    pub(super) fn attach(&mut self) -> io::Result<()> {
        self.0.get_mut().0.turn(|stream| match stream {
            Anchor::Detached(stream) => TcpStream::from_std(stream).map(Anchor::Here),
            other => Ok(other),
        })
    }
}

impl Anchor {
    fn turn(&mut self, with: impl FnOnce(Anchor) -> io::Result<Anchor>) -> io::Result<()> {
        *self = with(std::mem::replace(self, Anchor::Gone))?;
        Ok(())
    }

    fn here(self: Pin<&mut Self>) -> io::Result<Pin<&mut TcpStream>> {
        match self.get_mut() {
            Anchor::Here(stream) => Ok(Pin::new(stream)),
            Anchor::Detached(_) | Anchor::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}

impl AsyncRead for Anchor {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.here()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Anchor {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.here()?.poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.here()?.poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.here()?.poll_shutdown(context)
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.get_mut().0).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.get_mut().0).poll_shutdown(context)
    }
}
