//! A key-value store on three nodes, one of which goes.
//!
//! ```sh
//! cargo run --example kv
//! ```

use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage, WriteError};
use std::{collections::BTreeMap, io, time::Duration};

#[derive(Default)]
struct Kv(BTreeMap<String, String>);

impl StateMachine for Kv {
    type Command = (String, String);
    type Reply = Option<String>;
    type Query = String;
    type Answer = Option<String>;

    fn apply(&mut self, _: &mut Context, (key, value): (String, String)) -> Option<String> {
        self.0.insert(key, value)
    }
    fn query(&self, _: &QueryContext, key: String) -> Option<String> {
        self.0.get(&key).cloned()
    }
    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0.clone())
    }
    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|saved| self.0 = saved)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut nodes = Vec::new();
    for id in 1..=3 {
        let mut config = Config::new(id, "127.0.0.1:0", Storage::Memory);
        config.forward = true; // a write to any node goes on to the leader
        nodes.push(Node::start(config, Kv::default()).await?);
    }
    let members = (1..).zip(nodes.iter().map(|node| node.peer_addr().to_string()));
    nodes[0].set_configuration(members).await?;

    nodes[1].write(("boat".into(), "coracle".into())).await?;
    let leader = nodes[1].leader().ok_or("there is no leader")?;
    println!("node {} leads, and goes", leader.id);
    nodes.remove(leader.id.0 as usize - 1).stop().await;

    // The two that are left elect another, and know all that was acknowledged. Meanwhile a write is refused, which is
    // certain, or its outcome is unknown; to set a key to the same value again does no harm.
    while let Err(error) = nodes[0].write(("raft".into(), "of one".into())).await {
        if !matches!(error, WriteError::NoLeader | WriteError::NotLeader { .. } | WriteError::Unknown(_)) {
            return Err(error.into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for node in &nodes {
        println!("boat: {:?}, raft: {:?}", node.read("boat".into()).await?, node.read("raft".into()).await?);
        assert_eq!(node.read("boat".into()).await?.as_deref(), Some("coracle"));
    }
    Ok(())
}
