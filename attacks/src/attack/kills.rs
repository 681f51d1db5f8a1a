//! Nodes are killed with SIGKILL, one, two or all of them, under load and while they start.

use crate::load::{self, Load, at_rest};
use crate::{Failure, Target};
use coracle_attacks::dice::Dice;
use coracle_server::cluster::{Cluster, wait};
use std::time::{Duration, Instant};

/// The longest time of load before a kill.
const LOAD_MILLIS: u64 = 200;

/// The longest time that a node is given to start before it is killed again, how often that happens, in
/// percent, and how many times in a row.
const START_MILLIS: u64 = 40;
const START_KILLS: u64 = 35;
const NESTED: u32 = 3;

/// How long anything may take that should be there at once.
const LIMIT: Duration = Duration::from_secs(120);

/// So many rounds on a cluster of so many members.
pub(crate) fn rounds(target: &Target, members: usize, rounds: u64) -> Result<(), Failure> {
    let directory = target.subdirectory(&format!("kills-of-{members}"))?;
    let mut dice = Dice::new(target.seed);
    let programs = vec![target.program(&directory); members];
    let started = Cluster::start(&directory, programs, target.interrupt.clone());
    let mut cluster = started.map_err(Failure::Trouble)?;
    cluster.form().map_err(Failure::Trouble)?;
    let (mut ledger, mut killed, mut starting, mut longest) = (load::Ledger::default(), 0, 0, Duration::ZERO);
    for round in 1..=rounds {
        let load = Load::start(&cluster, round, dice.next());
        wait("the first write", LIMIT, &target.interrupt, || Ok((load.acknowledged() > 0).then_some(())))
            .map_err(Failure::Found)?;
        std::thread::sleep(dice.millis(LOAD_MILLIS));
        let load = at_rest(load, &mut dice);
        let victims = victims(&cluster, &mut dice);
        if victims.len() == members {
            cluster.kill_all();
        }
        for id in &victims {
            cluster.kill(*id);
        }
        killed += victims.len();
        for id in &victims {
            for depth in 0.. {
                let began = Instant::now();
                cluster.spawn(*id).map_err(Failure::Trouble)?;
                if depth < NESTED && dice.chance(START_KILLS) {
                    std::thread::sleep(dice.millis(START_MILLIS));
                    cluster.kill(*id);
                    starting += 1;
                    continue;
                }
                cluster.ready(*id).map_err(|problem| Failure::Found(format!("round {round}: {problem}")))?;
                longest = longest.max(began.elapsed());
                break;
            }
        }
        let led = cluster.leader();
        let seen = load.stop();
        led.and_then(|_| ledger.judge(&cluster, seen, round == rounds))
            .map_err(|problem| Failure::Found(format!("after round {round}: {problem}")))?;
    }
    println!(
        "{rounds} rounds on {members} members: {killed} nodes killed under load and {starting} times while \
         starting; {ledger}; the slowest start took {} ms",
        longest.as_millis()
    );
    ledger.is_enough(rounds)
}

/// Who dies: one, the leader, a majority, or all.
fn victims(cluster: &Cluster, dice: &mut Dice) -> Vec<u64> {
    let mut ids = cluster.ids();
    let count = match dice.below(4) {
        0 => ids.len(),
        1 => ids.len() / 2 + 1,
        2 => {
            if let Ok((leader, _)) = cluster.leader() {
                return vec![leader];
            }
            1
        }
        _ => 1,
    };
    while ids.len() > count {
        ids.remove(dice.below(ids.len() as u64) as usize);
    }
    ids
}
