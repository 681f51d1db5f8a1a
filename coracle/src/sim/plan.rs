//! What a seed has in store: how large the cluster is, how bad its network, disks, clocks and clients.
//!
//! Every run draws its own mixture, so that some runs have one kind of fault in purity and some have all
//! at once. Times are in microseconds of simulated time.

use super::dice::Dice;
use crate::config::{Config, Lease, Storage};
use crate::work::Way;
use coracle_core::NodeId;
use std::time::Duration;

/// One millisecond.
pub(super) const MS: u64 = 1000;

/// The greatest election timeout of a simulated node.
pub(super) const ELECTION: u64 = 600 * MS;

/// From what the mean pauses between faults are drawn, in tenths of an election timeout: between partitions, freezes,
/// rumours, links that flap, resets, errors of disks, their damage, and stray messages.
const PAUSES: [(u64, u64); 8] = [(2, 30), (5, 40), (3, 30), (3, 30), (1, 20), (5, 40), (10, 60), (1, 10)];

/// The faults of one run. Rates are per mille.
#[derive(Clone, Default, Debug)]
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
    /// Bytes of entries that may wait for the disk, and for a quorum.
    pub(super) room: u64,
    /// Completions that are reported late, or after those of later writes.
    pub(super) late: u64,
    /// A machine takes up to so long for what it is handed; 0 for no time at all.
    pub(super) apply: u64,
    /// How many requests a client has open at most.
    pub(super) depth: usize,
    /// Starts that are cut short by another crash.
    pub(super) cut: u64,
    /// The mean pause between two links that flap; 0 for none.
    pub(super) flap: u64,
    /// The mean pause between two connections that are reset; 0 for none.
    pub(super) reset: u64,
    /// The mean pause between two errors of a disk; 0 for none.
    pub(super) disk_error: u64,
    /// The mean pause between two damages of a disk; 0 for none.
    pub(super) damage: u64,
    /// The mean pause between two messages with a wrong receiver or sender; 0 for none.
    pub(super) stray: u64,
    /// Some values have up to so many bytes; 0 if all are short.
    pub(super) large: u64,
    /// Answers to a question that are held until the asker's next run asks the same.
    pub(super) echo: u64,
    /// Chance of a partition that lasts until a leader has committed in it.
    pub(super) siege: u64,
    /// Acknowledgements and votes that come again when their receiver leads or campaigns again, and entries when
    /// somebody else does or they are dropped.
    pub(super) old_acks: u64,
    /// The mean pause between two leaders that are deposed, come back and lead again; 0 for none.
    pub(super) turnover: u64,
    /// The mean pause between two purges of a log; 0 for none.
    pub(super) purge: u64,
    /// The mean pause between two that a disk's image is kept, or put back; 0 for none.
    pub(super) put_back: u64,
    /// The mean pause between two machines whose state changes by itself; 0 for none.
    pub(super) rot: u64,
    /// Whether machines that are fenced for that are rebuilt by themselves.
    pub(super) rebuilds: bool,
    /// Events after which a node does not carry out at once what they bring, but takes in more first.
    pub(super) gather: u64,
    /// How long such a turn takes at most.
    pub(super) turn: u64,
    /// Events that come before what happens at the same moment and was due earlier.
    pub(super) ties: u64,
    /// The size of a log segment: small, so that a short run turns many of them.
    pub(super) segment: u64,
    /// Bytes of entries in one merged write at most.
    pub(super) write: usize,
    /// Reads of the log that are done in two parts.
    pub(super) split: u64,
    /// Bytes of entries under way to one follower at most.
    pub(super) flight: u64,
    /// Bytes of entries handed to the machine at once at most.
    pub(super) feed: u64,
    /// Whether followers hand writes on to their leader.
    pub(super) forward: bool,
    /// Bytes of entries that may wait for the machine.
    pub(super) unapplied: u64,
    /// The mean pause between two changes of the membership; 0 for none.
    pub(super) change: u64,
    /// Whether the membership changes at all. Then no disk goes back, no machine rots, and a disk is spoilt or wiped only
    /// where a quorum of every membership that may be in force is left.
    pub(super) changes: bool,
    /// The mean pause between two transfers of leadership; 0 for none.
    pub(super) transfer: u64,
    /// The mean pause between two nodes that come back on an empty disk; 0 for none.
    pub(super) wipe: u64,
    /// The mean pause between two blank nodes that join by themselves, under names that the cluster never had; 0 for none.
    pub(super) join: u64,
    /// Whether nodes have certificates.
    pub(super) marks: bool,
    /// The mean pause between two nodes that come back at another address; 0 for none.
    pub(super) moves: u64,
    /// Whether nodes are to be looked for where they are, and nobody just knows.
    pub(super) addressed: bool,
    /// Whether machines keep their state on their nodes' disks.
    pub(super) own_disk: bool,
    /// How clients write: 0 once; 1 in a session where another node leads; 2 always in a session.
    pub(super) way: u8,
    /// The lifetime of sessions, in milliseconds.
    pub(super) session: u64,
    /// How far ahead machines set timers at most, in milliseconds; 0 for none.
    pub(super) timers: u64,
    /// How long leaders take to carry out an effect at most; 0: machines give none.
    pub(super) effects: u64,
    /// For how long leaders ask for a lease, in milliseconds; 0 for none.
    pub(super) lease: u64,
    /// By how much clocks may be slower than others, in thousandths, where there are leases.
    pub(super) drift: u64,
    /// The mean pause between two leaders that are cut off while they may hold a lease; 0 for none.
    pub(super) corner: u64,
    /// Whether every other client is no member, and has connections of its own.
    pub(super) remote: bool,
    /// Of so many commands one is too much for the programs that nodes begin with; 0: none.
    pub(super) poison: u64,
    /// How many people want a cluster founded at once, before the run begins.
    pub(super) founders: usize,
    /// How many different lists they have.
    pub(super) lists: usize,
}

