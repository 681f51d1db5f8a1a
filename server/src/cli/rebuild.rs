//! `coracle rebuild`: the machine of a node is rebuilt from its leader's.

use super::duration;
use crate::credentials::Credentials;
use crate::rebuild;
use std::time::Duration;

#[derive(clap::Args)]
pub(super) struct Rebuild {
    /// The client address of the node whose machine is wrong
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// How long to wait until it is done; after that it goes on, and may be asked for again
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    wait: Duration,
    #[command(flatten)]
    credentials: Credentials,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Rebuild {
    pub(super) fn run(self) -> Result<(), String> {
        self.credentials.apply()?;
        let done = rebuild::ask(&self.to, self.wait)?;
        if self.json {
            println!("{}", serde_json::json!({ "done": done }));
        } else {
            println!("done: {done}");
        }
        Ok(())
    }
}
