//! Sessions: a command that is sent more than once takes effect once (thesis, 6.3; D5.6).
//!
//! A client opens a session through the log; the index of that entry is its name, so no name is ever given twice, and a
//! copy of the request that comes late opens a session that nobody uses. Within a session there are *lanes*, and the
//! commands of a lane are numbered from 0, without gaps. A lane takes its next number only: a smaller one has been taken,
//! and its answer is given again; a greater one is refused, since what was to come before it has not. So whoever sends
//! again whatever was not answered, in order, loses nothing, does nothing twice, and changes no order.
//!
//! Each command says up to where the answers before it have come. Those are forgotten, and no others: where too many are
//! kept, new commands are refused, and where they have too many bytes, those of new commands are not kept. A session ends when the cluster's clock has run for its lifetime without a word from
//! it, at the same entry on every node. After that what was sent may have been done or not, and is never done any more.
//!
//! All of this is a function of the log alone, and part of every snapshot.

use crate::error::SessionError;
use crate::proposal::Numbered;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use coracle_core::Broken;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use xxhash_rust::xxh3::xxh3_128;

/// How many sessions may be open.
const SESSIONS: usize = 4096;

/// How many lanes all sessions may have together.
const LANES: usize = 1 << 16;

/// How many answers of a lane are kept that were not acknowledged.
const ANSWERS: usize = 1024;

/// How many answers all sessions may keep together.
const ALL_ANSWERS: usize = 1 << 20;

/// How many bytes those have at most: an answer for which there is no room is not kept, and whoever asks again is told that it
/// was done. What is *done* must not hang on bytes: an answer may be longer in another version of the machine.
const BYTES: usize = 32 << 20;

/// Nor is an answer of more bytes.
const LARGEST_ANSWER: usize = 1 << 20;

/// The most that all sessions take in a snapshot.
pub(crate) const MAX_ENCODED: usize = 48 << 20;

/// The shortest and the longest lifetime, in milliseconds.
const LIFETIMES: (u64, u64) = (1000, 24 * 60 * 60 * 1000);

/// What is to be done with a numbered command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Judged {
    /// It is the next one: apply it, and keep the [answer](Sessions::answered).
    New,
    /// It was applied before, with this answer; none, if that was too large to be kept.
    Seen(Option<Bytes>),
    /// It is not to be applied.
    Refused(SessionError),
}

/// All sessions.
#[derive(Clone, Default, Debug)]
pub(crate) struct Sessions {
    open: BTreeMap<u64, Session>,
    /// When each ends, by the cluster's clock.
    ends: BTreeSet<(u64, u64)>,
    lanes: usize,
    /// How many answers are kept, and their bytes.
    answers: usize,
    bytes: usize,
    /// A digest of everything but the answers, kept as it changes.
    digest: u128,
    pub(crate) broken: Broken,
}

#[derive(Clone, Debug)]
struct Session {
    lifetime: u64,
    ends: u64,
    lanes: BTreeMap<u32, Lane>,
}

#[derive(Clone, Default, Debug)]
struct Lane {
    /// The number of the next command.
    next: u64,
    /// The answers of the newest commands, from the oldest that was not acknowledged on.
    answers: VecDeque<Option<Bytes>>,
}

impl Lane {
    /// The answers to all numbers below this have come.
    fn acknowledged(&self) -> u64 {
        self.next - self.answers.len() as u64
    }
}

/// What a lane, or the end of a session, adds to the digest, and takes away again when it changes.
fn share(session: u64, lane: u64, one: u64, other: u64) -> u128 {
    let mut bytes = [0; 32];
    for (at, number) in [session, lane, one, other].into_iter().enumerate() {
        bytes[8 * at..8 * at + 8].copy_from_slice(&number.to_le_bytes());
    }
    xxh3_128(&bytes)
}

/// Stands where a lane's number does in the share of a session.
const NO_LANE: u64 = u64::MAX;

fn length(answer: Option<&Bytes>) -> usize {
    answer.map_or(0, Bytes::len)
}

impl Sessions {
    /// None are open.
    pub(crate) fn new(broken: Broken) -> Sessions {
        Sessions { broken, ..Sessions::default() }
    }

    /// The cluster's clock has come so far: sessions that have not been heard for their lifetime end.
    pub(crate) fn expire(&mut self, cluster_time: u64) {
        while let Some(&(ends, id)) = self.ends.first()
            && ends < cluster_time
        {
            self.close(id);
        }
    }

