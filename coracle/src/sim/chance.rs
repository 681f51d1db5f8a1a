//! Every choice that a run makes, by name, so that a run can be repeated without some of them.
//!
//! A [`Decision`] is one thing that went wrong, or was asked: "the 17th message from node 2 to node 3 is
//! dropped". Its dice depend on the seed and on its name alone. So to switch one off changes that
//! one thing and what follows from it, and not every throw after it, which is what lets a failure
//! [shrink](super::shrink). A decision that is off has the dullest outcome: the message arrives, soon.

use super::dice::Dice;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

macro_rules! kinds {
    ($($name:ident $text:literal,)*) => {
        /// What is decided.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[repr(u8)]
        pub enum Kind {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Kind {
            /// All of them.
            pub const ALL: &[Kind] = &[$(Kind::$name,)*];

            /// The word for it.
            pub fn as_str(self) -> &'static str {
                match self { $(Kind::$name => $text,)* }
            }
        }
    };
}

kinds! {
    Drop "drop",
    Duplicate "duplicate",
    Hold "hold",
    Delay "delay",
    SlowDisk "slow-disk",
    Stall "stall",
    LateWord "late-word",
    SlowRead "slow-read",
    SlowApply "slow-apply",
    Cut "cut-at-start",
    Ask "ask",
    Crash "crash",
    Partition "partition",
    Flap "flap",
    Reset "reset",
    Freeze "freeze",
    Rumour "rumour",
    Clock "clock",
    DiskError "disk-error",
    Damage "damage",
    Stray "stray",
    Siege "siege",
    Echo "echo",
    Purge "purge",
    Gather "gather",
    SplitRead "split-read",
    Tie "tie",
    PutBack "put-back",
    OldAck "old-ack",
    Rot "rot",
    Turnover "turnover",
    Strike "strike",
    Want "want",
    Change "change",
    Transfer "transfer",
    Wipe "wipe",
    Move "move",
    Corner "corner",
    Rule "rule",
    Join "join",
    Renew "renew",
}

const KINDS: usize = Kind::ALL.len();

/// One choice of one run. Written `kind:who:number`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Decision {
    /// What is decided.
    pub kind: Kind,
    /// About whom: a node, a client, or a link as ten times the sender plus the receiver; 0 for the world.
    pub who: u8,
    /// Which of its kind this is, from 0.
    pub number: u32,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind.as_str(), self.who, self.number)
    }
}

impl FromStr for Decision {
    type Err = String;

    fn from_str(text: &str) -> Result<Decision, String> {
        let unknown = || format!("`{text}` is no decision: they are written kind:who:number");
        let mut parts = text.split(':');
        let (kind, who, number) = (parts.next(), parts.next(), parts.next());
        let kind = Kind::ALL.iter().find(|k| Some(k.as_str()) == kind).copied().ok_or_else(unknown)?;
        let who = who.and_then(|who| who.parse().ok()).ok_or_else(unknown)?;
        let number = number.and_then(|number| number.parse().ok()).ok_or_else(unknown)?;
        Ok(Decision { kind, who, number })
    }
}

/// Hands out dice by name, and says what may happen.
pub(super) struct Chance {
    seed: u64,
    /// If given, nothing else happens.
    only: Option<BTreeSet<Decision>>,
    /// What happened, if that is wanted.
    taken: Option<Vec<Decision>>,
    counters: Box<[[u32; KINDS]; 256]>,
    /// How often anything of a kind happened.
    pub(super) happened: [u64; KINDS],
}

impl Chance {
    pub(super) fn new(seed: u64, only: Option<&[Decision]>, remember: bool) -> Chance {
        Chance {
            seed,
            only: only.map(|only| only.iter().copied().collect()),
            taken: remember.then(Vec::new),
            counters: Box::new([[0; KINDS]; 256]),
            happened: [0; KINDS],
        }
    }

    /// The next decision of this kind about `who`, and its dice.
    pub(super) fn next(&mut self, kind: Kind, who: usize) -> (Decision, Dice) {
        let who = who as u8;
        let counter = &mut self.counters[usize::from(who)][kind as usize];
        let decision = Decision { kind, who, number: *counter };
        *counter += 1;
        (decision, self.dice(kind, who, decision.number))
    }

    /// The next decision, if it is one that happens `permille` times in a thousand and this time does.
    pub(super) fn happens(&mut self, kind: Kind, who: usize, permille: u64) -> Option<Dice> {
        let (decision, mut dice) = self.next(kind, who);
        (dice.chance(permille) && self.allows(decision)).then_some(dice)
    }

    /// A number from `low` to `high`; `low` if the decision is switched off.
    pub(super) fn within(&mut self, kind: Kind, who: usize, low: u64, high: u64) -> u64 {
        let (decision, mut dice) = self.next(kind, who);
        if high > low && self.allows(decision) { dice.within(low, high) } else { low }
    }

    /// Whether this may happen; then it counts as happened.
    pub(super) fn allows(&mut self, decision: Decision) -> bool {
        let allowed = self.only.as_ref().is_none_or(|only| only.contains(&decision));
        if allowed {
            self.happened[decision.kind as usize] += 1;
            if let Some(taken) = &mut self.taken {
                taken.push(decision);
            }
        }
        allowed
    }

    /// Dice for what is no decision: names, boots, timeouts.
    pub(super) fn plain(&self, what: u8, who: usize, number: u64) -> Dice {
        Dice::new(self.seed ^ 0x5eed ^ u64::from(what) << 56 ^ (who as u64) << 40 ^ number << 8)
    }

    pub(super) fn taken(self) -> Vec<Decision> {
        self.taken.unwrap_or_default()
    }

    fn dice(&self, kind: Kind, who: u8, number: u32) -> Dice {
        // Neighbours differ in few bits; one turn of the mixer spreads them.
        let name = (kind as u64 + 1) << 48 | u64::from(who) << 40 | u64::from(number);
        Dice::new(self.seed.rotate_left(17) ^ name.wrapping_mul(0xd6e8_feb8_6659_fd93))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_are_written_and_read_back() {
        for &kind in Kind::ALL {
            let decision = Decision { kind, who: 23, number: 7 };
            assert_eq!(decision.to_string().parse(), Ok(decision));
        }
        for wrong in ["", "drop", "drop:1", "drop:1:x", "dorp:1:1"] {
            assert!(wrong.parse::<Decision>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_switched_off_does_not_change_what_follows() {
        let draw = |only: Option<&[Decision]>| {
            let mut chance = Chance::new(7, only, true);
            let drawn: Vec<bool> = (0..50).map(|_| chance.happens(Kind::Drop, 12, 300).is_some()).collect();
            (drawn, chance.taken())
        };
        let (all, taken) = draw(None);
        let (fewer, left) = draw(Some(&taken[1..]));
        assert_eq!(left, taken[1..]);
        let differ: Vec<usize> = (0..50).filter(|&at| all[at] != fewer[at]).collect();
        assert_eq!(differ, [taken[0].number as usize]);
    }
}
