//! The certificate of a server on its command line.

use crate::door::ClientTls;
use clap::{Args, ValueEnum};
use coracle::{Tls, TlsFiles, TlsMode};
use std::path::PathBuf;

/// The certificate of a server, and where it is used.
#[derive(Args)]
pub(super) struct ServerTls {
    /// The certificate of this node, in PEM: connections on the peer address are encrypted then
    #[arg(long, value_name = "FILE", requires = "tls_key", requires = "tls_ca")]
    tls_cert: Option<PathBuf>,
    /// Its key, which nobody else may read
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The certificate of the authority that signs those of all nodes
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// `prefer` takes plain connections too, while a cluster goes over node by node, and keeps nobody out
    #[arg(long, value_name = "MODE", value_parser = mode, default_value = "require", requires = "tls_cert")]
    tls: TlsMode,
    /// Whether connections of Redis clients are encrypted: `prefer` takes plain ones too, while the clients go over
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Clients::Off, requires = "tls_cert")]
    client_tls: Clients,
    /// Whether Redis clients must show a certificate of the cluster's authority: needs --client-tls require
    #[arg(long, value_enum, value_name = "MODE", default_value_t = Certificates::Optional, requires = "tls_cert")]
    client_certs: Certificates,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clients {
    Off,
    Prefer,
    Require,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Certificates {
    Optional,
    Required,
}

fn mode(word: &str) -> Result<TlsMode, String> {
    match word {
        "prefer" => Ok(TlsMode::Prefer),
        "require" => Ok(TlsMode::Require),
        _ => Err("write prefer or require".into()),
    }
}

impl ServerTls {
    /// Reads the files, if there are any: for the peers, and for the clients.
    pub(super) fn load(self) -> Result<(Option<Tls>, Option<ClientTls>), String> {
        let certified = self.client_certs == Certificates::Required;
        if certified && self.client_tls != Clients::Require {
            return Err("--client-certs required: needs --client-tls require".into());
        }
        let (Some(certificate), Some(key), Some(authority)) = (self.tls_cert, self.tls_key, self.tls_ca)
        else {
            return Ok((None, None));
        };
        let files = TlsFiles { authority, certificate, key };
        let tls = Tls::load(files, self.tls).map_err(|error| error.to_string())?;
        let plain = self.client_tls == Clients::Prefer;
        let clients =
            (self.client_tls != Clients::Off).then(|| ClientTls { tls: tls.clone(), plain, certified });
        Ok((Some(tls), clients))
    }
}
