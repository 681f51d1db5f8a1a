//! Rounds and turns.

use crate::Failure;
use crate::contender::Contender;
use crate::device::Device;
use coracle::entry::{Entry, Kind, Stamp};
use coracle::raft::LogId;
use coracle::storage::{Change, WriteBatch};
use std::path::Path;
use std::time::{Duration, Instant};

/// The most batches of one turn: what costs no disk would never end.
const MAX_BATCHES: u64 = 2000;

/// The most payload of one turn, in bytes.
const MAX_BYTES: u64 = 256 << 20;

/// How much payload is written until what came before is needed no more, in bytes: half a segment, as on a node
/// whose snapshots keep up. It is a part of the work, and measured.
const FORGET: u64 = 32 << 20;

/// Batches before a turn is measured.
const WARM_UP: u64 = 2;

/// What is measured.
pub(crate) struct Grid {
    pub(crate) points: Vec<Point>,
    pub(crate) rounds: u32,
    /// The time in writes of one turn.
    pub(crate) turn: Duration,
}

/// One kind of batch.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Point {
    /// The payload of an entry, in bytes.
    pub(crate) entry: usize,
    /// Entries in a batch.
    pub(crate) batch: u64,
}

impl Point {
    /// Payload in a batch, in bytes.
    pub(crate) fn payload(self) -> u64 {
        self.entry as u64 * self.batch
    }
}

/// All points, or the corners of it.
pub(crate) fn points(quick: bool) -> Vec<Point> {
    let (entries, batches): (&[usize], &[u64]) =
        if quick { (&[16, 4096], &[1, 256]) } else { (&[16, 256, 4096], &[1, 16, 256, 1024]) };
    let row = |entry: &usize| {
        let entry = *entry;
        batches.iter().map(move |batch| Point { entry, batch: *batch }).collect::<Vec<_>>()
    };
    entries.iter().flat_map(row).collect()
}

/// What came out: for each contender, at each point, in each round, a turn.
pub(crate) struct Results {
    pub(crate) points: Vec<Point>,
    pub(crate) names: Vec<&'static str>,
    /// By contender, point and round.
    turns: Vec<Vec<Vec<Turn>>>,
}

/// What one contender did in one turn.
#[derive(Clone, Copy)]
pub(crate) struct Turn {
    /// Batches in a second of writing.
    pub(crate) rate: f64,
    /// Bytes that the device wrote for each byte of payload.
    pub(crate) device: Option<f64>,
}

impl Results {
    /// The median over the rounds of a figure of a contender's turns at a point.
    pub(crate) fn median(&self, name: &str, point: usize, figure: impl Fn(&Turn) -> f64) -> Option<f64> {
        let contender = self.contender(name)?;
        median(self.turns[contender][point].iter().map(figure).collect())
    }

    /// How much faster one contender is than another at a point: the median of the rounds' ratios.
    pub(crate) fn ratio(&self, of: &str, against: &str, point: usize) -> Option<f64> {
        let (of, against) = (self.contender(of)?, self.contender(against)?);
        let pairs = self.turns[of][point].iter().zip(&self.turns[against][point]);
        median(pairs.map(|(of, against)| of.rate / against.rate).collect())
    }

    fn contender(&self, name: &str) -> Option<usize> {
        self.names.iter().position(|one| *one == name)
    }
}

/// The middle one; none of none.
pub(crate) fn median(mut all: Vec<f64>) -> Option<f64> {
    all.sort_unstable_by(f64::total_cmp);
    all.get(all.len() / 2).copied()
}

/// Gives everyone a turn at every point in every round.
pub(crate) fn run(
    grid: &Grid,
    contenders: Vec<Box<dyn Contender>>,
    directory: &Path,
) -> Result<Results, Failure> {
    let device = Device::under(directory)?;
    let names: Vec<_> = contenders.iter().map(|contender| contender.name()).collect();
    let mut turns = vec![vec![Vec::new(); grid.points.len()]; names.len()];
    let mut players: Vec<_> = contenders.into_iter().map(|contender| Player { contender, next: 1 }).collect();
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    for round in 0..grid.rounds {
        eprintln!("round {} of {}", round + 1, grid.rounds);
        for (at, point) in grid.points.iter().enumerate() {
            for who in dice.order(players.len()) {
                let turn = players[who].turn(*point, grid.turn, &device, &mut dice);
                turns[who][at].push(turn.map_err(|error| format!("{}: {error}", names[who]))?);
            }
        }
    }
    Ok(Results { points: grid.points.clone(), names, turns })
}

/// A contender and the index of its next entry.
struct Player {
    contender: Box<dyn Contender>,
    next: u64,
}

