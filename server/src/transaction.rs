//! MULTI, refused whole.
//!
//! There are no transactions here. To refuse MULTI alone would be worse than to have none: libraries send
//! MULTI, the commands and EXEC in one go, and what stands between would be carried out, one by one, while
//! the caller is told of a failure. So a refused MULTI refuses everything up to the EXEC or DISCARD that
//! ends it, and EXEC says that nothing was done.

use crate::commands::{self, Request, wrong_arity};
use crate::resp::Command;

const UNSUPPORTED: &str = "ERR MULTI is not supported: everything up to EXEC or DISCARD is refused; MSET changes several keys at once";
const REFUSED: &str =
    "ERR not done: it follows a MULTI that was refused; EXEC or DISCARD ends what that began";
const ABORTED: &str = "EXECABORT Transaction discarded because MULTI is not supported; nothing was done";

/// Whether a connection is between a refused MULTI and its end.
#[derive(Default, Debug)]
pub(crate) struct Transaction {
    refused: bool,
}

impl Transaction {
    /// Understands the next command of the connection.
    pub(crate) fn parse(&mut self, command: Command) -> Request {
        let word = ["multi", "exec", "discard", "watch", "unwatch", "reset", "quit"]
            .into_iter()
            .find(|word| command.is(0, word));
        let refuse = |text: &str| Request::Refuse(text.into());
        match (word, self.refused) {
            (Some(word @ ("multi" | "exec" | "discard" | "unwatch")), _) if command.len() != 1 => {
                Request::Refuse(wrong_arity(word))
            }
            (Some("multi"), false) => {
                self.refused = true;
                refuse(UNSUPPORTED)
            }
            (Some("multi"), true) => refuse("ERR MULTI calls can not be nested"),
            (Some("exec"), true) => {
                self.refused = false;
                refuse(ABORTED)
            }
            (Some("discard"), true) => {
                self.refused = false;
                Request::Done
            }
            (Some("exec"), false) => refuse("ERR EXEC without MULTI"),
            (Some("discard"), false) => refuse("ERR DISCARD without MULTI"),
            (Some("watch"), false) => refuse("ERR WATCH is not supported: there are no transactions here"),
            (Some("unwatch"), false) => {
                refuse("ERR UNWATCH is not supported: there are no transactions here")
            }
            // As in redis, both leave a transaction without ending it.
            (Some("reset" | "quit"), _) => {
                self.refused = false;
                commands::parse(command)
            }
            (_, true) => refuse(REFUSED),
            (_, false) => commands::parse(command),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::Parser;

    /// What becomes of these lines, one after the other: the text of a refusal, or what is done.
    fn fates(lines: &[&str]) -> Vec<String> {
        let mut transaction = Transaction::default();
        let fate = |line: &&str| {
            let line = format!("{line}\n");
            match transaction.parse(Parser::new().next(&mut line.as_bytes()).unwrap().unwrap()) {
                Request::Refuse(text) => text,
                Request::Write(_) | Request::Read(_) => "carried out".into(),
                Request::Done => "OK".into(),
                _ => "answered".into(),
            }
        };
        lines.iter().map(fate).collect()
    }

    #[test]
    fn a_refused_multi_refuses_everything_up_to_its_end() {
        assert_eq!(
            fates(&["multi", "SET k 1", "NONSENSE", "WATCH k", "PING", "MULTI", "Exec", "SET k 2", "EXEC"]),
            [
                UNSUPPORTED,
                REFUSED,
                REFUSED,
                REFUSED,
                REFUSED,
                "ERR MULTI calls can not be nested",
                ABORTED,
                "carried out",
                "ERR EXEC without MULTI"
            ]
        );
    }

    #[test]
    fn discard_and_reset_end_a_refused_multi_and_a_wrong_exec_does_not() {
        assert_eq!(fates(&["MULTI", "DISCARD", "GET k"]), [UNSUPPORTED, "OK", "carried out"]);
        assert_eq!(fates(&["MULTI", "RESET", "GET k"]), [UNSUPPORTED, "answered", "carried out"]);
        assert_eq!(
            fates(&["MULTI", "EXEC now", "GET k"]),
            [UNSUPPORTED, "ERR wrong number of arguments for 'exec' command", REFUSED]
        );
        assert_eq!(fates(&["DISCARD"]), ["ERR DISCARD without MULTI"]);
    }
}
