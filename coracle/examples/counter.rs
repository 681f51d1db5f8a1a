//! A counter on one node: the smallest replicated machine there is.
//!
//! ```sh
//! cargo run --example counter
//! ```

use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage};
use std::io;

#[derive(Default)]
struct Counter(i64);

impl StateMachine for Counter {
    type Command = i64;
    type Reply = i64;
    type Query = ();
    type Answer = i64;

    fn apply(&mut self, _: &mut Context, by: i64) -> i64 {
        self.0 += by;
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> i64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|sum| self.0 = sum)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = tempfile::tempdir()?;
    let config = || Config::new(1, "127.0.0.1:0", Storage::Dir(dir.path().into()));

    let node = Node::start(config(), Counter::default()).await?;
    node.set_configuration([(1, node.peer_addr().to_string())]).await?;
    println!("5 makes {}", node.write(5).await?);
    println!("-2 makes {}", node.write(-2).await?);
    node.stop().await;

    // The log is all that it needs to be what it was. A node alone elects itself, which takes a moment.
    let node = Node::start(config(), Counter::default()).await?;
    node.leader_changed().wait_for(Option::is_some).await?;
    println!("after a restart it is {}", node.read(()).await?);
    assert_eq!(node.read(()).await?, 3);
    node.stop().await;
    Ok(())
}
