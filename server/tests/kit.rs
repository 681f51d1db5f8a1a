//! The server's machine in simulated clusters, under every fault: with keys that end, hashes, databases and transactions.

use bytes::Bytes;
use coracle::sim::kit::{Checks, Draw, Input, simulate};
use coracle_server::kv::{Kv, Life, Lookup, Only, OnlyLife, Operation, Unit, When};

const KEYS: [&str; 4] = ["a", "b", "c", "d"];
const FIELDS: [&str; 3] = ["f", "g", "h"];
const VALUES: [&str; 4] = ["1", "2.5", "", "text"];

fn key(draw: &mut Draw<'_>) -> Bytes {
    Bytes::from_static(draw.pick(&KEYS).as_bytes())
}

fn field(draw: &mut Draw<'_>) -> Bytes {
    Bytes::from_static(draw.pick(&FIELDS).as_bytes())
}

fn value(draw: &mut Draw<'_>) -> Bytes {
    Bytes::from_static(draw.pick(&VALUES).as_bytes())
}

/// Of some steps of the simulated clock, as a rule.
fn life(draw: &mut Draw<'_>) -> Life {
    match draw.below(6) {
        0 => Life::Forever,
        1 => Life::Keep,
        2 => Life::Until(draw.below(2_000_000) as i64),
        _ => Life::For(draw.below(3000) as i64 - 100),
    }
}

fn operation(draw: &mut Draw<'_>) -> Operation {
    let key = key(draw);
    match draw.below(16) {
        0 => Operation::Set { key, value: value(draw), when: When::Always, get: draw.chance(300) },
        1 | 2 => {
            let only = match draw.below(4) {
                0 => Only::Absent,
                1 => Only::Present,
                2 => Only::Equal(Box::new(value(draw))),
                _ => Only::Always,
            };
            Operation::Put { key, value: value(draw), only, life: life(draw), get: draw.chance(300) }
        }
        3 => Operation::Delete { keys: vec![key] },
        4 => Operation::Append { key, value: value(draw) },
        5 => Operation::Add { key, by: draw.below(5) as i64 - 2 },
        6 => Operation::AddFraction { key, by: value(draw) },
        7 => Operation::Take { key },
        8 | 9 => Operation::Expire { key, life: life(draw), only: OnlyLife::Always },
        10 => Operation::Rename { from: key, to: self::key(draw), absent: draw.chance(300) },
        11 => {
            let database = draw.chance(500).then(|| draw.below(3) as u8);
            Operation::Copy { from: key, to: self::key(draw), database, replace: draw.chance(500) }
        }
        12 => Operation::Move { key, database: draw.below(3) as u8 },
        13 if draw.chance(200) => Operation::Clear { all: draw.chance(300) },
        14 => Operation::DeleteFields { key, fields: vec![field(draw)] },
        _ => Operation::SetFields { key, pairs: vec![(field(draw), value(draw))], absent: draw.chance(200) },
    }
}

/// Some operations, now and then as a transaction that is void as a rule.
fn batch(draw: &mut Draw<'_>) -> Vec<Operation> {
    let mut batch = Vec::new();
    if draw.chance(200) {
        batch.push(Operation::Guard { watched: vec![(0, key(draw), draw.below(40))] });
    }
    for _ in 0..=draw.below(3) {
        if draw.chance(300) {
            batch.push(Operation::In(draw.below(3) as u8));
        }
        batch.push(match draw.below(5) {
            0 => Operation::Look(Lookup::AllFields(key(draw))),
            _ => operation(draw),
        });
    }
    batch
}

/// All that there is. Not what is left of a life: that is told by each node's own clock.
fn everything() -> Vec<Lookup> {
    let of_key = |key: &'static str| {
        let key = || Bytes::from_static(key.as_bytes());
        [
            Lookup::Kind(key()),
            Lookup::Get(key()),
            Lookup::AllFields(key()),
            Lookup::Life { key: key(), unit: Unit::EndMillis },
            Lookup::Marks(vec![key()]),
        ]
    };
    let of_database = |number| {
        let scan = Lookup::Scan { cursor: 0, count: 100, pattern: None, kind: None };
        [Lookup::In(number), Lookup::Size, scan].into_iter().chain(KEYS.into_iter().flat_map(of_key))
    };
    (0..3).flat_map(of_database).collect()
}

#[test]
fn the_machine_is_the_same_on_every_node_under_every_fault() {
    let number = |name: &str, default: u64| {
        std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
    };
    let (first, seeds) = (number("CORACLE_SEED", 0), number("CORACLE_SEEDS", 12));
    let client = |_| {
        |draw: &mut Draw<'_>| match draw.below(5) {
            0 => Input::Query(vec![Lookup::Get(key(draw)), Lookup::Size]),
            _ => Input::Command(batch(draw)),
        }
    };
    let checks = Checks::<Kv>::new().state(everything());
    let passed = simulate(Kv::new, client, checks).seeds(first..first + seeds).run();
    println!("{:?}", passed.unwrap_or_else(|failure| panic!("{failure}")));
}
