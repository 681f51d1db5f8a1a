//! Writes that a follower hands to its leader: at most once, over one hop.
//!
//! The sender keeps who waits until the answer comes or certainly will not; the leader has its machine look at
//! the command first, and answers in any case. What is lost on the way is `Unknown`, and never tried again.

use crate::driver::Driver;
use crate::error::{Cause, SessionError, WriteError};
use crate::proposal::Proposal;
use crate::transport::{Forward, ForwardReply, PeerMessage};
use crate::work::{Answer, Caller, Waits, Work};
use bytes::Bytes;
use coracle_core::{Boot, Broken, Peer, Term};
use std::collections::BTreeMap;
use std::time::Duration;

/// Writes of this node's callers that went to a leader.
pub(crate) struct Forwarding<W> {
    sent: BTreeMap<u64, Sent<W>>,
    /// The newest number of what was sent, here or by the [courier](crate::courier).
    pub(crate) newest: u64,
    /// Writes to leaders of terms before this one end at this tick, if they are not answered by then.
    ending: Option<(Term, u64)>,
}

/// For how long a leader that was deposed may still answer, in ticks: if it gave way by itself, it answers everybody.
const GRACE: u64 = 10;

struct Sent<W> {
    leader: Peer,
    term: Term,
    caller: W,
    command: Bytes,
    /// Whether another leader sent it back already.
    again: bool,
}

impl<W: Waits> Forwarding<W> {
    pub(crate) fn new(boot: Boot, broken: Broken) -> Forwarding<W> {
        // Numbers of this boot alone: an answer to an earlier one may still come, by a new connection.
        let newest = if broken.is("forward-numbers-repeat") { 0 } else { boot.0 };
        Forwarding { sent: BTreeMap::new(), newest, ending: None }
    }

    /// A caller's write goes to this leader. What to send.
    pub(crate) fn send(
        &mut self,
        leader: Peer,
        term: Term,
        command: Bytes,
        limit: Duration,
        caller: W,
        again: bool,
    ) -> PeerMessage {
        self.newest = self.newest.wrapping_add(1);
        let sent = Sent { leader, term, caller, command: command.clone(), again };
        self.sent.insert(self.newest, sent);
        let time_left = limit.as_millis() as u64;
        PeerMessage::Forward(Forward {
            id: self.newest,
            time_left,
            term,
            proposal: Proposal::Command(command),
        })
    }

    /// Whether a write of this number waits for an answer from there.
    pub(crate) fn awaits(&self, id: u64, from: Peer) -> bool {
        self.sent.get(&id).is_some_and(|sent| sent.leader == from)
    }

    /// Forgets callers who have given up. How many those are.
    pub(crate) fn sweep(&mut self) -> usize {
        let before = self.sent.len();
        self.sent.retain(|_, sent| !sent.caller.gave_up());
        before - self.sent.len()
    }

    /// All who wait.
    pub(crate) fn turn_out(&mut self) -> impl Iterator<Item = W> + use<W> {
        std::mem::take(&mut self.sent).into_values().map(|sent| sent.caller)
    }
}

impl<W: Waits, R: Waits> Driver<W, R> {
    /// A follower's write: proposed if this node leads, sent back otherwise; never sent on. The machine looks
    /// at it first.
    pub(crate) fn on_forward(&mut self, from: Peer, forward: Forward) {
        match self.refuses(forward.term) {
            Some(error) => self.reply(from, forward.id, Err(error)),
            None => self.actions.work.push(Work::Check(from, forward)),
        }
    }

    /// A forwarded command was looked at, and can be applied.
    pub(crate) fn on_checked(&mut self, from: Peer, forward: Forward) {
        let Forward { id, term, proposal, .. } = forward;
        match self.refuses(term) {
            Some(error) => self.reply(from, id, Err(error)),
            None if !self.may_propose(&proposal) => {
                self.reply(from, id, Err(WriteError::Session(SessionError::Unsupported)));
            }
            None => {
                self.open += 1;
                self.commands.push((Caller::Forwarded(from, id), proposal));
            }
        }
    }

