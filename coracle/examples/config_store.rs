//! A configuration store with a watch: three processes that print each change as it happens, and clients that make them.
//!
//! ```sh
//! NODES=127.0.0.1:7301,127.0.0.1:7302,127.0.0.1:7303
//! for id in 1 2 3; do cargo run --example config_store serve $id $NODES /tmp/config-$id & done
//! cargo run --example config_store set colour blue $NODES
//! cargo run --example config_store get colour $NODES
//! ```
//!
//! A node that was away, or took a snapshot instead of the changes, prints the whole state once and then goes on: nobody
//! acts on a state that never was.

use coracle::client::Client;
use coracle::snapshot::{self, Save};
use coracle::{
    Config, Context, Freshness, Index, Node, Position, Publishes, QueryContext, StateMachine, Storage,
    WatchError,
};
use std::collections::BTreeMap;
use std::io;

#[derive(Default)]
struct Settings(BTreeMap<String, String>);

impl StateMachine for Settings {
    /// A key, and its new value.
    type Command = (String, String);
    /// The value before.
    type Reply = Option<String>;
    /// A key, or everything.
    type Query = Option<String>;
    type Answer = BTreeMap<String, String>;

    const PUBLISHES: Publishes = Publishes::Emitted;

    fn apply(&mut self, context: &mut Context, (key, value): (String, String)) -> Option<String> {
        let before = self.0.insert(key.clone(), value.clone());
        if before.as_ref() != Some(&value) {
            context.emit(&(key, value)).expect("two texts have bytes");
        }
        before
    }

    fn query(&self, _: &QueryContext, key: Option<String>) -> BTreeMap<String, String> {
        let one = |key| self.0.get_key_value(&key).map(|(key, value)| (key.clone(), value.clone()));
        key.map_or_else(|| self.0.clone(), |key| one(key).into_iter().collect())
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|settings| self.0 = settings)
    }
}

/// Prints the state and each change, until the node stops.
async fn follow(node: &Node<Settings>) -> Result<(), Box<dyn std::error::Error>> {
    loop {
        let state = node.read_as(None, Freshness::AtLeast(Index(0))).await?;
        println!("all: {:?}", state.answer);
        let mut events = node.events(Position::of_entry(state.applied.index.0 + 1));
        loop {
            match events.next().await {
                Ok(event) => println!("changed: {:?}", event.emitted::<(String, String)>()?),
                Err(WatchError::Compacted(_)) => break,
                Err(error) => Err(error)?,
            }
        }
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
            let node =
                Node::start(Config::new(id, here, Storage::Dir(dir.into())), Settings::default()).await?;
            if id == 1 {
                node.set_configuration(nodes).await?;
            }
            node.leader_changed().wait_for(Option::is_some).await?;
            println!("node {id} serves");
            follow(&node).await?;
        }
        ["set", key, value, nodes] => {
            let client = Client::<Settings>::connect(nodes.split(','))?;
            println!("before: {:?}", client.write((key.to_owned(), value.to_owned())).await?);
        }
        ["get", key, nodes] => {
            println!(
                "{:?}",
                Client::<Settings>::connect(nodes.split(','))?.read(Some(key.to_owned())).await?
            );
        }
        _ => Err("config_store serve ID NODES DIR | set KEY VALUE NODES | get KEY NODES")?,
    }
    Ok(())
}
