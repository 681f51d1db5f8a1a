//! Copies of a directory, and old states of one that were put back (D5.2.10).
//!
//! A voter is a disk. Where two processes answer for one disk, or one answers for a disk that has forgotten what it
//! acknowledged, a majority counts what is not there. Every start draws a *boot*, and a handshake lists the newest
//! boots of the sender's directory. [`Kept`] remembers the newest boot in which each incarnation was met; a later
//! list that should hold it and lacks it is that of a copy or of an old state. A copy whose original never meets
//! the same peers again is not noticed by anybody.
//!
//! Until peers are authenticated, an [`Alarm`] is all that comes of it: anyone could say so of anyone.

use crate::storage::met::Met;
use crate::wire::{self, AlarmReason, Facts};
use coracle_core::{Boot, Broken, Peer};
use std::collections::BTreeMap;
use std::fmt;

/// How many incarnations are remembered. 4,096: four times the members that a cluster may have. Of more, the one that
/// was met longest ago is forgotten, so a stranger of many names cannot fill the memory.
const INCARNATIONS: usize = 4_096;

/// Two processes, or two states, of one disk: an operator has to look.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Alarm {
    /// Who noticed it and told this node. None: this node noticed it.
    pub told_by: Option<Peer>,
    /// The node, on the disk, that it is about.
    pub about: Peer,
    /// What is the matter.
    pub reason: AlarmReason,
    /// The boot that it is about.
    pub boot: Boot,
    /// The other boot: the one that the list lacks, or that answers at the same time.
    pub other: Boot,
    /// The number of the other boot among the starts of its directory; 0 if that plays no part.
    pub number: u64,
}

impl Alarm {
    /// The same, as it is told to the one that it is about.
    pub(super) fn encode(&self) -> bytes::Bytes {
        wire::Alarm { reason: self.reason, boot: self.other, number: self.number }.encode()
    }

    /// What this node, in this boot, is told of itself.
    pub(super) fn told(by: Peer, about: Peer, boot: Boot, told: &wire::Alarm) -> Alarm {
        let wire::Alarm { reason, boot: other, number } = *told;
        Alarm { told_by: Some(by), about, reason, boot, other, number }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Alarm { told_by, about: Peer { id, incarnation }, reason, boot, other, number } = self;
        if let Some(by) = told_by {
            write!(f, "node {} raised an alarm about this node: ", by.id)?;
        }
        let (boot, other) = (boot.0, other.0);
        write!(f, "node {id} of incarnation {:016x} ", incarnation.0)?;
        match reason {
            AlarmReason::Copy => write!(
                f,
                "runs in boot {boot:016x}, and its directory does not know its boot {other:016x}, number {number}, \
                 in which it was met before: the directory is a copy, or an older state of it was put back, and what \
                 it acknowledged may be lost. Stop this process; go on with the directory that was used last, or, if \
                 there is none, replace node {id} ('coracle members replace', Node::change_members)"
            ),
            AlarmReason::Forgotten => write!(
                f,
                "runs in boot {boot:016x} and was last met in boot {other:016x}, number {number}, which is older \
                 than all that its directory lists: whether the directory is a copy cannot be told. Make sure that \
                 no other process runs on a copy of it"
            ),
            AlarmReason::TwoRuns => write!(
                f,
                "answers in boot {boot:016x} and in boot {other:016x} at once: two processes use its directory, or a \
                 copy of it. Stop both; go on with the directory that was used last, or, if that cannot be told, \
                 replace node {id} ('coracle members replace', Node::change_members)"
            ),
            AlarmReason::Other(code) => {
                write!(f, "runs in boot {boot:016x}: alarm {code}, which this version does not know")
            }
        }
    }
}

/// The newest boot of each incarnation that was met.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub(crate) broken: Broken,
    boots: BTreeMap<Peer, Newest>,
    /// How many handshakes were looked at.
    met: u64,
}