impl Plan {
    /// Draws a plan. What came later is drawn last, or from dice of its own, so that it changes nothing before it.
    pub(super) fn draw(dice: &mut Dice, nodes: Option<usize>) -> Plan {
        let (mut joins, mut marks) = (dice.fork(1), dice.fork(2));
        let first = Plan::draw_first(dice, nodes);
        let plan = first.draw_later(dice, nodes).draw_changes(dice).draw_transfers(dice).draw_moves(dice);
        Plan { own_disk: dice.chance(300), ..plan }
            .draw_sessions(dice)
            .draw_timers(dice)
            .draw_remote(dice)
            .draw_leases(dice)
            .draw_poison(dice)
            .draw_effects(dice)
            .draw_joins(&mut joins)
            .draw_marks(&mut marks)
    }

    fn draw_first(dice: &mut Dice, nodes: Option<usize>) -> Plan {
        let sometimes = |dice: &mut Dice, odds: u64, value: u64| if dice.chance(odds) { value } else { 0 };
        let (drop, crash) = (dice.within(0, 300), dice.within(1, 30) * ELECTION / 10);
        let [partition, freeze, rumour, flap, reset, disk_error, damage, stray] =
            PAUSES.map(|(low, high)| dice.within(low, high) * ELECTION / 10);
        Plan {
            nodes: nodes.unwrap_or(*dice.pick(&[3, 3, 3, 4, 5, 5, 6, 7])),
            clients: dice.within(2, 6) as usize,
            keys: dice.within(1, 4) as u8,
            think: dice.within(1, 60) * MS,
            latency: *dice.pick(&[MS, 2 * MS, 5 * MS, 30 * MS]),
            drop: sometimes(dice, 400, drop),
            duplicate: if dice.chance(400) { dice.within(1, 200) } else { 0 },
            hold: if dice.chance(400) { dice.within(1, 30) } else { 0 },
            disk: *dice.pick(&[MS / 2, 2 * MS, 10 * MS, 50 * MS, 150 * MS]),
            stall: if dice.chance(300) { dice.within(1, 20) } else { 0 },
            crash: sometimes(dice, 700, crash),
            power: *dice.pick(&[0, 500, 500, 1000]),
            partition: sometimes(dice, 500, partition),
            freeze: sometimes(dice, 300, freeze),
            rumour: sometimes(dice, 300, rumour),
            clocks: dice.chance(300),
            load: *dice.pick(&[MS / 10, MS, 20 * MS]),
            cache: *dice.pick(&[0, 500, 1 << 20]),
            room: *dice.pick(&[300, 1500, 1 << 20, 1 << 20]),
            late: if dice.chance(300) { dice.within(1, 500) } else { 0 },
            apply: *dice.pick(&[0, 0, 0, MS, 20 * MS]),
            depth: *dice.pick(&[1, 1, 2, 4]),
            cut: *dice.pick(&[0, 0, 200, 500]),
            flap: sometimes(dice, 250, flap),
            reset: sometimes(dice, 300, reset),
            disk_error: sometimes(dice, 300, disk_error),
            damage: sometimes(dice, 300, damage),
            stray: sometimes(dice, 300, stray),
            siege: 300,
            segment: 32 << 10,
            write: 4 << 20,
            flight: 8 << 20,
            feed: 4 << 20,
            unapplied: 1 << 20,
            session: 60_000,
            founders: 1,
            lists: 1,
            ..Plan::default()
        }
    }

