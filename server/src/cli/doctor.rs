//! `coracle doctor`: what is wrong with a cluster.

use super::STATUS_LIMIT;
use crate::cluster;
use crate::credentials::Credentials;
use crate::doctor::{Answer, Weight, examine};
use clap::Args;
use std::time::SystemTime;

/// Say what is wrong with a cluster, what will hurt next, and what to do; the exit code is 3 if something is wrong now.
#[derive(Args)]
pub(super) struct Doctor {
    /// Client addresses of the nodes: the more, the more can be told
    #[arg(long, value_name = "HOST:PORT[,…]", required = true, value_delimiter = ',')]
    to: Vec<String>,
    #[command(flatten)]
    credentials: Credentials,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The exit code where something is wrong now.
const WRONG: u8 = 3;

impl Doctor {
    /// What is returned is the exit code.
    pub(super) fn run(self) -> Result<u8, String> {
        self.credentials.apply()?;
        // All at once: those that are gone take their time.
        let asked: Vec<_> = self
            .to
            .into_iter()
            .map(|to| {
                std::thread::spawn(move || -> Answer { (to.clone(), cluster::report(&to, STATUS_LIMIT)) })
            })
            .collect();
        let answers: Vec<Answer> = asked
            .into_iter()
            .map(|asked| asked.join().map_err(|_| "a thread that asked has panicked".to_owned()))
            .collect::<Result<_, _>>()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let findings = examine(&answers, now);
        if self.json {
            let of = |weight| match weight {
                Weight::Now => "now",
                Weight::Next => "next",
                Weight::Aside => "aside",
            };
            let list: Vec<_> = findings
                .iter()
                .map(|finding| {
                    serde_json::json!({ "weight": of(finding.weight), "name": finding.name, "text": finding.text })
                })
                .collect();
            println!("{}", serde_json::Value::from(list));
        } else if findings.is_empty() {
            println!("{} nodes answered, and nothing is wrong", answers.len());
        } else {
            findings.iter().for_each(|finding| println!("{finding}"));
        }
        Ok(if findings.iter().any(|finding| finding.weight == Weight::Now) { WRONG } else { 0 })
    }
}
