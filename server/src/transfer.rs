//! Who leads: `CORACLE MEMBERS TRANSFER [id]` as a node answers it, and `coracle members transfer` as an operator's client.

use crate::kv::Machine;
use crate::members;
use coracle::raft::NodeId;
use coracle::{Node, TransferError, in_full};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The first word of what may be otherwise soon.
const NOT_NOW: &str = "BUSY";

/// The pause before a client asks again: a leader that gave up takes what waited for it first.
const PAUSE: Duration = Duration::from_millis(500);

/// Hands over as a command asks for it: who leads then, or the text of an error reply.
pub(crate) async fn transfer<M: Machine>(node: &Node<M>, words: &[String]) -> Result<String, String> {
    let to = match words {
        [] => None,
        [word] => {
            let id = word.parse::<u64>().ok().filter(|id| *id > 0).map(NodeId);
            Some(id.ok_or_else(|| format!("ERR '{word}' is not a node's id"))?)
        }
        _ => return Err("ERR write TRANSFER, or TRANSFER id".to_owned()),
    };
    match node.transfer_leadership(to).await {
        Ok(leader) => Ok(format!("node {leader} leads")),
        Err(error) => Err(refusal(&error)),
    }
}

fn refusal(error: &TransferError) -> String {
    match error {
        TransferError::NotLeader { leader } => members::not_leader(leader, error),
        TransferError::NoLeader => format!("{} ? {error}", members::NOT_LEADER),
        TransferError::UnderWay(_)
        | TransferError::GivenUp { .. }
        | TransferError::AnotherLeads(_)
        | TransferError::NoTarget => format!("{NOT_NOW} {error}"),
        TransferError::NotConfigured | TransferError::Stopped(_) => format!("CLUSTERDOWN {}", in_full(error)),
        _ => format!("ERR {error}"),
    }
}

/// Asks a cluster, through whichever of these client addresses answers, to let this node lead, or the best; again and again
/// until it does. Says what it waits for.
pub fn ask(to: &[String], node: Option<u64>, limit: Duration) -> Result<String, String> {
    let mut words = vec!["TRANSFER".to_owned()];
    words.extend(node.map(|id| id.to_string()));
    let until = Instant::now() + limit;
    let mut told = String::new();
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let error = match members::ask(to, &words, left) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let Some(why) = error.strip_prefix(NOT_NOW) else { return Err(error) };
        if Instant::now() + PAUSE >= until {
            return Err(format!("the time is up: {}", why.trim_start()));
        }
        if told != why {
            eprintln!("waiting:{why}");
            why.clone_into(&mut told);
        }
        sleep(PAUSE);
    }
}