    fn draw_later(self, dice: &mut Dice, nodes: Option<usize>) -> Plan {
        let large = *dice.pick(&[0, 200, 1000]);
        // The smallest clusters are soon told all; a few runs are enough.
        let small = nodes.is_none() && dice.chance(50);
        let smallest = *dice.pick(&[1, 2]);
        Plan {
            nodes: if small { smallest } else { self.nodes },
            // Where there is no limit to reach, large values only take time.
            large: if self.room < 1 << 20 { large } else { 0 },
            echo: *dice.pick(&[0, 0, 50, 300]),
            put_back: *dice.pick(&[0, 0, 0, 0, 0, 0, 0, ELECTION / 2]),
            old_acks: *dice.pick(&[0, 300, 300]),
            purge: *dice.pick(&[0, ELECTION / 20, ELECTION / 10, ELECTION / 4]),
            gather: *dice.pick(&[0, 0, 50, 300]),
            turn: *dice.pick(&[MS / 2, 5 * MS, 20 * MS]),
            ties: *dice.pick(&[0, 0, 300]),
            segment: *dice.pick(&[16 << 10, 32 << 10, 32 << 10, 64 << 10]),
            write: *dice.pick(&[1, 500, 4 << 20, 4 << 20]),
            split: *dice.pick(&[0, 400, 1000]),
            flight: *dice.pick(&[1, 300, 2000, 8 << 20, 8 << 20]),
            feed: *dice.pick(&[1, 300, 4 << 20, 4 << 20]),
            forward: dice.chance(400),
            unapplied: *dice.pick(&[300, 1500, 1 << 20]),
            founders: *dice.pick(&[1, 1, 2, 3]),
            rot: *dice.pick(&[0, 0, 0, 2 * ELECTION]),
            rebuilds: dice.chance(500),
            turnover: *dice.pick(&[0, 0, 2 * ELECTION, 5 * ELECTION]),
            lists: *dice.pick(&[1, 2, 2, 3]),
            ..self
        }
    }

    fn draw_changes(self, dice: &mut Dice) -> Plan {
        let change = *dice.pick(&[0, 0, ELECTION / 10, ELECTION / 2, 2 * ELECTION]);
        if change == 0 {
            self
        } else {
            Plan { change, changes: true, damage: 0, put_back: 0, rot: 0, ..self }
        }
    }

    fn draw_transfers(self, dice: &mut Dice) -> Plan {
        Plan { transfer: *dice.pick(&[0, 0, ELECTION / 5, ELECTION, 3 * ELECTION]), ..self }
    }

    /// Disks that are wiped, or spoilt, and nodes that move, where the membership changes: so that somebody can lead
    /// them back in.
    fn draw_moves(self, dice: &mut Dice) -> Plan {
        if !self.changes {
            return self;
        }
        let wipe = *dice.pick(&[0, 0, 2 * ELECTION, 6 * ELECTION]);
        let damage = *dice.pick(&[0, 0, 2 * ELECTION]);
        let moves = *dice.pick(&[0, 0, ELECTION, 4 * ELECTION]);
        Plan { wipe, damage, moves, addressed: moves > 0, ..self }
    }

    fn draw_sessions(self, dice: &mut Dice) -> Plan {
        let way = *dice.pick(&[0, 1, 2, 2]);
        let session = *dice.pick(&[1000, 1000, 3000, 60_000]);
        Plan { way, session, forward: self.forward || way > 0, ..self }
    }

    fn draw_timers(self, dice: &mut Dice) -> Plan {
        Plan { timers: *dice.pick(&[0, 0, 200, 2000]), ..self }
    }

