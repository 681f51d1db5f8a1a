//! What both versions of the account have in common: three processes, and clients that change the balance.

use coracle::client::{Client, ClientConfig};
use coracle::{Config, Node, StateMachine, Storage, in_full};
use std::error::Error;
use std::time::Duration;

/// Runs what the command line asks for: serves a node with this machine, or makes a change that `change` makes out of a word
/// and an amount.
pub(crate) async fn run<S>(
    machine: S,
    change: impl Fn(&str, u64) -> Option<S::Command>,
) -> Result<(), Box<dyn Error>>
where
    S: StateMachine<Reply = u64, Query = (), Answer = u64>,
{
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve", id, nodes, dir] => {
            let nodes: Vec<_> = (1..).zip(nodes.split(',')).collect();
            let (id, here) =
                *nodes.iter().find(|(other, _)| other.to_string() == id).ok_or("an id is 1, 2 or 3")?;
            let node = Node::start(Config::new(id, here, Storage::Dir(dir.into())), machine).await?;
            if id == 1 {
                node.set_configuration(nodes).await?;
            }
            // The next one may go once this one has caught up.
            while !node.status().await?.caught_up {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            println!("node {id} serves");
            println!("node {id} stopped: {}", in_full(&node.stopped().await));
        }
        ["balance", nodes] => println!("{}", Client::<S>::connect(nodes.split(','))?.read(()).await?),
        [word, amount, times, nodes] => {
            let mut config = ClientConfig::new(nodes.split(','));
            config.request_timeout = Duration::from_secs(60);
            let client = Client::<S>::start(config)?;
            let amount = amount.parse()?;
            for _ in 0..times.parse()? {
                let change = change(word, amount).ok_or("this version knows no such change")?;
                println!("balance: {}", client.write(change).await?);
            }
        }
        _ => Err("serve ID NODES DIR | balance NODES | CHANGE AMOUNT TIMES NODES")?,
    }
    Ok(())
}
