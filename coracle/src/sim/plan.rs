//! What a seed has in store: how large the cluster is, how bad its network, disks, clocks and clients.
//!
//! Every run draws its own mixture, so that some runs have one kind of fault in purity and some have all
//! at once. Times are in microseconds of simulated time.

use super::dice::Dice;

/// One millisecond.
pub(super) const MS: u64 = 1000;

/// The greatest election timeout of a simulated node.
pub(super) const ELECTION: u64 = 600 * MS;

/// The faults of one run. Rates are per mille.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// How many nodes.
    pub(super) nodes: usize,
    /// How many clients.
    pub(super) clients: usize,
    /// How many keys they share.
    pub(super) keys: u8,
    /// The pause of a client between two operations, at most.
    pub(super) think: u64,
    /// A message takes up to so long.
    pub(super) latency: u64,
    /// Messages lost.
    pub(super) drop: u64,
    /// Messages delivered twice or three times.
    pub(super) duplicate: u64,
    /// Messages held for up to ten election timeouts.
    pub(super) hold: u64,
    /// A write to disk takes up to so long.
    pub(super) disk: u64,
    /// Writes that take up to two election timeouts.
    pub(super) stall: u64,
    /// The mean pause between two crashes; 0 for none.
    pub(super) crash: u64,
    /// Of the crashes, those that lose what was not synced.
    pub(super) power: u64,
    /// The mean pause between two partitions; 0 for none.
    pub(super) partition: u64,
    /// The mean pause between two freezes of a node; 0 for none.
    pub(super) freeze: u64,
    /// The mean pause between two false or true words that a peer's process is gone; 0 for none.
    pub(super) rumour: u64,
    /// Whether clocks run at rates between 0.5 and 2 and jump ahead.
    pub(super) clocks: bool,
    /// Reads from the store take up to so long.
    pub(super) load: u64,
    /// Bytes of entries kept in memory.
    pub(super) cache: u64,
}

impl Plan {
    /// Draws a plan.
    pub(super) fn draw(dice: &mut Dice, nodes: Option<usize>) -> Plan {
        let sometimes = |dice: &mut Dice, odds: u64, value: u64| if dice.chance(odds) { value } else { 0 };
        let drop = dice.within(0, 300);
        let crash = dice.within(1, 30) * ELECTION / 10;
        let partition = dice.within(2, 30) * ELECTION / 10;
        let freeze = dice.within(5, 40) * ELECTION / 10;
        let rumour = dice.within(3, 30) * ELECTION / 10;
        Plan {
            nodes: nodes.unwrap_or(*dice.pick(&[3, 3, 3, 4, 5, 5, 6, 7])),
            clients: dice.within(2, 6) as usize,
            keys: dice.within(1, 4) as u8,
            think: dice.within(1, 60) * MS,
            latency: *dice.pick(&[MS, 2 * MS, 5 * MS, 30 * MS]),
            drop: sometimes(dice, 400, drop),
            duplicate: if dice.chance(400) { dice.within(1, 200) } else { 0 },
            hold: if dice.chance(400) { dice.within(1, 30) } else { 0 },
            disk: *dice.pick(&[MS / 2, 2 * MS, 10 * MS, 50 * MS]),
            stall: if dice.chance(300) { dice.within(1, 20) } else { 0 },
            crash: sometimes(dice, 700, crash),
            power: *dice.pick(&[0, 500, 500, 1000]),
            partition: sometimes(dice, 500, partition),
            freeze: sometimes(dice, 300, freeze),
            rumour: sometimes(dice, 300, rumour),
            clocks: dice.chance(300),
            load: *dice.pick(&[MS / 10, MS, 20 * MS]),
            cache: *dice.pick(&[0, 500, 1 << 20]),
        }
    }

    /// The same world without its faults: what follows must hold within bounds.
    pub(super) fn heal(&mut self) {
        *self = Plan {
            drop: 0,
            duplicate: 0,
            hold: 0,
            stall: 0,
            crash: 0,
            partition: 0,
            freeze: 0,
            rumour: 0,
            clocks: false,
            latency: self.latency.min(5 * MS),
            disk: self.disk.min(10 * MS),
            ..self.clone()
        };
    }
}
