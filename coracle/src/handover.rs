//! Leadership that goes to another node: who waits for that, and the commands that are held meanwhile.
//!
//! While a leader hands over, it takes no commands (the core says for how long). They are held here, and then proposed if
//! nothing came of it, or handed on to the new leader. So are forwarded writes that their leader sent back because it leads
//! no more: those are certainly not done, and go to the next leader, once.

use crate::driver::Driver;
use crate::error::{Busy, WriteError};
use crate::proposal::Proposal;
use crate::stopped_machines::OWN;
use crate::work::{Answer, Caller, Transferred, Waits};
use bytes::Bytes;
use coracle_core::{Member, NodeId, Peer, RefusedReason, Term, TransferEnd};
use std::collections::BTreeSet;
use std::mem;

/// What is held, and who waits.
pub(crate) struct Handover<W> {
    held: Vec<Held<W>>,
    /// The bytes of the commands that are held, and how many there may be.
    bytes: u64,
    most: u64,
    /// For how long commands wait for a new leader after a transfer, and its caller for its name, in ticks: two of the
    /// longest election timeouts, should the first candidate fail.
    patience: u64,
    /// Until which tick the commands wait for a leader.
    until: u64,
    /// Callers, by name, whose leader was deposed in this term, and until which tick they wait for the next.
    deposed: Vec<(u64, Term, u64)>,
}

struct Held<W> {
    caller: Caller<W>,
    command: Proposal,
    /// The leader that sent it back, of which term, if one did.
    back: Option<(Peer, Term)>,
}

impl<W: Waits> Handover<W> {
    pub(crate) fn new(most: u64, patience: u64) -> Handover<W> {
        Handover { held: Vec::new(), bytes: 0, most, patience, until: 0, deposed: Vec::new() }
    }

    /// Holds a command.
    fn hold(&mut self, caller: Caller<W>, command: Proposal, back: Option<(Peer, Term)>) {
        self.bytes += command.len() as u64;
        self.held.push(Held { caller, command, back });
    }

    /// Whether no command is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether there is no room for another command.
    fn is_full(&self) -> bool {
        self.bytes > self.most
    }

    fn take(&mut self) -> Vec<Held<W>> {
        self.bytes = 0;
        mem::take(&mut self.held)
    }

    /// Forgets callers who have given up. How many those are.
    pub(crate) fn sweep(&mut self) -> usize {
        let before = self.held.len();
        self.held.retain(|held| !held.caller.gave_up());
        self.bytes = self.held.iter().map(|held| held.command.len() as u64).sum();
        before - self.held.len()
    }

    /// All who wait: certainly nothing was done of what they want.
    pub(crate) fn turn_out(&mut self) -> impl Iterator<Item = Caller<W>> + use<W> {
        self.take().into_iter().map(|held| held.caller)
    }
}

impl<W: Waits, R: Waits> Driver<W, R> {
    /// A caller, under this name, wants another node to lead: this one, or the best.
    pub(crate) fn on_transfer(&mut self, caller: u64, to: Option<NodeId>) {
        self.events.push(crate::replica::Event::Transfer(caller, to));
    }

    /// These members have said by their connections that they know no transfers.
    pub(crate) fn without_transfers(&mut self, without: BTreeSet<Peer>) {
        self.events.push(crate::replica::Event::NoTransfers(without));
    }

    /// What the core says of transfers.
    pub(crate) fn on_transfers(&mut self, transfers: Vec<(u64, Result<TransferEnd, RefusedReason>)>) {
        let (term, until) = (self.replica.raft().term(), self.ticks + self.handover.patience);
        // What this node asked for itself waits for nothing.
        for (caller, outcome) in transfers.into_iter().filter(|(caller, _)| *caller != OWN) {
            let outcome = match outcome {
                Ok(TransferEnd::Deposed { .. }) => {
                    self.handover.deposed.push((caller, term, until));
                    continue;
                }
                Ok(TransferEnd::GivenUp { to, why }) => Transferred::GivenUp(to, why),
                Err(reason) => Transferred::Refused(reason),
            };
            self.actions.transferred.push((caller, outcome));
        }
    }