#[derive(Debug)]
struct Newest {
    number: u64,
    boot: Boot,
    /// The value of [`Kept::met`] when it was met last.
    met: u64,
}

impl Kept {
    /// What is known from earlier boots.
    pub(crate) fn new(met: &[Met]) -> Kept {
        let mut kept = Kept::default();
        for Met { peer, number, boot } in met.iter().rev().take(INCARNATIONS) {
            kept.boots.insert(*peer, Newest { number: *number, boot: *boot, met: 0 });
        }
        kept
    }

    /// What is known of this one.
    pub(crate) fn newest(&self, peer: Peer) -> Option<Met> {
        self.boots.get(&peer).map(|newest| Met { peer, number: newest.number, boot: newest.boot })
    }

    /// Looks at a handshake: the alarm that it gives rise to. A list that is a copy's does not change what is kept.
    pub(crate) fn meet(&mut self, facts: &Facts) -> Option<Alarm> {
        let (newest, length) = (facts.boot_number, facts.boots.len() as u64);
        if length == 0 {
            return None;
        }
        self.met += 1;
        let met = self.met;
        let Some(kept) = self.boots.get_mut(&facts.from) else {
            self.make_room();
            self.boots.insert(facts.from, Newest { number: newest, boot: facts.boot, met });
            return None;
        };
        kept.met = met;
        // The wire refuses a list that is longer than the number of its newest.
        let oldest = newest.saturating_sub(length - 1);
        let listed =
            kept.number.checked_sub(oldest).and_then(|at| facts.boots.get(usize::try_from(at).ok()?));
        let reason = match listed {
            Some(boot) if *boot == kept.boot => None,
            None if kept.number < oldest => Some(AlarmReason::Forgotten),
            _ => Some(AlarmReason::Copy),
        };
        let reason = reason.filter(|_| !self.broken.is("copy-accepted"));
        let (other, number) = (kept.boot, kept.number);
        if reason != Some(AlarmReason::Copy) {
            (kept.number, kept.boot) = (newest, facts.boot);
        }
        reason.map(|reason| Alarm {
            told_by: None,
            about: facts.from,
            reason,
            boot: facts.boot,
            other,
            number,
        })
    }

