//! `coracle members`: who takes part, and every change of that.

use super::{STATUS_LIMIT, To};
use crate::client::{self, Client, Value};
use crate::cluster::INIT_LIMIT;
use crate::credentials::Credentials;
use crate::{members, transfer};
use clap::Subcommand;
use std::io;

#[derive(Subcommand)]
pub(super) enum Members {
    /// Form a cluster of new nodes; run once, against any one of them
    Init {
        /// The client address of one of the nodes
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        credentials: Credentials,
        /// All nodes, with their peer addresses
        #[arg(value_name = "ID=HOST:PORT", required = true, value_parser = member)]
        members: Vec<String>,
    },
    /// Show who takes part
    List {
        /// The client address of one of the nodes
        #[arg(long, value_name = "HOST:PORT")]
        to: String,
        #[command(flatten)]
        credentials: Credentials,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Add a blank node that is running, as a learner: it receives the log, and does not vote
    Add {
        #[command(flatten)]
        to: To,
        /// The node, with its peer address
        #[arg(value_name = "ID=HOST:PORT", value_parser = member)]
        member: String,
    },
    /// Let a member vote, once it has caught up
    Promote {
        #[command(flatten)]
        to: To,
        /// The node
        id: u64,
    },
    /// Make a voter a learner
    Demote {
        #[command(flatten)]
        to: To,
        /// The node
        id: u64,
    },
    /// Remove a member
    Remove {
        #[command(flatten)]
        to: To,
        /// The node
        id: u64,
    },
    /// Tell the cluster where a member is that was started at another address, on its disk
    Move {
        #[command(flatten)]
        to: To,
        /// The node
        id: u64,
        /// Its new peer address
        #[arg(long, value_name = "HOST:PORT")]
        address: String,
    },
    /// Let a blank node that is running take the place of a voter, once it has caught up
    Replace {
        #[command(flatten)]
        to: To,
        /// Who goes
        id: u64,
        /// Who comes, with its peer address
        #[arg(value_name = "ID=HOST:PORT", value_parser = member)]
        member: String,
    },
    /// Let another voter lead, and wait until it does
    Transfer {
        #[command(flatten)]
        to: To,
        /// Which one; without it, the one that is best prepared
        #[arg(long, value_name = "ID")]
        to_node: Option<u64>,
    },
    /// Let exactly these nodes vote; those that are no members yet are blank and running
    Voters {
        #[command(flatten)]
        to: To,
        /// All voters, with their peer addresses
        #[arg(value_name = "ID=HOST:PORT", required = true, value_parser = member)]
        members: Vec<String>,
    },
}

impl Members {
    pub(super) fn run(self) -> Result<(), String> {
        let (to, words) = match self {
            Members::Init { to, credentials, members } => {
                credentials.apply()?;
                return init(&to, &members);
            }
            Members::List { to, credentials, json } => {
                credentials.apply()?;
                return members::print_list(&to, STATUS_LIMIT, json);
            }
            Members::Transfer { to, to_node } => {
                to.credentials.apply()?;
                let done = transfer::ask(&to.to, to_node, to.wait)?;
                return to.tell(&done);
            }
            Members::Add { to, member } => (to, vec!["ADD".to_owned(), member]),
            Members::Promote { to, id } => (to, vec!["PROMOTE".to_owned(), id.to_string()]),
            Members::Demote { to, id } => (to, vec!["DEMOTE".to_owned(), id.to_string()]),
            Members::Remove { to, id } => (to, vec!["REMOVE".to_owned(), id.to_string()]),
            Members::Move { to, id, address } => (to, vec!["MOVE".to_owned(), id.to_string(), address]),
            Members::Replace { to, id, member } => (to, vec!["REPLACE".to_owned(), id.to_string(), member]),
            Members::Voters { to, members } => (to, [vec!["VOTERS".to_owned()], members].concat()),
        };
        to.credentials.apply()?;
        let done = members::ask(&to.to, &words, to.wait)?;
        to.tell(&done)
    }
}

fn init(to: &str, members: &[String]) -> Result<(), String> {
    let mut command: Vec<&[u8]> = vec![b"CORACLE", b"MEMBERS"];
    command.extend(client::token_words());
    command.push(b"INIT");
    command.extend(members.iter().map(String::as_bytes));
    let cannot = |error: io::Error| client::unasked(to, &error);
    match Client::connect(to, INIT_LIMIT).map_err(cannot)?.ask(&command).map_err(cannot)? {
        Value::Simple(_) => {
            println!("the cluster has {} members", members.len());
            Ok(())
        }
        Value::Error(error) => Err(error),
        _ => Err(format!("{to} gave an answer that is none to this command: is it a node of Coracle?")),
    }
}

fn member(word: &str) -> Result<String, String> {
    members::member(word).map(|_| word.to_owned()).ok_or_else(|| "write ID=HOST:PORT".into())
}
