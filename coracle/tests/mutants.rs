//! Mutants: rules broken on purpose, each of which the simulator must find.
//!
//! `cargo test` shows a few that are found at once. All of them, where docs/testing.md says:
//! `cargo test -p coracle --test mutants -- --ignored --nocapture found_again`. Its table anew:
//! `cargo test --release -p coracle --test mutants -- --ignored --nocapture every_mutant_is_found_first`.

use coracle::sim::{MUTANTS, Mutant, Options, Report, cores, on_cores, run, shrink};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Instant;

/// A run with this rule broken.
fn broken(seed: u64, name: &'static str) -> Report {
    run(Options { mutant: Some(name), ..Options::new(seed) })
}

/// Each of these is found within so many seeds: one of the log, of votes, of commit, of reads, of clients.
#[test]
fn a_few_mutants_are_found_at_once() {
    for (name, seeds) in [
        ("directory-not-synced", 60),
        ("log-compared-by-term", 60),
        ("leader-counts-unsynced", 60),
        ("read-joins-round-under-way", 60),
        ("command-applied-twice", 60),
    ] {
        let found = found(name, seeds);
        assert!(found.is_some(), "{name} survives {seeds} seeds");
    }
}

/// And where nothing is broken, nothing is found.
#[test]
fn without_a_mutant_nothing_is_found() {
    for seed in 0..60 {
        assert_eq!(run(Options::new(seed)).violation, None, "seed {seed}");
    }
}

/// Whether this seed finds it, and by which invariant: one that holds when nothing is broken. An assertion of
/// the code itself is the last resort, and counts as "panic".
fn found_by(seed: u64, name: &'static str) -> Option<(u64, &'static str, String)> {
    let violation = broken(seed, name).violation?;
    let blames = run(Options::new(seed)).violation.is_none();
    blames.then_some((seed, violation.invariant, violation.detail))
}

/// The first of the seeds from 0 that finds it.
fn found(name: &'static str, seeds: u64) -> Option<(u64, &'static str, String)> {
    (0..seeds).find_map(|seed| found_by(seed, name))
}

/// The first seed that found each, as the table of docs/testing.md says.
fn table() -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/testing.md"));
    let text = text.unwrap_or_default();
    let cells = text.lines().map(|line| line.split('|').map(str::trim).collect::<Vec<_>>());
    let row = |cells: Vec<&str>| Some((cells.get(1)?.to_string(), cells.get(4)?.parse::<u64>().ok()? - 1));
    cells.filter_map(row).collect()
}

/// Every mutant, or those whose names contain `MUTANT`, is found still: where the table says, or in at most
/// `SEEDS` seeds. What the table says is a good guess and no more: a rule that is broken elsewhere, or a plan
/// that draws otherwise, moves the seeds.
#[test]
#[ignore = "a minute; run it optimised"]
fn every_mutant_is_found_again() {
    let only = std::env::var("MUTANT").unwrap_or_default();
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3000);
    let (table, mut moved, mut survivors) = (table(), 0, Vec::new());
    let chosen = MUTANTS.iter().filter(|mutant| mutant.name.contains(&only));
    let look = |mutant: &'static Mutant| {
        let there = table.get(mutant.name).and_then(|&seed| found_by(seed, mutant.name));
        (mutant.name, there.is_some(), there.or_else(|| found(mutant.name, seeds)))
    };
    let _ = on_cores(cores(), chosen, look, |(name, there, found)| {
        match found {
            Some((seed, invariant, _)) if !there => {
                moved += 1;
                println!("{name}: not where the table says; found by {invariant} at seed {seed}");
            }
            Some(_) => {}
            None => survivors.push(name),
        }
        ControlFlow::<()>::Continue(())
    });
    println!("{moved} are found elsewhere than the table says");
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// Every mutant, or those whose names contain `MUTANT`, by the first seed that finds it, of at most `SEEDS`.
#[test]
#[ignore = "minutes; run it optimised"]
fn every_mutant_is_found_first() {
    let only = std::env::var("MUTANT").unwrap_or_default();
    let seeds = std::env::var("SEEDS").ok().and_then(|seeds| seeds.parse().ok()).unwrap_or(3000);
    println!("| mutant | rule | found by | seeds | CPU seconds | what it does |");
    println!("|---|---|---|---:|---:|---|");
    let mut survivors = Vec::new();
    let chosen = MUTANTS.iter().filter(|mutant| mutant.name.contains(&only));
    let look = |mutant: &'static Mutant| {
        let began = Instant::now();
        (mutant, found(mutant.name, seeds), began.elapsed().as_secs_f64())
    };
    let _ = on_cores(cores(), chosen, look, |(mutant, found, seconds)| {
        let (by, count) = match &found {
            Some((seed, invariant, _)) => (*invariant, seed + 1),
            None => ("**nothing**", seeds),
        };
        println!("| `{}` | {} | {by} | {count} | {seconds:.2} | {} |", mutant.name, mutant.rule, mutant.says);
        if std::env::var("DETAIL").is_ok() {
            let detail = found.as_ref().map(|(.., detail)| detail.chars().take(300).collect::<String>());
            println!("    {detail:?}");
        }
        if found.is_none() {
            survivors.push(mutant.name);
        }
        ControlFlow::<()>::Continue(())
    });
    assert!(survivors.is_empty(), "not found: {survivors:?}");
}

/// How short the failures of the mutants become: of each, or of those whose names contain `MUTANT`, its first
/// find. What is left must read as a conversation.
#[test]
#[ignore = "minutes; run it optimised"]
fn every_find_shrinks_to_a_short_story() {
    let only = std::env::var("MUTANT").unwrap_or_default();
    println!("| mutant | invariant | decisions | left | lines | steps | runs | seconds |");
    println!("|---|---|---:|---:|---:|---:|---:|---:|");
    let mut left = Vec::new();
    for mutant in MUTANTS.iter().filter(|mutant| mutant.name.contains(&only)) {
        let Some((seed, ..)) = found(mutant.name, 3000) else { continue };
        let began = Instant::now();
        let options = Options { mutant: Some(mutant.name), ..Options::new(seed) };
        let Some(shrunk) = shrink(&options, &mut |_| true) else { continue };
        let (lines, seconds) = (shrunk.conversation().len(), began.elapsed().as_secs_f64());
        println!(
            "| `{}` | {} | {} | {} | {lines} | {} | {} | {seconds:.1} |",
            mutant.name,
            shrunk.violation.invariant,
            shrunk.before,
            shrunk.decisions.len(),
            shrunk.options.steps,
            shrunk.runs,
        );
        if std::env::var("STORY").is_ok() {
            println!("{shrunk}");
        }
        left.push(shrunk.decisions.len());
    }
    left.sort_unstable();
    let median = left[left.len() / 2];
    println!("median {median}, most {}", left[left.len() - 1]);
    assert!(!only.is_empty() || median <= 15, "half of the failures keep more than {median} decisions");
}
