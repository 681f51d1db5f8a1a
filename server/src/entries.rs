//! What becomes of an entry that the machine cannot apply: `CORACLE ENTRY SKIP id` and `RETRY id` as a node answers them, and
//! `coracle entry …` as an operator's client.

use crate::kv::Machine;
use crate::members;
use coracle::raft::LogId;
use coracle::{Node, RulingError, in_full};
use std::time::Duration;

/// Reads an entry's place as it is shown: its index, a point, and its term.
pub fn place(word: &str) -> Option<LogId> {
    let (index, term) = word.split_once('.')?;
    let (index, term): (u64, u64) = (index.parse().ok()?, term.parse().ok()?);
    (index > 0).then(|| LogId::new(term, index))
}

/// Rules as a command asks for it: what was ruled, or the text of an error reply.
pub(crate) async fn rule<M: Machine>(node: &Node<M>, words: &[String]) -> Result<String, String> {
    let (verb, word) = match words {
        [verb, word] => (verb.to_ascii_lowercase(), word),
        _ => return Err("ERR write SKIP index.term, or RETRY index.term".to_owned()),
    };
    let entry = place(word).ok_or_else(|| format!("ERR '{word}' is not an entry: write index.term"))?;
    match &*verb {
        "skip" => {
            told(node.skip_entry(entry).await.map(|at| format!("entry {entry} is skipped, by entry {at}")))
        }
        "retry" => told(
            node.retry_entry(entry).await.map(|at| format!("entry {entry} is tried again, by entry {at}")),
        ),
        _ => Err("ERR write SKIP index.term, or RETRY index.term".to_owned()),
    }
}

fn told(ruled: Result<String, RulingError>) -> Result<String, String> {
    ruled.map_err(|error| match &error {
        RulingError::NotLeader { leader } => members::not_leader(leader, &error),
        RulingError::NoLeader => format!("{} ? {error}", members::NOT_LEADER),
        RulingError::Busy => format!("BUSY {error}"),
        RulingError::Unknown => format!("UNKNOWN {error}"),
        RulingError::Stopped(_) => format!("CLUSTERDOWN {}", in_full(&error)),
        _ => format!("ERR {error}"),
    })
}

/// Asks a cluster, through whichever of these client addresses answers, and goes on to its leader.
pub fn ask(to: &[String], verb: &str, entry: LogId, limit: Duration) -> Result<String, String> {
    members::ask_about("ENTRY", to, &[verb.to_owned(), entry.to_string()], limit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_named_as_it_is_shown() {
        let entry = LogId::new(3, 17);
        assert_eq!(place(&entry.to_string()), Some(entry));
        for wrong in ["", "17", "17.", ".3", "0.3", "17.3.1", "-1.3", "x.3"] {
            assert_eq!(place(wrong), None, "{wrong}");
        }
    }
}
