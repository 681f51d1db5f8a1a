//! How long answers take, where more is asked for than can be done.

use crate::honest::Honest;
use crate::hostile::{BUSY, CROWD, GREEDY, Hostile, Kinds};
use crate::watch::Watch;
use crate::{BACK, Led, MEASURED, Outcome, SOON, judge, measured};
use coracle_server::cluster::Interrupt;
use std::time::Duration;

/// How much longer an answer may take, of 99 in a hundred, under ten times as much as can be done.
const UNDER_OVERLOAD: f64 = 5.0;

/// How much longer an answer may take beside one that is greedy.
const BESIDE_GREED: f64 = 3.0;

/// How often somebody asks who asks for little.
const NOW_AND_THEN: Duration = Duration::from_millis(50);

/// Ten times as many clients as keep the cluster busy, and 2,000 that are slow or do nothing: what is taken is answered about as
/// soon as before.
pub(crate) fn overload(led: &Led, length: Duration, interrupt: &Interrupt) -> Result<Outcome, String> {
    beside(led, CROWD, (BUSY, Duration::ZERO, UNDER_OVERLOAD), length, interrupt)
}

/// One client with a pipeline of 100,000 commands at each node, and one that asks now and then.
pub(crate) fn fairness(led: &Led, length: Duration, interrupt: &Interrupt) -> Result<Outcome, String> {
    beside(led, GREEDY, (1, NOW_AND_THEN, BESIDE_GREED), length, interrupt)
}

/// An honest client of so many connections, which pause so long, has its answers at most so many times later beside these.
fn beside(
    led: &Led,
    kinds: Kinds,
    (connections, pause, most): (usize, Duration, f64),
    length: Duration,
    interrupt: &Interrupt,
) -> Result<Outcome, String> {
    let honest = Honest::start(&led.address, connections, pause);
    let phase = |name: &str, length: Duration| {
        honest.took();
        let rate = measured(&honest, length, interrupt)?;
        let took = honest.took();
        println!("{name}: {rate:.0} answers per second, and 99 in a hundred within {took:?}");
        if took.is_zero() { Err(format!("there was no answer {name}")) } else { Ok((rate, took)) }
    };
    phase("at first", MEASURED)?;
    let normal = phase("normally", length)?;
    let mut watch = Watch::start(&led.cluster);
    let hostile = Hostile::start(led.places(), kinds);
    phase("while they come", MEASURED)?;
    let during = phase("beside them", length)?;
    println!("what they did: {}", hostile.stop()?);
    std::thread::sleep(SOON);
    let after = phase("afterwards", MEASURED)?;
    let seen = watch.stop();
    let record = honest.stop();
    println!("told BUSY {} times; most: {}; 10 ms took {:?} at most", record.busy, seen.most, seen.late);

    let mut broken = record.problems;
    let times = during.1.as_secs_f64() / normal.1.as_secs_f64();
    println!("beside them an answer took {times:.1} times as long, and {most} times is the most that it may");
    if times > most {
        broken.push(format!("99 in a hundred answers took {:?}, and {:?} normally", during.1, normal.1));
    }
    if after.0 < normal.0 * BACK {
        broken.push(format!("{SOON:?} after the end there were {:.0} answers per second", after.0));
    }
    judge(led, led.sizes, seen, broken, interrupt)
}
