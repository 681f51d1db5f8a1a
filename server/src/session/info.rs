//! `INFO`: how the server is, in the sections that redis's monitors read.

use super::{About, DIALECT};
use crate::accounts::Account;
use crate::figures::Figures;
use crate::monitor::Process;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// The sections, in their order.
const SECTIONS: [&str; 8] =
    ["server", "clients", "memory", "persistence", "stats", "replication", "cluster", "keyspace"];

/// The sections that are asked for; all of them where none is.
pub(super) fn text(about: &About, asked: &[String]) -> String {
    let all =
        asked.is_empty() || asked.iter().any(|word| ["all", "default", "everything"].contains(&&word[..]));
    let sections = SECTIONS.iter().filter(|name| all || asked.iter().any(|word| word == *name));
    let mut text = String::new();
    for name in sections {
        let (first, rest) = name.split_at(1);
        let between = if text.is_empty() { "" } else { "\r\n" };
        // A string takes all that is written to it.
        let _ = write!(text, "{between}# {}{rest}\r\n", first.to_uppercase());
        for (key, value) in section(about, name) {
            let _ = write!(text, "{key}:{value}\r\n");
        }
    }
    text
}

fn section(about: &About, name: &str) -> Vec<(String, String)> {
    let Account { clients, commands, replies, .. } = &*about.all;
    let uptime = about.since.elapsed().as_secs();
    let data = about.figures.bytes();
    let limit = about.memory_limit();
    let pairs: Vec<(&str, String)> = match name {
        "server" => vec![
            ("redis_version", DIALECT.to_owned()),
            ("redis_mode", "standalone".to_owned()),
            ("coracle_version", env!("CARGO_PKG_VERSION").to_owned()),
            ("coracle_node", about.node.to_string()),
            ("os", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
            ("arch_bits", usize::BITS.to_string()),
            ("process_id", std::process::id().to_string()),
            ("tcp_port", about.port.to_string()),
            ("uptime_in_seconds", uptime.to_string()),
            ("uptime_in_days", (uptime / 86_400).to_string()),
        ],
        "clients" => vec![
            ("connected_clients", clients.held().to_string()),
            ("maxclients", clients.limit().to_string()),
            ("blocked_clients", "0".to_owned()),
            ("command_bytes", commands.held().to_string()),
            ("max_command_bytes", commands.limit().to_string()),
            ("reply_bytes", replies.held().to_string()),
            ("max_reply_bytes", replies.limit().to_string()),
        ],
        "memory" => vec![
            ("used_memory", data.to_string()),
            ("used_memory_human", human(data)),
            ("used_memory_rss", Process::look().map_or(0, |process| process.resident_bytes).to_string()),
            ("used_memory_dataset", data.to_string()),
            ("maxmemory", limit.to_string()),
            ("maxmemory_human", human(limit)),
            ("maxmemory_policy", "noeviction".to_owned()),
        ],
        "persistence" => vec![
            ("loading", u8::from(about.is_loading()).to_string()),
            ("rdb_bgsave_in_progress", "0".to_owned()),
            ("rdb_last_bgsave_status", "ok".to_owned()),
            ("aof_enabled", u8::from(about.durable).to_string()),
            ("aof_last_write_status", "ok".to_owned()),
        ],
        "stats" => {
            let served = &about.served;
            vec![
                ("total_connections_received", about.came.load(Ordering::Relaxed).to_string()),
                ("total_commands_processed", served.commands.load(Ordering::Relaxed).to_string()),
                ("total_error_replies", served.failures.load(Ordering::Relaxed).to_string()),
                ("keyspace_hits", served.hits.load(Ordering::Relaxed).to_string()),
                ("keyspace_misses", served.misses.load(Ordering::Relaxed).to_string()),
                ("evicted_keys", "0".to_owned()),
            ]
        }
        // A client need not know about the cluster: it may use any node as if it were the only one.
        "replication" => vec![
            ("role", "master".to_owned()),
            ("connected_slaves", "0".to_owned()),
            ("see", "CORACLE STATUS".to_owned()),
        ],
        "cluster" => vec![("cluster_enabled", "0".to_owned())],
        _ => return keyspace(&about.figures),
    };
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn keyspace(figures: &Figures) -> Vec<(String, String)> {
    let full = figures.databases().enumerate().filter(|(_, (keys, _))| *keys > 0);
    full.map(|(number, (keys, mortal))| {
        (format!("db{number}"), format!("keys={keys},expires={mortal},avg_ttl=0"))
    })
    .collect()
}

fn human(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes}B"),
        1024..1_048_576 => format!("{:.2}K", bytes as f64 / 1024.0),
        1_048_576..1_073_741_824 => format!("{:.2}M", bytes as f64 / 1_048_576.0),
        _ => format!("{:.2}G", bytes as f64 / 1_073_741_824.0),
    }
}