    /// Opens a session with this name.
    pub(crate) fn open(&mut self, id: u64, lifetime: u64, cluster_time: u64) -> Result<(), SessionError> {
        if self.open.len() >= SESSIONS {
            return Err(SessionError::Full);
        }
        let lifetime = lifetime.clamp(LIFETIMES.0, LIFETIMES.1);
        let ends = cluster_time.saturating_add(lifetime);
        self.open.insert(id, Session { lifetime, ends, lanes: BTreeMap::new() });
        self.ends.insert((ends, id));
        self.digest ^= share(id, NO_LANE, ends, lifetime);
        Ok(())
    }

    /// Ends a session. What it had done stays done.
    pub(crate) fn close(&mut self, id: u64) {
        let Some(session) = self.open.remove(&id) else { return };
        self.ends.remove(&(session.ends, id));
        self.digest ^= share(id, NO_LANE, session.ends, session.lifetime);
        self.lanes -= session.lanes.len();
        for (number, lane) in session.lanes {
            self.digest ^= share(id, number.into(), lane.next, lane.acknowledged());
            self.answers -= lane.answers.len();
            self.bytes -= lane.answers.iter().map(|answer| length(answer.as_ref())).sum::<usize>();
        }
    }

    /// What to do with this command. Whatever that is, the session was heard, and lives on.
    pub(crate) fn judge(&mut self, command: &Numbered, cluster_time: u64) -> Judged {
        let Numbered { session: id, lane, number, acknowledged } = *command;
        let Some(session) = self.open.get_mut(&id) else { return Judged::Refused(SessionError::Expired) };
        let ends = cluster_time.saturating_add(session.lifetime);
        if ends > session.ends {
            self.digest ^= share(id, NO_LANE, session.ends, session.lifetime);
            self.digest ^= share(id, NO_LANE, ends, session.lifetime);
            self.ends.remove(&(session.ends, id));
            self.ends.insert((ends, id));
            session.ends = ends;
        }
        let new = !session.lanes.contains_key(&lane);
        if new && (self.lanes >= LANES || number > 0) {
            let why = if number > 0 { SessionError::Gap } else { SessionError::Full };
            return Judged::Refused(why);
        }
        if new {
            self.lanes += 1;
            self.digest ^= share(id, lane.into(), 0, 0);
        }
        let taken = session.lanes.entry(lane).or_default();
        self.digest ^= share(id, lane.into(), taken.next, taken.acknowledged());
        let early = self.broken.is("answers-forgotten-early");
        while let Some(answer) = taken.answers.front()
            && (taken.acknowledged() < acknowledged || early)
        {
            self.bytes -= length(answer.as_ref());
            self.answers -= 1;
            taken.answers.pop_front();
        }
        self.digest ^= share(id, lane.into(), taken.next, taken.acknowledged());
        let first = taken.acknowledged();
        if number > taken.next && !self.broken.is("gaps-taken") {
            Judged::Refused(SessionError::Gap)
        } else if number < taken.next && self.broken.is("retry-applied") {
            Judged::New
        } else if number < first {
            Judged::Refused(SessionError::Forgotten)
        } else if number < taken.next {
            Judged::Seen(taken.answers[(number - first) as usize].clone())
        } else if taken.answers.len() >= ANSWERS || self.answers >= ALL_ANSWERS {
            Judged::Refused(SessionError::Full)
        } else {
            Judged::New
        }
    }

    /// A command that was to be applied was, with this answer.
    pub(crate) fn answered(&mut self, command: &Numbered, answer: Option<&Bytes>) {
        let Numbered { session: id, lane: number, .. } = *command;
        let Some(lane) = self.open.get_mut(&id).and_then(|session| session.lanes.get_mut(&number)) else {
            return;
        };
        self.digest ^= share(id, number.into(), lane.next, lane.acknowledged());
        let fits = |answer: &&Bytes| answer.len() <= LARGEST_ANSWER && self.bytes + answer.len() <= BYTES;
        let kept = answer.filter(fits);
        self.bytes += length(kept);
        self.answers += 1;
        lane.answers.push_back(kept.cloned());
        lane.next += 1;
        self.digest ^= share(id, number.into(), lane.next, lane.acknowledged());
    }

    /// Sums up everything but the answers. All zeros while there is no session.
    pub(crate) fn digest(&self) -> [u8; 16] {
        self.digest.to_le_bytes()
    }

