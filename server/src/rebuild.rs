//! The machine of a node is rebuilt from its leader's: `CORACLE REBUILD milliseconds` as the node answers it, and
//! `coracle rebuild` as an operator's client.

use crate::client::{self, Client, Value};
use crate::kv::Machine;
use coracle::{Node, RebuildError, in_full};
use std::time::Duration;

/// The longest that a node is asked to wait.
const LONGEST: Duration = Duration::from_secs(3600);

/// How long a client waits beyond that.
const GRACE: Duration = Duration::from_secs(10);

/// Rebuilds as a command asks for it: what was done, or the text of an error reply.
pub(crate) async fn rebuild<M: Machine>(node: &Node<M>, words: &[String]) -> Result<String, String> {
    let limit = match words {
        [word] => word.parse().ok().map(Duration::from_millis).filter(|limit| *limit <= LONGEST),
        _ => None,
    };
    let limit = limit.ok_or_else(|| "ERR write REBUILD milliseconds, at most an hour".to_owned())?;
    let done = node.rebuild(limit).await;
    let done = done.map(|at| format!("the machine is rebuilt, and has applied everything up to entry {at}"));
    done.map_err(|error| match &error {
        RebuildError::Timeout(_) => format!("BUSY {error}"),
        RebuildError::NoLeader | RebuildError::NotConfigured | RebuildError::Stopped(_) => {
            format!("CLUSTERDOWN {}", in_full(&error))
        }
        _ => format!("ERR {error}"),
    })
}

/// Asks the node at this client address.
pub fn ask(to: &str, limit: Duration) -> Result<String, String> {
    let limit = limit.min(LONGEST);
    let millis = limit.as_millis().to_string();
    let mut command: Vec<&[u8]> = vec![b"CORACLE", b"REBUILD"];
    command.extend(client::token_words());
    command.push(millis.as_bytes());
    match Client::connect(to, limit + GRACE).and_then(|mut client| client.ask(&command)) {
        Ok(Value::Simple(done)) => Ok(done),
        Ok(Value::Error(error)) => Err(error),
        Ok(_) => Err(format!("{to} gave an answer that is none to this command: is it a node of Coracle?")),
        Err(error) => Err(client::unasked(to, &error)),
    }
}
