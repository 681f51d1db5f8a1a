//! `CONFIG`: what the server is set to, in redis's names. It is set where the server is started, and some of it until the next
//! start here.

use super::About;
use crate::commands::{unknown_subcommand, wrong_arity};
use crate::glob;
use crate::kv::{DATABASES, MAX_VALUE};
use crate::resp::{Command, Replies};
use std::sync::atomic::Ordering;

/// What can be set here.
const MAX_MEMORY: &str = "maxmemory";

/// The names with their values, and the option of `coracle serve` that sets it, if any does.
fn settings(about: &About) -> [(&'static str, String, Option<&'static str>); 9] {
    let durable = if about.durable { "yes" } else { "no" };
    [
        ("save", String::new(), None),
        ("appendonly", durable.to_owned(), Some("--store")),
        ("appendfsync", "always".to_owned(), None),
        ("databases", DATABASES.to_string(), None),
        ("maxclients", about.all.clients.limit().to_string(), Some("--max-clients")),
        (MAX_MEMORY, about.memory_limit().to_string(), Some("--max-memory")),
        ("maxmemory-policy", "noeviction".to_owned(), None),
        ("port", about.port.to_string(), Some("--client-addr")),
        ("proto-max-bulk-len", MAX_VALUE.to_string(), None),
    ]
}

/// `CONFIG GET pattern…` and `CONFIG SET name value …`.
pub(super) fn answer(about: &About, command: &Command, replies: &mut Replies) {
    let settings = settings(about);
    if command.is(1, "get") {
        if command.len() < 3 {
            return replies.error(&wrong_arity("config|get"));
        }
        let short = |at: usize| &command.argument(at)[..command.argument(at).len().min(glob::MAX_PATTERN)];
        let asked = |name: &str| {
            (2..command.len().min(34))
                .any(|at| glob::matches(&short(at).to_ascii_lowercase(), name.as_bytes()).0)
        };
        let shown: Vec<_> = settings.iter().filter(|(name, ..)| asked(name)).collect();
        replies.map(shown.len());
        for (name, value, _) in shown {
            replies.bulk(name.as_bytes());
            replies.bulk(value.as_bytes());
        }
    } else if command.is(1, "set") {
        if command.len() < 4 || !command.len().is_multiple_of(2) {
            return replies.error(&wrong_arity("config|set"));
        }
        match set(about, command) {
            Ok(()) => replies.simple("OK"),
            Err(error) => replies.error(&error),
        }
    } else if command.is(1, "resetstat") || command.is(1, "rewrite") {
        replies.error("ERR there is no configuration file to write here, and nothing to reset");
    } else {
        replies.error(&unknown_subcommand(command));
    }
}

/// Sets all of them, or none.
fn set(about: &About, command: &Command) -> Result<(), String> {
    let mut limit = None;
    for at in (2..command.len()).step_by(2) {
        if command.is(at, MAX_MEMORY) {
            let bytes = bytes(command.argument(at + 1));
            limit = Some(bytes.ok_or("ERR CONFIG SET failed (possibly related to argument 'maxmemory') - argument must be a memory value")?);
            continue;
        }
        let settings = settings(about);
        let known = settings.iter().find(|(name, ..)| command.is(at, name));
        return Err(match known {
            Some((name, _, Some(option))) => {
                format!("ERR CONFIG SET failed: {name} is set by {option} where the server is started")
            }
            Some((name, _, None)) => format!("ERR CONFIG SET failed: {name} cannot be set here"),
            None => "ERR Unknown option or number of arguments for CONFIG SET".to_owned(),
        });
    }
    if let Some(limit) = limit {
        about.max_memory.store(limit, Ordering::Relaxed);
        tracing::info!(
            "keys and values may take {limit} bytes (0: all there is), until the next start: by CONFIG SET"
        );
    }
    Ok(())
}

/// A size as redis's configuration has them: `1gb` is 2^30 bytes, `1g` is 10^9.
fn bytes(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let digits = text.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "b" => 1,
        "k" => 1_000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_redis_reads_them() {
        for (text, value) in
            [("0", 0), ("100", 100), ("1b", 1), ("2k", 2000), ("2KB", 2048), ("1Gb", 1 << 30)]
        {
            assert_eq!(bytes(text.as_bytes()), Some(value), "{text}");
        }
        for text in ["", "b", "-1", "1.5gb", "1tb", "1 gb", "99999999999gb"] {
            assert_eq!(bytes(text.as_bytes()), None, "{text}");
        }
    }
}
