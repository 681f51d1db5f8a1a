//! A job queue: three processes, and workers that may die at any time: a job that is not done in time is given to the next.
//!
//! ```sh
//! NODES=127.0.0.1:7201,127.0.0.1:7202,127.0.0.1:7203
//! for id in 1 2 3; do cargo run --example queue serve $id $NODES /tmp/queue-$id & done
//! cargo run --example queue push "feed the cat" $NODES
//! cargo run --example queue work $NODES              # does what is there, one job after the other
//! ```
//!
//! Each push is one job, however often it is sent: the client's session sees to that. Each job is done at least once.

use coracle::client::Client;
use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

/// How long a worker may take, in milliseconds.
const LIMIT: u64 = 2000;

#[derive(Clone, Default, Serialize, Deserialize)]
struct Queue {
    /// Jobs that nobody does, and those that somebody does.
    waiting: BTreeMap<u64, String>,
    taken: BTreeMap<u64, String>,
    done: u64,
}

#[derive(Serialize, Deserialize)]
enum Ask {
    Push(String),
    Take,
    Done(u64),
}

impl StateMachine for Queue {
    type Command = Ask;
    type Reply = Option<(u64, String)>;
    type Query = ();
    type Answer = (usize, usize, u64);

    fn apply(&mut self, context: &mut Context, ask: Ask) -> Option<(u64, String)> {
        match ask {
            Ask::Push(what) => {
                let job = context.id.index.0;
                self.waiting.insert(job, what.clone());
                Some((job, what))
            }
            Ask::Take => {
                let (&job, _) = self.waiting.first_key_value()?;
                context.set_timer(job, context.cluster_time + LIMIT).ok()?;
                let what = self.waiting.remove(&job)?;
                self.taken.insert(job, what.clone());
                Some((job, what))
            }
            Ask::Done(job) => {
                let what = self.taken.remove(&job).or_else(|| self.waiting.remove(&job))?;
                context.cancel_timer(job);
                self.done += 1;
                Some((job, what))
            }
        }
    }

    fn on_timer(&mut self, _: &mut Context, job: u64) {
        self.waiting.extend(self.taken.remove_entry(&job));
    }

    fn query(&self, _: &QueryContext, (): ()) -> (usize, usize, u64) {
        (self.waiting.len(), self.taken.len(), self.done)
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|queue| *self = queue)
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
            let node = Node::start(Config::new(id, here, Storage::Dir(dir.into())), Queue::default()).await?;
            if id == 1 {
                node.set_configuration(nodes).await?;
            }
            println!("node {id} serves");
            Err(node.stopped().await)?;
        }
        ["push", what, nodes] => {
            let pushed =
                Client::<Queue>::connect(nodes.split(','))?.write(Ask::Push(what.to_owned())).await?;
            println!("pushed {pushed:?}");
        }
        ["work", nodes] => {
            let client = Client::<Queue>::connect(nodes.split(','))?;
            loop {
                match client.write(Ask::Take).await? {
                    Some((job, what)) => {
                        println!("job {job}: {what}");
                        client.write(Ask::Done(job)).await?;
                    }
                    None if client.read(()).await?.1 == 0 => break,
                    None => tokio::time::sleep(Duration::from_millis(100)).await,
                }
            }
        }
        _ => Err("queue serve ID NODES DIR | push WHAT NODES | work NODES")?,
    }
    Ok(())
}
