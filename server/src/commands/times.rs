//! Times of life in commands.

use super::NOT_A_NUMBER;
use crate::kv::{self, Life};
use crate::resp::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// In what a life is given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Times {
    /// From now on.
    Seconds,
    /// From now on.
    Millis,
    /// Since 1970.
    AtSecond,
    /// Since 1970.
    AtMilli,
}

impl Times {
    /// What this argument says that the next one is.
    pub(super) fn named(command: &Command, at: usize) -> Option<Times> {
        let names = [
            ("ex", Times::Seconds),
            ("px", Times::Millis),
            ("exat", Times::AtSecond),
            ("pxat", Times::AtMilli),
        ];
        names.into_iter().find(|(name, _)| command.is(at, name)).map(|(_, times)| times)
    }

    /// The life of a key that is written by the command of this name, which must not be over. The error is the text of a
    /// reply.
    pub(super) fn life(self, digits: &[u8], name: &str) -> Result<Life, String> {
        let life = self.any_life(digits, name)?;
        match life {
            Life::For(1..) | Life::Until(1..) => Ok(life),
            _ => Err(invalid(name)),
        }
    }

    /// The same, but it may be over.
    pub(super) fn any_life(self, digits: &[u8], name: &str) -> Result<Life, String> {
        let number = kv::number(digits).ok_or(NOT_A_NUMBER)?;
        let millis = match self {
            Times::Seconds | Times::AtSecond => number.checked_mul(1000).ok_or_else(|| invalid(name))?,
            Times::Millis | Times::AtMilli => number,
        };
        if matches!(self, Times::AtSecond | Times::AtMilli) {
            return Ok(Life::Until(millis));
        }
        // Its end must be a time, too.
        now().checked_add(millis).ok_or_else(|| invalid(name))?;
        Ok(Life::For(millis))
    }
}

fn invalid(name: &str) -> String {
    format!("ERR invalid expire time in '{name}' command")
}

/// The milliseconds since 1970, as this computer has them.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