    /// A client's write, which its session numbers, and this machine understands: proposed if this node leads in the term
    /// that the client holds for the newest, and refused otherwise.
    pub(crate) fn on_submitted(&mut self, proposal: Proposal, term: Term, caller: W) {
        let error = match self.refuses(term) {
            Some(error) => error,
            None if !self.may_propose(&proposal) => WriteError::Session(SessionError::Unsupported),
            None => {
                self.open += 1;
                return self.commands.push((Caller::Client(caller), proposal));
            }
        };
        self.actions.answers.push(Answer::Write(caller, Err(error)));
    }

    /// Why a write that is meant for the leader of this term is not taken.
    fn refuses(&self, term: Term) -> Option<WriteError> {
        let raft = self.raft();
        if !raft.is_leader() || raft.term() != term {
            Some(self.not_leader())
        } else {
            self.unwritten().or_else(|| self.full().map(WriteError::Busy))
        }
    }

    /// Answers a forwarded write.
    pub(crate) fn reply(&mut self, to: Peer, id: u64, outcome: Result<Bytes, WriteError>) {
        // If the connection is gone, the other side has answered its caller already.
        self.actions.send.push((to, PeerMessage::ForwardReply(ForwardReply { id, outcome })));
    }

    /// What came of a write that was forwarded.
    pub(crate) fn end_forward(&mut self, id: u64, outcome: Result<Bytes, WriteError>) {
        let Some(Sent { mut caller, command, again, leader, term }) = self.forwarding.sent.remove(&id) else {
            return;
        };
        let in_doubt = matches!(outcome, Err(WriteError::Unknown(_)));
        let back = matches!(outcome, Err(WriteError::NotLeader { .. } | WriteError::NoLeader))
            || (in_doubt && self.raft().broken().is("sent-back-in-doubt"));
        if !again && back {
            match self.hold_again(caller, command, (leader, term)) {
                Ok(()) => return,
                Err(back) => caller = back,
            }
        }
        self.open -= 1;
        self.actions.answers.push(Answer::Write(caller, outcome));
    }

    /// The answers of this leader will not come.
    pub(crate) fn end_forwards_to(&mut self, leader: Peer) {
        self.end_forwards(&Cause::Disconnected, |sent| sent.leader == leader);
    }

    /// There is a newer term: leaders of older ones may not answer any more, or only when they wake. For a moment they are
    /// waited for.
    pub(crate) fn end_forwards_before(&mut self, term: Term) {
        let due = self.forwarding.ending.map_or(self.ticks + GRACE, |(_, due)| due);
        self.forwarding.ending = Some((term, due));
    }

    /// Ends what leaders of older terms have not answered.
    pub(crate) fn look_after_forwards(&mut self) {
        if let Some((term, _)) = self.forwarding.ending.take_if(|(_, due)| self.ticks >= *due) {
            self.end_forwards(&Cause::LeadershipLost, |sent| sent.term < term);
        }
    }

    fn end_forwards(&mut self, cause: &Cause, which: impl Fn(&Sent<W>) -> bool) {
        let sent = self.forwarding.sent.iter();
        let ended: Vec<u64> = sent.filter(|(_, sent)| which(sent)).map(|(id, _)| *id).collect();
        let told_no = self.raft().broken().is("forward-loss-told-no");
        for id in ended {
            #[cfg(feature = "mutants")]
            if self.raft().broken().is("forward-retried")
                && let Some(Sent { caller, command, .. }) = self.forwarding.sent.remove(&id)
            {
                self.commands.push((Caller::Here(caller), Proposal::Command(command)));
                continue;
            }
            let error = if told_no { WriteError::NoLeader } else { WriteError::Unknown(cause.clone()) };
            self.end_forward(id, Err(error));
        }
    }
}
