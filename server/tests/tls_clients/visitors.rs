//! Clients with certificates, as they come from libraries that know nothing of Coracle.

use crate::support::{CORACLE, LONG};
use coracle::Role;
use coracle::raft::NodeId;
use coracle_server::{certs, client};
use rcgen::{CertificateParams, Issuer, KeyPair, SanType};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::fs;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime};

/// Made once for all tests of this process. The directory is the build's, and made anew by each run.
static EAST: LazyLock<PathBuf> = LazyLock::new(|| {
    let dir = made("tls-clients-east");
    let dialer = coracle::TlsDialer::load(
        &dir.join("ca.pem"),
        Some((&dir.join("client-ann.pem"), &dir.join("client-ann.key"))),
    );
    let dialer = dialer.unwrap();
    client::encrypt(false, move || dialer.clone());
    dir
});

static WEST: LazyLock<PathBuf> = LazyLock::new(|| made("tls-clients-west"));

fn made(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    certs::init(&dir, "east", 100).unwrap();
    let hosts = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    for id in 1..=4 {
        certs::sign(&dir, Role::Node(NodeId(id)), &hosts, 100, false).unwrap();
    }
    certs::sign(&dir, Role::Client("ann".to_owned()), &[], 100, false).unwrap();
    dir
}

/// The directory of the cluster's authority, of four nodes' certificates and of the client's, `ann`.
pub(crate) fn east() -> PathBuf {
    EAST.clone()
}

/// The same of another authority, which uses the same names.
pub(crate) fn west() -> PathBuf {
    WEST.clone()
}

/// A certificate of the authority with this name, valid for these days from now on, in a file that is called as it.
pub(crate) fn sign_as(dir: &Path, name: &str, (from, until): (i32, i32)) {
    let read = |file: &str| fs::read_to_string(east().join(file)).unwrap();
    let key = KeyPair::from_pem(&read("ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&read("ca.pem"), key).unwrap();
    let mut params = CertificateParams::default();
    let day = |days: i32| {
        let away = Duration::from_secs(u64::from(days.unsigned_abs()) * 24 * 3600);
        if days < 0 { SystemTime::now() - away } else { SystemTime::now() + away }
    };
    (params.not_before, params.not_after) = (day(from).into(), day(until).into());
    params.subject_alt_names = vec![SanType::URI(name.try_into().unwrap())];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap();
    let file = name.trim_start_matches("coracle://").replace('/', "-");
    fs::write(dir.join(format!("{file}.pem")), certificate.pem()).unwrap();
    fs::write(dir.join(format!("{file}.key")), key.serialize_pem()).unwrap();
}

/// What the program says.
pub(crate) fn all(words: &[&str]) -> String {
    let output = Command::new(CORACLE).args(words).output().unwrap();
    assert!(!output.status.success(), "{words:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A client that believes an authority and compares host names.
#[derive(Debug)]
pub(crate) struct Visitor {
    roots: PathBuf,
    own: Option<(PathBuf, PathBuf)>,
    host: &'static str,
}

impl Visitor {
    pub(crate) fn new(roots: &Path) -> Visitor {
        Visitor { roots: roots.to_owned(), own: None, host: "localhost" }
    }

    pub(crate) fn showing(mut self, dir: &Path, name: &str) -> Visitor {
        self.own = Some((dir.join(format!("{name}.pem")), dir.join(format!("{name}.key"))));
        self
    }

    pub(crate) fn to(mut self, host: &'static str) -> Visitor {
        self.host = host;
        self
    }

    pub(crate) fn connect(&self, address: &str) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let certificates = |path: &Path| -> Vec<CertificateDer<'static>> {
            CertificateDer::pem_file_iter(path).unwrap().map(Result::unwrap).collect()
        };
        let mut roots = RootCertStore::empty();
        certificates(&self.roots).into_iter().for_each(|one| roots.add(one).unwrap());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let builder = builder.unwrap().with_root_certificates(roots);
        let config = match &self.own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                builder.with_client_auth_cert(certificates(certificate), key).unwrap()
            }
        };
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(LONG))?;
        stream.set_write_timeout(Some(LONG))?;
        let host = ServerName::try_from(self.host).unwrap();
        let mut session = ClientConnection::new(Arc::new(config), host).unwrap();
        while session.is_handshaking() {
            session.complete_io(&mut stream)?;
        }
        Ok(StreamOwned::new(session, stream))
    }

    /// Asks for a word, and gets it.
    pub(crate) fn ping(&self, address: &str) -> io::Result<()> {
        let mut stream = self.connect(address)?;
        stream.write_all(b"PING\r\n")?;
        let mut answer = [0; 7];
        stream.read_exact(&mut answer)?;
        assert_eq!(&answer, b"+PONG\r\n");
        Ok(())
    }
}