    fn draw_remote(self, dice: &mut Dice) -> Plan {
        Plan { remote: dice.chance(400), ..self }
    }

    /// One plan of four has leases: shorter than what keeps followers to a leader that they hear, and longer, with clocks
    /// that are nearly alike or not at all. What a lease trusts, and what it must outlast, then happens in every run.
    fn draw_leases(self, dice: &mut Dice) -> Plan {
        let (lease, drift) = *dice.pick(&[(300, 50), (600, 50), (600, 500)]);
        if !dice.chance(250) {
            return self;
        }
        let often = |mean: u64| if mean == 0 { 4 * ELECTION } else { mean };
        let (crash, rumour) = (often(self.crash), often(self.rumour));
        Plan { lease, drift, corner: ELECTION, clocks: true, crash, rumour, ..self }
    }

    /// Where no disk goes back, which would forget what its node has said of its machine.
    fn draw_poison(self, dice: &mut Dice) -> Plan {
        let poison = *dice.pick(&[0, 0, 0, 0, 0, 0, 0, 10, 40, 40]);
        Plan { poison: if self.rot + self.put_back == 0 { poison } else { 0 }, ..self }
    }

    fn draw_effects(self, dice: &mut Dice) -> Plan {
        Plan { effects: *dice.pick(&[0, 0, 0, 20 * MS, ELECTION / 2, 3 * ELECTION]), ..self }
    }

    /// Where the membership changes. From dice of its own, as whatever comes next should be: so no seed draws otherwise.
    fn draw_joins(self, dice: &mut Dice) -> Plan {
        let join = *dice.pick(&[0, 0, 0, 2 * ELECTION, 5 * ELECTION]);
        Plan { join: if self.changes { join } else { 0 }, ..self }
    }

    fn draw_marks(self, dice: &mut Dice) -> Plan {
        Plan { marks: dice.chance(250) && self.changes, ..self }
    }

    /// How this client writes.
    pub(super) fn way(&self, client: usize) -> Way {
        match self.way {
            0 => Way::Once,
            1 => Way::Lane(client as u32),
            _ => Way::Session(client as u32),
        }
    }

    /// The settings with which a node starts this time.
    pub(super) fn config(&self, id: NodeId, dice: &mut Dice) -> Config {
        let mut config = Config::new(id.0, "sim:1", Storage::Memory);
        config.cache_bytes = self.cache;
        config.message_entries = *dice.pick(&[1, 2, 16, 1024]);
        config.inflight_messages = *dice.pick(&[1, 4, 64]);
        config.message_bytes = *dice.pick(&[300, 4096, 1 << 20]);
        config.inflight_bytes = self.flight;
        config.max_unpersisted_bytes = self.room;
        config.max_uncommitted_bytes = 2 * self.room;
        config.apply_bytes = self.feed;
        config.max_unapplied_bytes = self.unapplied;
        config.forward = self.forward;
        config.rebuild_diverged = self.rebuilds;
        config.session_timeout = Duration::from_millis(self.session);
        let (duration, max_clock_drift) = (Duration::from_millis(self.lease), self.drift as u32);
        config.lease = (self.lease > 0).then_some(Lease { duration, max_clock_drift });
        config.snapshot_bytes = u64::MAX;
        config.snapshot_entries = if self.purge == 0 { u64::MAX } else { *dice.pick(&[5, 30, u64::MAX]) };
        config.snapshot_piece_bytes = *dice.pick(&[50, 300, 1 << 18]);
        // Where pieces are small, they also wait for their turn.
        let slow = config.snapshot_piece_bytes == 50;
        config.snapshot_bytes_per_second = if slow { 5_000 } else { 64 << 20 };
        config
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
            late: 0,
            cut: 0,
            flap: 0,
            reset: 0,
            disk_error: 0,
            damage: 0,
            stray: 0,
            echo: 0,
            old_acks: 0,
            turnover: 0,
            change: 0,
            transfer: 0,
            wipe: 0,
            join: 0,
            moves: 0,
            corner: 0,
            purge: 0,
            put_back: 0,
            rot: 0,
            rebuilds: false,
            gather: 0,
            ties: 0,
            split: 0,
            apply: self.apply.min(MS),
            latency: self.latency.min(5 * MS),
            disk: self.disk.min(10 * MS),
            ..self.clone()
        };
    }
}
