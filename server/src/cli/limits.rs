//! What clients may cost: flags of `serve`.

use super::duration;
use crate::connection::Limits;
use clap::Args;
use std::time::Duration;

/// See [`Limits`].
#[derive(Args)]
pub(super) struct ClientLimits {
    /// Maximum number of client connections
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().clients)]
    max_clients: usize,
    /// Maximum number of client connections from one address, and of one user [default: three quarters of --max-clients]
    #[arg(long, value_name = "COUNT")]
    max_clients_per_address: Option<usize>,
    /// Close a connection whose command stays incomplete for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    half_command_limit: Duration,
    /// Close a connection that takes nothing of its replies for this long
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    slow_reader_limit: Duration,
    /// Memory for the large commands of all clients together; one address, or one user, may take three quarters of it
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size)]
    command_memory: usize,
    /// Memory for the large replies of all clients together; one address, or one user, may take three quarters of it
    #[arg(long, value_name = "SIZE", default_value = "128MiB", value_parser = size)]
    reply_memory: usize,
    /// Refuse whatever adds to the keys once they and their values take so much memory; nothing is ever evicted
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    max_memory: Option<usize>,
}

impl ClientLimits {
    pub(super) fn load(self) -> Result<Limits, String> {
        let none = self.max_clients == 0 || self.max_clients_per_address == Some(0);
        if none || self.half_command_limit.is_zero() || self.slow_reader_limit.is_zero() {
            return Err(
                "--max-clients, --max-clients-per-address, --half-command-limit and --slow-reader-limit \
                        must not be zero"
                    .into(),
            );
        }
        Ok(Limits {
            clients: self.max_clients,
            clients_per_address: self.max_clients_per_address,
            half_command: self.half_command_limit,
            stalled: self.slow_reader_limit,
            commands: self.command_memory,
            replies: self.reply_memory,
            memory: self.max_memory.map(|bytes| bytes as u64),
        })
    }
}

/// The least that may be set: the largest command with what is made of it, and a large value on its way out, have room in the
/// part of one address.
const LEAST: usize = 32 << 20;

/// Reads `256MiB` or `2GiB`.
fn size(text: &str) -> Result<usize, String> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let unit = match unit {
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("write a size as 256MiB or 2GiB".into()),
    };
    let number: usize = number.parse().map_err(|_| "write a size as 256MiB or 2GiB".to_owned())?;
    let bytes = number.checked_mul(unit).ok_or("that is more than can be addressed")?;
    if bytes < LEAST { Err("it must be at least 32MiB".into()) } else { Ok(bytes) }
}

/// Reads the same, or a number of bytes, as those who come from Redis write it.
fn memory(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bytes) if bytes < LEAST => Err("it must be at least 32MiB".into()),
        Ok(bytes) => Ok(bytes),
        Err(_) => size(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_numbers_with_units() {
        assert_eq!((memory("67108864"), memory("64MiB")), (Ok(64 << 20), Ok(64 << 20)));
        assert!(memory("1").is_err() && memory("64mb").is_err());
        assert_eq!((size("256MiB"), size("2GiB")), (Ok(256 << 20), Ok(2 << 30)));
        for wrong in ["256", "MiB", "256MB", "31MiB", "99999999999GiB", "-1GiB"] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }
}