    /// Tells those whose leader was deposed who leads now, or that nobody does for so long.
    pub(crate) fn look_after_transfers(&mut self) {
        let leader = self.replica.raft().leader();
        for (caller, term, until) in mem::take(&mut self.handover.deposed) {
            match leader {
                Some(leader) => self.actions.transferred.push((caller, Transferred::Leads(leader))),
                None if self.ticks >= until => {
                    self.actions.transferred.push((caller, Transferred::Unknown));
                }
                None => self.handover.deposed.push((caller, term, until)),
            }
        }
    }

    /// The commands that may be proposed now: those that came, unless this leader is handing over, and those that were held.
    pub(crate) fn admit(&mut self) -> Vec<(Caller<W>, Proposal)> {
        let commands = mem::take(&mut self.commands);
        if let Some(why) = self.unwritten() {
            let held = self.handover.take().into_iter().map(|held| (held.caller, held.command));
            for (caller, _) in held.chain(commands).collect::<Vec<_>>() {
                self.refuse_write(caller, why.clone());
            }
            return Vec::new();
        }
        let raft = self.replica.raft();
        if raft.holds_proposals() {
            self.handover.until = self.ticks + self.handover.patience;
            for (caller, command) in commands {
                if self.handover.is_full() {
                    self.refuse_write(caller, WriteError::Busy(Busy::Quorum));
                } else {
                    self.handover.hold(caller, command, None);
                }
            }
            return Vec::new();
        }
        if self.handover.is_idle() {
            return commands;
        }
        if raft.is_leader() {
            let held = self.handover.take().into_iter().map(|held| (held.caller, held.command));
            return held.chain(commands).collect();
        }
        let (leader, term) = (raft.leader_member().map(Member::peer), raft.term());
        if leader.is_none() && self.ticks < self.handover.until {
            return commands;
        }
        if raft.broken().is("held-forgotten") {
            self.open -= self.handover.take().len();
        }
        let waits = self.ticks < self.handover.until;
        for Held { caller, command, back } in self.handover.take() {
            match (leader, caller) {
                // It is sent again all the same.
                (_, caller @ Caller::Carried(_)) => self.refuse_write(caller, self.not_leader()),
                // This one sent it back, and what came after it is not known here yet.
                (Some(leader), caller) if waits && back == Some((leader, term)) => {
                    self.handover.hold(caller, command, back);
                }
                (Some(leader), Caller::Here(caller)) if self.forward => {
                    let Proposal::Command(command) = command else {
                        self.refuse_write(Caller::Here(caller), self.not_leader());
                        continue;
                    };
                    let limit = self.limit;
                    let again = back.is_some();
                    let message = self.forwarding.send(leader, term, command, limit, caller, again);
                    self.actions.send.push((leader, message));
                }
                (_, caller) => self.refuse_write(caller, self.not_leader()),
            }
        }
        commands
    }

    /// A leader sent a forwarded write back, since it leads no more: it waits for the next one. False if it should not.
    pub(crate) fn hold_again(&mut self, caller: W, command: Bytes, by: (Peer, Term)) -> Result<(), W> {
        if self.handover.held.is_empty() {
            self.handover.until = self.ticks + self.handover.patience;
        }
        if self.handover.is_full() {
            return Err(caller);
        }
        self.handover.hold(Caller::Here(caller), Proposal::Command(command), Some(by));
        Ok(())
    }

    /// Says that a write certainly was not done.
    pub(crate) fn refuse_write(&mut self, caller: Caller<W>, error: WriteError) {
        self.open -= 1;
        match caller {
            Caller::Here(caller) | Caller::Client(caller) => {
                self.actions.answers.push(Answer::Write(caller, Err(error)));
            }
            Caller::Forwarded(peer, id) => self.reply(peer, id, Err(error)),
            Caller::Carried(flight) => self.courier.on_answer(flight, Err(error), self.ticks),
        }
    }
}