    /// All of it, for a snapshot.
    pub(crate) fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::new();
        bytes.put_u32_le(self.open.len() as u32);
        for (id, session) in &self.open {
            bytes.put_u64_le(*id);
            bytes.put_u64_le(session.lifetime);
            bytes.put_u64_le(session.ends);
            bytes.put_u32_le(session.lanes.len() as u32);
            for (number, lane) in &session.lanes {
                bytes.put_u32_le(*number);
                bytes.put_u64_le(lane.next);
                bytes.put_u32_le(lane.answers.len() as u32);
                for answer in &lane.answers {
                    bytes.put_u32_le(answer.as_ref().map_or(u32::MAX, |answer| answer.len() as u32));
                    bytes.put_slice(answer.as_deref().unwrap_or_default());
                }
            }
        }
        bytes.freeze()
    }

    /// What a snapshot says. None: it makes no sense.
    pub(crate) fn decode(bytes: &Bytes, broken: Broken) -> Option<Sessions> {
        let mut from = bytes.clone();
        let mut all = Sessions::new(broken);
        for _ in 0..from.try_get_u32_le().ok()? {
            let id = from.try_get_u64_le().ok()?;
            let (lifetime, ends) = (from.try_get_u64_le().ok()?, from.try_get_u64_le().ok()?);
            let mut session = Session { lifetime, ends, lanes: BTreeMap::new() };
            all.digest ^= share(id, NO_LANE, ends, lifetime);
            for _ in 0..from.try_get_u32_le().ok()? {
                let number = from.try_get_u32_le().ok()?;
                let mut lane = Lane { next: from.try_get_u64_le().ok()?, answers: VecDeque::new() };
                let answers = from.try_get_u32_le().ok()?;
                if u64::from(answers) > lane.next {
                    return None;
                }
                for _ in 0..answers {
                    let answer = match from.try_get_u32_le().ok()? {
                        u32::MAX => None,
                        length if length as usize > from.remaining() => return None,
                        length => Some(Bytes::copy_from_slice(&from.split_to(length as usize))),
                    };
                    all.bytes += length(answer.as_ref());
                    all.answers += 1;
                    lane.answers.push_back(answer);
                }
                all.digest ^= share(id, number.into(), lane.next, lane.acknowledged());
                all.lanes += usize::from(session.lanes.insert(number, lane).is_none());
            }
            all.ends.insert((ends, id));
            if all.open.insert(id, session).is_some() {
                return None;
            }
        }
        from.is_empty().then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(lane: u32, number: u64, acknowledged: u64) -> Numbered {
        Numbered { session: 7, lane, number, acknowledged }
    }

    fn answer(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    /// With one session that lives for ten seconds.
    fn sessions() -> Sessions {
        let mut sessions = Sessions::default();
        sessions.open(7, 10_000, 1000).unwrap();
        sessions
    }

    fn take(sessions: &mut Sessions, command: Numbered, text: &str) {
        assert_eq!(sessions.judge(&command, 1000), Judged::New);
        sessions.answered(&command, Some(&answer(text)));
    }

    /// CS-1: whatever is sent again gets the answer that it had, until that was acknowledged.
    #[test]
    fn cs_1_a_command_that_comes_again_is_answered_again_and_not_applied() {
        let mut sessions = sessions();
        take(&mut sessions, at(0, 0, 0), "a");
        take(&mut sessions, at(0, 1, 0), "b");
        for _ in 0..3 {
            assert_eq!(sessions.judge(&at(0, 0, 0), 1000), Judged::Seen(Some(answer("a"))));
            assert_eq!(sessions.judge(&at(0, 1, 0), 1000), Judged::Seen(Some(answer("b"))));
        }
        take(&mut sessions, at(0, 2, 1), "c");
        assert_eq!(sessions.judge(&at(0, 0, 0), 1000), Judged::Refused(SessionError::Forgotten));
        assert_eq!(sessions.judge(&at(0, 1, 0), 1000), Judged::Seen(Some(answer("b"))));
        assert_eq!((sessions.answers, sessions.bytes), (2, 2));
    }

    #[test]
    fn a_lane_takes_its_numbers_in_order_and_lanes_do_not_wait_for_each_other() {
        let mut sessions = sessions();
        assert_eq!(sessions.judge(&at(0, 1, 0), 1000), Judged::Refused(SessionError::Gap));
        take(&mut sessions, at(5, 0, 0), "a");
        take(&mut sessions, at(0, 0, 0), "b");
        assert_eq!(sessions.judge(&at(0, 2, 0), 1000), Judged::Refused(SessionError::Gap));
        take(&mut sessions, at(0, 1, 0), "c");
        assert_eq!(sessions.lanes, 2);
    }

    /// CS-3: by time that comes through the log, and by no node's own.
    #[test]
    fn cs_3_a_session_ends_by_the_clusters_clock_and_never_executes_again() {
        let mut sessions = sessions();
        take(&mut sessions, at(0, 0, 0), "a");
        sessions.expire(11_000);
        assert!(matches!(sessions.judge(&at(0, 0, 0), 11_000), Judged::Seen(_)), "not before its time");
        sessions.expire(21_000);
        assert!(matches!(sessions.judge(&at(0, 0, 0), 21_000), Judged::Seen(_)), "it was heard at 11,000");
        sessions.expire(31_001);
        for number in [0, 1] {
            assert_eq!(
                sessions.judge(&at(0, number, 0), 31_001),
                Judged::Refused(SessionError::Expired),
                "{number}"
            );
        }
        assert_eq!((sessions.bytes, sessions.lanes, sessions.digest), (0, 0, 0));
    }

    /// Nothing that was not acknowledged is ever forgotten: the next command waits instead.
    #[test]
    fn bounds_refuse_new_commands_and_keep_all_answers() {
        let mut sessions = sessions();
        for number in 0..ANSWERS as u64 {
            take(&mut sessions, at(0, number, 0), "a");
        }
        let next = ANSWERS as u64;
        assert_eq!(sessions.judge(&at(0, next, 0), 1000), Judged::Refused(SessionError::Full));
        assert!(matches!(sessions.judge(&at(0, 0, 0), 1000), Judged::Seen(Some(_))));
        take(&mut sessions, at(0, next, 1), "b");

        sessions.answers = ALL_ANSWERS;
        assert_eq!(sessions.judge(&at(1, 0, 0), 1000), Judged::Refused(SessionError::Full));
        let most = (2..).take_while(|id| sessions.open(100 + id, 1, 0).is_ok()).count();
        assert_eq!(most, SESSIONS - 1);
        assert!(sessions.encode().len() < MAX_ENCODED);
    }

    /// What two versions of a machine answer may differ in length: both do the same.
    #[test]
    fn answers_that_have_no_room_are_not_kept_and_their_commands_are_done() {
        let mut sessions = sessions();
        let large = Bytes::from(vec![0; LARGEST_ANSWER]);
        for lane in 0..100 {
            assert_eq!(sessions.judge(&at(lane, 0, 0), 1000), Judged::New);
            sessions.answered(&at(lane, 0, 0), Some(&large));
        }
        assert_eq!((sessions.answers, sessions.bytes), (100, BYTES));
        assert_eq!(sessions.judge(&at(0, 0, 0), 1000), Judged::Seen(Some(large)));
        assert_eq!(sessions.judge(&at(99, 0, 0), 1000), Judged::Seen(None));
        assert!(sessions.encode().len() < MAX_ENCODED);
        sessions.close(7);
        assert_eq!((sessions.answers, sessions.bytes), (0, 0));
    }

    #[test]
    fn an_answer_that_is_too_large_is_not_kept_and_its_command_is_not_applied_again() {
        let mut sessions = sessions();
        assert_eq!(sessions.judge(&at(0, 0, 0), 1000), Judged::New);
        sessions.answered(&at(0, 0, 0), Some(&Bytes::from(vec![0; LARGEST_ANSWER + 1])));
        assert_eq!(sessions.judge(&at(0, 0, 0), 1000), Judged::Seen(None));
    }

    #[test]
    fn all_of_it_survives_a_snapshot() {
        let mut sessions = sessions();
        for number in 0..5 {
            take(&mut sessions, at(3, number, number / 2), "answer");
        }
        sessions.open(9, 5000, 2000).unwrap();
        let bytes = sessions.encode();
        let mut back = Sessions::decode(&bytes, Broken::default()).unwrap();
        assert_eq!(back.encode(), bytes);
        assert_eq!(
            (back.digest, back.bytes, back.lanes, &back.ends),
            (sessions.digest, sessions.bytes, 1, &sessions.ends)
        );
        assert_eq!(back.judge(&at(3, 4, 2), 1000), Judged::Seen(Some(answer("answer"))));
        for length in 0..bytes.len() {
            assert!(Sessions::decode(&bytes.slice(..length), Broken::default()).is_none(), "{length}");
        }
    }

    #[test]
    fn the_digest_tells_states_apart() {
        let (mut one, mut other) = (sessions(), sessions());
        assert_eq!(one.digest(), other.digest());
        take(&mut one, at(0, 0, 0), "a");
        assert_ne!(one.digest(), other.digest());
        take(&mut other, at(1, 0, 0), "a");
        assert_ne!(one.digest(), other.digest());
        one.close(7);
        other.close(7);
        assert_eq!((one.digest(), other.digest()), ([0; 16], [0; 16]));
    }
}
