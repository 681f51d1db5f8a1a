//! An account, version 2: it takes withdrawals too. See `docs/upgrading.md`.
//!
//! ```sh
//! NODES=127.0.0.1:7401,127.0.0.1:7402,127.0.0.1:7403
//! for id in 1 2 3; do cargo run --example account_v2 serve $id $NODES /tmp/account-$id & done
//! cargo run --example account_v2 withdraw 5 1 $NODES
//! ```

#[path = "account/program.rs"]
mod program;

use coracle::snapshot::{self, Save};
use coracle::{Context, QueryContext, StateMachine};
use serde::{Deserialize, Serialize};
use std::io;

struct Account(u64);

#[derive(Serialize, Deserialize)]
enum Change {
    Deposit(u64),
    /// Since version 2.
    Withdraw(u64),
}

impl StateMachine for Account {
    const VERSION: u16 = 2;
    type Command = Change;
    type Reply = u64;
    type Query = ();
    type Answer = u64;

    fn version_of(change: &Change) -> u16 {
        match change {
            Change::Deposit(_) => 1,
            Change::Withdraw(_) => 2,
        }
    }

    fn apply(&mut self, _: &mut Context, change: Change) -> u64 {
        match change {
            Change::Deposit(amount) => self.0 += amount,
            Change::Withdraw(amount) => self.0 = self.0.saturating_sub(amount),
        }
        self.0
    }

    fn query(&self, _: &QueryContext, (): ()) -> u64 {
        self.0
    }

    fn snapshot(&self) -> impl Save {
        snapshot::save(self.0)
    }

    fn restore(&mut self, from: &mut dyn io::Read) -> io::Result<()> {
        snapshot::load(from).map(|balance| self.0 = balance)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let change = |word: &str, amount| match word {
        "deposit" => Some(Change::Deposit(amount)),
        "withdraw" => Some(Change::Withdraw(amount)),
        _ => None,
    };
    program::run(Account(0), change).await
}
