//! A lock service: three processes, and clients that hold a lock for as long as they live.
//!
//! ```sh
//! NODES=127.0.0.1:7101,127.0.0.1:7102,127.0.0.1:7103
//! for id in 1 2 3; do cargo run --example lock serve $id $NODES /tmp/lock-$id & done
//! cargo run --example lock hold backup $NODES 20     # waits for its turn, holds it for 20 s, and lets it go
//! ```
//!
//! A holder that dies is waited for, for five seconds. The token that comes with a lock only grows: let what the lock protects
//! refuse smaller ones, and a holder that slept through its time does no harm.

use coracle::client::Client;
use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long a lock outlives the last word of its holder, in milliseconds of the cluster's clock.
const LIFETIME: u64 = 5000;

#[derive(Default)]
struct Locks {
    /// Who holds each lock, and by which token.
    held: BTreeMap<String, (String, u64)>,
}

#[derive(Serialize, Deserialize)]
enum Ask {
    /// Take the lock, or say that its holder is alive: lock, who.
    Hold(String, String),
    LetGo(String, String),
}

impl StateMachine for Locks {
    type Command = Ask;
    /// The token, if the lock is this one's.
    type Reply = Option<u64>;
    type Query = String;
    type Answer = Option<(String, u64)>;

    fn apply(&mut self, context: &mut Context, ask: Ask) -> Option<u64> {
        match ask {
            Ask::Hold(lock, who) => {
                let (holder, token) =
                    self.held.entry(lock).or_insert_with(|| (who.clone(), context.id.index.0));
                let theirs =
                    *holder == who && context.set_timer(*token, context.cluster_time + LIFETIME).is_ok();
                theirs.then_some(*token)
            }
            Ask::LetGo(lock, who) => {
                let (holder, token) = self.held.get(&lock).cloned()?;
                let theirs = holder == who && self.held.remove(&lock).is_some();
                (theirs && context.cancel_timer(token)).then_some(token)
            }
        }
    }

    fn on_timer(&mut self, _: &mut Context, token: u64) {
        self.held.retain(|_, (_, other)| *other != token);
    }

    fn query(&self, _: &QueryContext, lock: String) -> Option<(String, u64)> {
        self.held.get(&lock).cloned()
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.held.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|held| self.held = held)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", id, nodes, dir] => {
            let nodes: Vec<_> = (1..).zip(nodes.split(',')).collect();
            let (id, here) =
                *nodes.iter().find(|(other, _)| other.to_string() == id).ok_or("an id is 1, 2 or 3")?;
            let node = Node::start(Config::new(id, here, Storage::Dir(dir.into())), Locks::default()).await?;
            if id == 1 {
                node.set_configuration(nodes).await?;
            }
            println!("node {id} serves");
            Err(node.stopped().await)?
        }
        ["hold", lock, nodes, seconds] => {
            let (client, me) = (Client::<Locks>::connect(nodes.split(','))?, std::process::id().to_string());
            let mut left = seconds.parse::<u64>()? * 2;
            while left > 0 {
                match client.write(Ask::Hold(lock.to_owned(), me.clone())).await? {
                    Some(token) => {
                        println!("{lock} is held by {me}, token {token}");
                        left -= 1;
                    }
                    None => println!("{lock} is another's"),
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            client.write(Ask::LetGo(lock.to_owned(), me)).await?;
            Ok(())
        }
        ["holder", lock, nodes] => {
            println!("{:?}", Client::<Locks>::connect(nodes.split(','))?.read(lock.to_owned()).await?);
            Ok(())
        }
        _ => Err("lock serve ID NODES DIR | hold LOCK NODES SECONDS | holder LOCK NODES")?,
    }
}
