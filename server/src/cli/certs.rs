//! `coracle certs`: certificates for those who have no authority of their own.

use crate::certs;
use clap::{Args, Subcommand};
use coracle::Role;
use coracle::raft::NodeId;
use std::path::PathBuf;

#[derive(Subcommand)]
pub(super) enum Certs {
    /// Make the authority of a cluster, which signs all other certificates
    Init {
        /// A word for the cluster, which every certificate names
        #[arg(long, value_name = "NAME")]
        cluster: String,
        #[command(flatten)]
        at: Place,
        /// For how long it is valid
        #[arg(long, value_name = "COUNT", default_value_t = 3650)]
        days: u32,
    },
    /// Make the certificate of a node
    Node {
        /// The node's id
        id: u64,
        /// A name or an address of its host, for clients that compare those; may be said again
        #[arg(long = "host", value_name = "NAME_OR_IP")]
        hosts: Vec<String>,
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        kind: Kind,
    },
    /// Make the certificate of a client
    Client {
        /// A word for the client
        name: String,
        #[command(flatten)]
        at: Place,
        #[command(flatten)]
        kind: Kind,
    },
}

#[derive(Args)]
pub(super) struct Place {
    /// The directory of the authority and of what it signs
    #[arg(long, value_name = "DIR", default_value = "certs")]
    dir: PathBuf,
}

#[derive(Args)]
pub(super) struct Kind {
    /// For how long it is valid
    #[arg(long, value_name = "COUNT", default_value_t = 365)]
    days: u32,
    /// Take the place of the one that is there, with a new key
    #[arg(long)]
    renew: bool,
}

impl Certs {
    pub(super) fn run(self) -> Result<(), String> {
        let [key, certificate] = match self {
            Certs::Init { cluster, at, days } => certs::init(&at.dir, &cluster, days)?,
            Certs::Node { id, hosts, at, kind } => {
                certs::sign(&at.dir, Role::Node(NodeId(id)), &hosts, kind.days, kind.renew)?
            }
            Certs::Client { name, at, kind } => {
                certs::sign(&at.dir, Role::Client(name), &[], kind.days, kind.renew)?
            }
        };
        println!("{}\n{}", certificate.display(), key.display());
        Ok(())
    }
}
