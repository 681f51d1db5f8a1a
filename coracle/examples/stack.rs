//! A stack whose commands and replies are enums: what a larger machine looks like.
//!
//! ```sh
//! cargo run --example stack
//! ```

use coracle::snapshot::{self, Save};
use coracle::{Config, Context, Node, QueryContext, StateMachine, Storage};
use serde::{Deserialize, Serialize};
use std::io;

#[derive(Serialize, Deserialize)]
enum Command {
    Push(String),
    Pop,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Reply {
    Depth(usize),
    Popped(Option<String>),
}

#[derive(Default)]
struct Stack(Vec<String>);

impl StateMachine for Stack {
    type Command = Command;
    type Reply = Reply;
    type Query = ();
    type Answer = Option<String>;

    fn apply(&mut self, _: &mut Context, command: Command) -> Reply {
        match command {
            Command::Push(text) => self.0.push(text),
            Command::Pop => return Reply::Popped(self.0.pop()),
        }
        Reply::Depth(self.0.len())
    }
    fn query(&self, _: &QueryContext, (): ()) -> Option<String> {
        self.0.last().cloned()
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
    let node = Node::start(Config::new(1, "127.0.0.1:0", Storage::Memory), Stack::default()).await?;
    node.set_configuration([(1, node.peer_addr().to_string())]).await?;
    assert_eq!(node.write(Command::Push("boat".into())).await?, Reply::Depth(1));
    assert_eq!(node.write(Command::Push("oar".into())).await?, Reply::Depth(2));
    println!("on top: {:?}", node.read(()).await?);
    assert_eq!(node.write(Command::Pop).await?, Reply::Popped(Some("oar".into())));
    node.stop().await;
    Ok(())
}
