//! Whole clusters of the production code, attacked from seeds. See `docs/testing.md`.
//!
//! The environment chooses a larger campaign: `SEEDS=20000 FROM=1000 cargo test --release -p coracle
//! --features sim --test sim -- --ignored --nocapture campaign`.

#![cfg(feature = "sim")]

use coracle::sim::{
    Campaign, Decision, Kind, Options, PACES, Report, SITUATIONS, cores, on_cores, run, shrink,
};
use std::ops::ControlFlow;
use std::time::Instant;

/// Runs these seeds, and says of each that breaks something how to see it again.
fn campaign(seeds: impl IntoIterator<Item = u64, IntoIter: Send>) -> Campaign {
    let mut campaign = Campaign::new();
    let _ = on_cores(
        cores(),
        seeds,
        |seed| run(Options::new(seed)),
        |report| {
            if let Some(violation) = &report.violation {
                let detail: String = violation.detail.chars().take(300).collect();
                println!("seed {} breaks {}: {detail}", report.seed, violation.invariant);
            }
            campaign.add(&report);
            ControlFlow::<()>::Continue(())
        },
    );
    campaign
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn two_hundred_seeds_hold() {
    let campaign = campaign(0..200);
    assert_eq!(campaign.violations, []);
    assert!(campaign.committed > 10_000, "{campaign:?}");
}

#[test]
#[ignore = "long; for people"]
fn a_campaign_as_the_environment_says() {
    let (from, seeds) = (from_environment("FROM").unwrap_or(0), from_environment("SEEDS").unwrap_or(2000));
    let began = Instant::now();
    let campaign = campaign(from..from + seeds);
    let time = began.elapsed().as_secs_f64();
    for (name, _) in SITUATIONS {
        println!("{:9}  {name}", campaign.counts[name]);
    }
    for (name, most, meaning) in PACES {
        let mean = campaign.paces.get(name).map_or(0, |pace| pace.mean());
        println!("{name}: {mean}, at most {most}; {meaning}");
    }
    let Campaign { seeds, steps, messages, committed, operations, .. } = campaign;
    println!(
        "{seeds} seeds, {steps} steps, {messages} messages, {operations} operations, {committed} committed"
    );
    println!("{:.0} commits per 1,000 steps", committed as f64 * 1000.0 / steps as f64);
    println!("{:.1} million steps a minute", steps as f64 / time * 60.0 / 1e6);
    assert_eq!(campaign.verdict(), Vec::<String>::new());
}

/// `SEED=7 cargo test ... -- --ignored --nocapture tell`: the shrunk story of one seed. With the feature
/// `mutants` and `MUTANT=NAME`: that of the first seed from there on that finds the mutant.
#[test]
#[ignore = "for people"]
fn tell_a_seed() {
    let from = from_environment("SEED").unwrap_or(0);
    #[cfg_attr(not(feature = "mutants"), allow(unused_mut))]
    let mut options = Options::new(from);
    #[cfg_attr(not(feature = "mutants"), allow(unused_mut))]
    let mut seeds = from..=from;
    #[cfg(feature = "mutants")]
    if let Ok(name) = std::env::var("MUTANT") {
        options.mutant = coracle::sim::MUTANTS.iter().find(|m| m.name == name).map(|m| m.name);
        assert!(options.mutant.is_some(), "there is no mutant {name}");
        seeds = from..=from + 5000;
    }
    match seeds.into_iter().find_map(|seed| shrink(&Options { seed, ..options.clone() }, &mut |_| true)) {
        Some(shrunk) => println!("{shrunk}"),
        None => println!("seed {from} breaks nothing"),
    }
}

/// What once broke something: the seed, the nodes (drawn from the seed, if not given), the steps, and what goes
/// wrong (everything, if nothing is named).
const KEPT: &[(u64, Option<usize>, u64, Option<&str>)] = &[
    // Before the first commit a single node may be all there is of the cluster: its disk is spared.
    (49, None, 2000, None),
    // An older entry in the place of a committed one may go.
    (604, None, 2000, None),
    // A snapshot that came while another was being installed is installed next.
    (594, None, 2000, None),
    // A log may be reset to a snapshot while it is being read for the machine.
    (5_400_000_152, None, 2000, None),
    // A machine that was started anew is right at the index at which it was wrong before.
    (1409, None, 2000, None),
    // What was loaded for a place that the follower has left does not leave: it was counted nowhere.
    (7_002_459, None, 2000, None),
    // A leader that wakes up late hands over, gives up, and takes commands again, all in one turn.
    (6_200_001_615, None, 2000, None),
    // What is for a disk that was wiped says nothing to the one that its node has now.
    (6_000_000_030, None, 2000, None),
    // A connection that one end gives up is none at the other.
    (6_000_001_486, None, 2000, None),
    // Nothing is under way to a member that was removed and has come back.
    (6_000_005_447, None, 2000, None),
    // Two that a change removes look for each other no more, though both were members when the faults ended.
    (6_400_019_407, None, 362, Some("freeze:0:0 change:0:14 move:0:3 freeze:0:2")),
    (6_400_022_683, None, 2000, None),
    // Where a member is may be told before the entry that adds it has come, and is told once.
    (
        7_500_069_264,
        None,
        1527,
        Some(
            "want:0:0 slow-disk:0:0 strike:0:0 slow-disk:0:3 change:0:88 change:0:93 flap:0:11 change:0:148 \
             change:0:150 freeze:0:5 change:0:152 crash:0:7 crash:0:8 partition:0:88 change:0:257 move:0:6 \
             move:0:7 move:0:11",
        ),
    ),
    // Whoever lags by a thousand entries, and is sent one at a time, needs time for a thousand round trips.
    (7_500_072_999, None, 2000, None),
    // Snapshots that were on their way to a disk, or from it, go on once its process is in front of its copy again.
    (6_400_037_264, None, 2000, None),
    (6_400_086_849, None, 2000, None),
    // What says where all are may be committed and not yet on every disk.
    (6_400_069_646, None, 2000, None),
    // A snapshot may be durable before the term in which it came.
    (638, None, 2000, None),
    // What a start finds of a snapshot may be in the page cache only.
    (3_001_420, None, 2000, None),
    // A quorum that has never heard of the membership elects nobody.
    (4925, None, 2000, None),
    // What a follower acknowledged to an older leader it may have dropped for a newer one.
    (700_360, None, 2000, None),
    // A disk that hangs under a leader, with a partition just before.
    (72, None, 600, Some("partition:0:4 siege:0:0")),
    // What waits for a disk may pass its limit by one message, which is as large as its sender makes it.
    (20_002_836, None, 2000, None),
    // Once a hanging disk works again, what it was given is done soon, or the time for catching up is over.
    (100_055_112, None, 2000, None),
    // A leader may purge only what it knows its followers to have, not what they have.
    (400_022_779, None, 2000, None),
    (400_085_850, None, 2000, None),
    // A node that could not read stops, and the disk is to blame, though its turn goes on for a while.
    (100_328, None, 2000, None),
    // What left after entries that the transport refused is under way no more once their leader hears of that.
    (9_001_286, None, 2000, None),
    // What the machines of a majority agree on is not taken from a message that is for somebody else.
    (
        910_001_178,
        None,
        315,
        Some(
            "delay:12:0 delay:13:0 delay:31:0 slow-disk:0:1 disk-error:0:0 delay:12:1 delay:13:1 \
             delay:21:1 delay:31:1 slow-disk:0:2 slow-disk:1:0 slow-disk:2:0 hold:12:5 slow-disk:2:1 \
             delay:21:5 slow-disk:1:1 freeze:0:0 clock:0:0 rot:0:0 slow-disk:2:5 slow-disk:1:4 \
             turnover:0:0 slow-disk:0:6 crash:0:0 slow-disk:1:8 stray:0:40",
        ),
    ),
    // Whoever drops the entries of an append drops the rulings in it too, and commits nothing by it.
    (7835000176, None, 2000, None),
    // Of three machines one is given up late, for what it looked like once: none is left to see what is wrong with another.
    (7_862_009_016, None, 2000, None),
    // An entry may be skipped twice, where it was asked for twice.
    (7_863_002_452, None, 2000, None),
    // A leader that leaves takes no change: with its own removal it would lead on.
    (7_863_037_829, None, 2000, None),
    // A commit index that comes late may be from before a ruling.
    (7_864_129_579, None, 2000, None),
];

#[test]
fn what_once_broke_something_holds() {
    for (seed, nodes, steps, only) in KEPT {
        let only = only.map(|only| only.split(' ').map(|text| text.parse().unwrap()).collect());
        let report = run(Options { nodes: *nodes, steps: *steps, only, ..Options::new(*seed) });
        assert_eq!(report.violation, None, "seed {seed}");
    }
}

fn same(a: &Report, b: &Report) -> bool {
    (a.trace_hash, a.steps, a.messages, a.committed, &a.counts)
        == (b.trace_hash, b.steps, b.messages, b.committed, &b.counts)
}

/// S24: the seed decides everything.
#[test]
fn s24_the_same_seed_gives_the_same_run() {
    let mut hashes = std::collections::BTreeSet::new();
    for seed in 0..40 {
        let (first, second) = (run(Options::new(seed)), run(Options::new(seed)));
        assert!(same(&first, &second), "seed {seed}");
        hashes.insert(first.trace_hash);
    }
    assert_eq!(hashes.len(), 40, "and another seed another one");
}

/// To look at a run changes nothing in it, and what was decided replays it.
#[test]
fn a_run_replays_from_its_decisions() {
    for seed in 0..20 {
        let plain = run(Options::new(seed));
        let told = run(Options { remember: true, story: true, ..Options::new(seed) });
        assert!(same(&plain, &told) && !told.story.is_empty(), "seed {seed}");
        let again = run(Options { only: Some(told.decisions), ..Options::new(seed) });
        assert!(same(&plain, &again), "seed {seed}");
    }
}

/// Whatever the simulated code does, a run ends with a report that says so.
#[cfg(feature = "mutants")]
#[test]
fn every_run_of_a_broken_rule_ends_with_a_report() {
    for mutant in coracle::sim::MUTANTS {
        let report = run(Options { mutant: Some(mutant.name), steps: 300, ..Options::new(1) });
        assert_eq!(report.seed, 1, "{}", mutant.name);
    }
}

/// Without anything that goes wrong, nothing goes wrong.
#[test]
fn a_run_with_everything_switched_off_is_dull() {
    let report = run(Options { only: Some(Vec::new()), steps: 500, ..Options::new(3) });
    assert_eq!(report.violation, None);
    for rare in ["message dropped", "message held", "process crash", "power loss", "write stalled", "rumour"]
    {
        assert_eq!(report.counts[rare], 0, "{rare}");
    }
    // The same with one crash: a kept failure is such a list.
    let crash = vec![Decision { kind: Kind::Crash, who: 0, number: 1 }];
    let seed = (0..200).find(|&seed| {
        let report = run(Options { only: Some(crash.clone()), ..Options::new(seed) });
        report.counts["process crash"] + report.counts["power loss"] == 1
    });
    assert!(seed.is_some());
}