impl Player {
    fn turn(
        &mut self,
        point: Point,
        length: Duration,
        device: &Device,
        dice: &mut Dice,
    ) -> Result<Turn, Failure> {
        let payload = dice.bytes(point.entry);
        for _ in 0..WARM_UP {
            self.write(point, &payload)?;
        }
        let before = device.written();
        let (mut batches, mut took, mut kept) = (0, Duration::ZERO, 0);
        while took < length && batches < MAX_BATCHES && batches * point.payload() < MAX_BYTES {
            took += self.write(point, &payload)?;
            batches += 1;
            kept += point.payload();
            if kept >= FORGET {
                let start = Instant::now();
                self.contender.forget(LogId::new(1, self.next - 1))?;
                took += start.elapsed();
                kept = 0;
            }
        }
        let after = device.written();
        self.contender.forget(LogId::new(1, self.next - 1))?;
        let bytes = (batches * point.payload()) as f64;
        let device = after.zip(before).map(|(after, before)| (after - before) as f64 / bytes);
        Ok(Turn { rate: batches as f64 / took.as_secs_f64(), device })
    }

    /// Writes a batch and says how long that took.
    fn write(&mut self, point: Point, payload: &[u8]) -> Result<Duration, Failure> {
        let batch = batch(self.next, point.batch, payload);
        self.next += point.batch;
        self.contender.prepare(&batch);
        let start = Instant::now();
        self.contender.write(&batch)?;
        Ok(start.elapsed())
    }
}

/// Entries from index `first` on, all with this payload.
pub(crate) fn batch(first: u64, entries: u64, payload: &[u8]) -> WriteBatch {
    let entry = |index| Entry::new(LogId::new(1, index), Kind::Command, Stamp::default(), payload);
    let changes = vec![Change::Append((first..first + entries).map(entry).collect())];
    WriteBatch { hard_state: None, changes }
}

/// Marsaglia's xorshift: the same order and bytes in every run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// The numbers below `count` in some order.
    fn order(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, (self.roll() >> 16) as usize % (last + 1));
        }
        order
    }

    /// Bytes that do not compress.
    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.roll() >> 24) as u8).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contender::{BASELINE, OURS};
    use crate::{plot, report};
    use std::cell::RefCell;
    use std::rc::Rc;

    /// Takes a known time for a batch and remembers what it got.
    struct Fake {
        name: &'static str,
        pause: Duration,
        /// The newest index written, and forgotten.
        seen: Rc<RefCell<(u64, u64)>>,
    }

    impl Contender for Fake {
        fn name(&self) -> &'static str {
            self.name
        }

        fn write(&mut self, batch: &WriteBatch) -> Result<(), Failure> {
            let [Change::Append(entries)] = &batch.changes[..] else { panic!("{batch:?}") };
            for entry in entries {
                assert_eq!(entry.index().0, self.seen.borrow().0 + 1, "no gap from turn to turn");
                self.seen.borrow_mut().0 += 1;
            }
            let start = Instant::now();
            while start.elapsed() < self.pause {}
            Ok(())
        }

        fn forget(&mut self, upto: LogId) -> Result<(), Failure> {
            assert_eq!(upto.index.0, self.seen.borrow().0);
            self.seen.borrow_mut().1 = upto.index.0;
            Ok(())
        }
    }

    #[test]
    fn everyone_gets_every_turn_and_the_faster_one_the_greater_ratio() {
        let seen: [Rc<RefCell<(u64, u64)>>; 2] = Default::default();
        let fake = |name, micros, seen: &Rc<RefCell<(u64, u64)>>| -> Box<dyn Contender> {
            Box::new(Fake { name, pause: Duration::from_micros(micros), seen: seen.clone() })
        };
        let contenders = vec![fake(BASELINE, 20, &seen[0]), fake(OURS, 2000, &seen[1])];
        let grid = Grid { points: points(true), rounds: 3, turn: Duration::from_millis(4) };
        let results = run(&grid, contenders, Path::new(".")).unwrap();
        for (written, forgotten) in seen.iter().map(|seen| *seen.borrow()) {
            assert!(written > 0 && written == forgotten);
        }
        for at in 0..grid.points.len() {
            let ratio = results.ratio(OURS, BASELINE, at).unwrap();
            assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
            assert!(results.median(OURS, at, |turn| turn.rate).unwrap() <= 500.0);
        }
        assert_eq!(results.ratio("nobody", BASELINE, 0), None);

        let told = report::text(&results);
        assert_eq!(told.lines().filter(|line| line.starts_with("| 4096 B | 256 |")).count(), 2, "{told}");
        let drawn = plot::svg(&results);
        assert!(drawn.starts_with("<svg") && drawn.ends_with("</svg>\n") && drawn.contains(">wal</text>"));
    }

    #[test]
    fn an_order_names_each_once_and_the_middle_is_the_middle() {
        let mut dice = Dice(1);
        for _ in 0..100 {
            let mut order = dice.order(5);
            order.sort_unstable();
            assert_eq!(order, [0, 1, 2, 3, 4]);
        }
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(Vec::new()), None);
    }
}