    fn make_room(&mut self) {
        if self.boots.len() >= INCARNATIONS
            && let Some(oldest) =
                self.boots.iter().min_by_key(|(_, newest)| newest.met).map(|(peer, _)| *peer)
        {
            self.boots.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use coracle_core::{Incarnation, LogId, NodeId};

    /// Node 2 with this list, whose newest has this number.
    fn facts(number: u64, boots: &[u64]) -> Facts {
        Facts {
            protocol: (0, 0),
            required: 0,
            optional: 0,
            levels: (0, 0),
            cluster: None,
            from: Peer { id: NodeId(2), incarnation: Incarnation(7) },
            boot: Boot(boots.last().copied().unwrap_or(1)),
            membership: LogId::ZERO,
            max_frame: 0,
            boot_number: number,
            boots: boots.iter().map(|boot| Boot(*boot)).collect(),
            address: String::new(),
            names: None,
            metadata: bytes::Bytes::new(),
            machine: 0,
        }
    }

    /// What each of these lists gives rise to, one after the other.
    fn met(lists: &[(u64, &[u64])]) -> Vec<Option<AlarmReason>> {
        let mut kept = Kept::default();
        lists
            .iter()
            .map(|(number, boots)| kept.meet(&facts(*number, boots)).map(|alarm| alarm.reason))
            .collect()
    }

    #[test]
    fn starts_of_one_directory_are_fine() {
        let fine: [(u64, &[u64]); 6] =
            [(1, &[10]), (1, &[10]), (2, &[10, 11]), (5, &[11, 12, 13, 14]), (6, &[13, 14, 15]), (6, &[15])];
        assert_eq!(met(&fine), [None; 6]);
    }

    #[test]
    fn a_copy_and_its_original_are_told_apart_whichever_comes_first() {
        let (original, copy): (&[u64], &[u64]) = (&[10, 11, 12], &[10, 11, 22]);
        let alarm = Some(AlarmReason::Copy);
        assert_eq!(met(&[(3, original), (3, copy), (3, original)]), [None, alarm, None]);
        assert_eq!(met(&[(3, copy), (3, original), (3, original)]), [None, alarm, alarm]);
        assert_eq!(met(&[(3, original), (5, &[10, 11, 22, 23, 24])]), [None, alarm], "it went on for longer");
        assert_eq!(
            met(&[(3, original), (5, &[22, 23, 24])]),
            [None, alarm],
            "the list begins with the difference"
        );
    }

    #[test]
    fn an_older_state_that_was_put_back_lacks_the_boot_that_was_met() {
        let alarm = Some(AlarmReason::Copy);
        assert_eq!(met(&[(3, &[10, 11, 12]), (2, &[10, 11])]), [None, alarm]);
        assert_eq!(met(&[(3, &[10, 11, 12]), (2, &[10, 21])]), [None, alarm]);
        assert_eq!(met(&[(u64::MAX, &[12]), (1, &[10])]), [None, alarm]);
    }

    #[test]
    fn what_was_met_is_known_after_a_restart() {
        let mut kept = Kept::default();
        kept.meet(&facts(3, &[10, 11, 12]));
        let met = kept.newest(facts(1, &[1]).from).unwrap();
        let mut kept = Kept::new(&[met]);
        assert_eq!(kept.meet(&facts(3, &[10, 11, 22])).unwrap().reason, AlarmReason::Copy);
        assert_eq!(kept.meet(&facts(4, &[11, 12, 13])), None);
    }

    #[test]
    fn a_boot_older_than_the_whole_list_is_its_own_alarm_and_is_told_once() {
        let forgotten = Some(AlarmReason::Forgotten);
        assert_eq!(met(&[(3, &[10, 11, 12]), (9, &[17, 18]), (9, &[17, 18])]), [None, forgotten, None]);
    }

    #[test]
    fn a_node_that_keeps_no_list_is_not_judged_and_changes_nothing() {
        assert_eq!(met(&[(2, &[10, 11]), (0, &[]), (3, &[10, 11, 12])]), [None; 3]);
    }

    #[test]
    fn sh_2_what_is_kept_is_bounded_and_the_peers_that_are_met_stay() {
        let mut kept = Kept::default();
        let named = |incarnation: u64, facts: Facts| Facts {
            from: Peer { id: NodeId(2), incarnation: Incarnation(incarnation) },
            ..facts
        };
        for stranger in 1..3 * INCARNATIONS as u64 {
            kept.meet(&named(stranger, facts(1, &[stranger])));
            assert_eq!(kept.meet(&named(0, facts(1, &[10]))), None);
            assert!(kept.boots.len() <= INCARNATIONS);
        }
        assert!(kept.meet(&named(0, facts(1, &[20]))).is_some(), "this one was never forgotten");
    }

    #[test]
    fn an_alarm_says_what_happened_and_what_to_do() {
        let mut kept = Kept::default();
        kept.meet(&facts(2, &[10, 11]));
        let alarm = kept.meet(&facts(2, &[10, 12])).unwrap();
        let text = alarm.to_string();
        for part in [
            "node 2 of incarnation 0000000000000007 runs in boot 000000000000000c",
            "boot 000000000000000b, number 2",
            "is a copy",
            "Stop this process",
            "or, if there is none, replace node 2 ('coracle members replace'",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let sent = wire::Alarm { reason: alarm.reason, boot: alarm.other, number: alarm.number };
        let by = Peer { id: NodeId(3), incarnation: Incarnation(8) };
        let told = Alarm::told(by, alarm.about, alarm.boot, &sent);
        assert_eq!(told.to_string(), format!("node 3 raised an alarm about this node: {text}"));
    }
}
