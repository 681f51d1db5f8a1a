//! How messages, inputs and outputs read: one line for each thing said or done.
//!
//! An entry is written `index.term`, a node by its id. What a test or a simulator shows of a run is made of
//! these lines, so a run reads as a conversation and two runs are compared as text.

use crate::{
    Alarm, AppendEntries, AppendEntriesReply, Dropped, Envelope, GivenUp, HandedOver, Held, Index, Input,
    InstallSnapshot, InstallSnapshotReply, Message, Output, ReadGrant, ReadIndex, ReadIndexReply, Refusal,
    Refused, RefusedReason, Replicate, RequestVote, RequestVoteReply, TailChange, TimeoutNow, TransferEnd,
    Write,
};
use core::fmt;

impl fmt::Display for Envelope {
    /// Writes `1 -> 2: AppendEntries …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}: {}", self.from.id, self.to.id, self.message)
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::RequestVote(vote) => vote.fmt(f),
            Message::RequestVoteReply(reply) => reply.fmt(f),
            Message::AppendEntries(append) => append.fmt(f),
            Message::AppendEntriesReply(reply) => reply.fmt(f),
            Message::ReadIndex(ask) => ask.fmt(f),
            Message::ReadIndexReply(reply) => reply.fmt(f),
            Message::InstallSnapshot(install) => install.fmt(f),
            Message::InstallSnapshotReply(reply) => reply.fmt(f),
            Message::TimeoutNow(ask) => ask.fmt(f),
        }
    }
}

/// The name of a question for a vote, binding or not.
fn vote_name(pre: bool) -> &'static str {
    if pre { "PreVote" } else { "RequestVote" }
}

impl fmt::Display for RequestVote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} term {}, last {}", vote_name(self.pre), self.campaign, self.last)?;
        match self.handed_over {
            Some(HandedOver { by, term }) => write!(f, ", {} of term {term} hands over", by.id),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RequestVoteReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} reply term {}: ", vote_name(self.pre), self.campaign)?;
        match self.refusal {
            None => f.write_str("granted"),
            Some(refusal) => write!(f, "refused in term {}, {refusal}", self.term),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Term => "which is newer",
            Refusal::Voted => "it voted for another",
            Refusal::Log => "its log is more up-to-date",
            Refusal::Leader => "it hears a leader",
            Refusal::Rival => "it asks as well and goes first",
        })
    }
}

impl fmt::Display for AppendEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        append_entries(f, self, self.last)
    }
}

/// AppendEntries with entries up to `last`.
fn append_entries(f: &mut fmt::Formatter<'_>, append: &AppendEntries, last: Index) -> fmt::Result {
    write!(f, "AppendEntries term {}, prev {}, ", append.term, append.prev)?;
    match last.0.saturating_sub(append.prev.index.0) {
        0 => f.write_str("no entries")?,
        1 => write!(f, "entry {last}")?,
        _ => write!(f, "entries {} to {last}", append.prev.index.next())?,
    }
    write!(f, ", commit {}, round {}", append.commit, append.round)?;
    match append.lease {
        0 => Ok(()),
        lease => write!(f, ", lease {lease}"),
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.envelope.fmt(f)
    }
}

impl fmt::Display for AppendEntriesReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AppendEntries reply term {}, ", self.term)?;
        match self.conflict {
            Some(limit) => write!(f, "no match, at most {limit}, ")?,
            None => write!(f, "match {}, ", self.matched)?,
        }
        write!(f, "last {}, round {}", self.last, self.round)?;
        match self.promised {
            0 => Ok(()),
            promised => write!(f, ", promised {promised}"),
        }
    }
}

impl fmt::Display for ReadIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadIndex term {}, question {}", self.term, self.sequence)
    }
}

impl fmt::Display for ReadIndexReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReadIndex reply term {}, question {}: ", self.term, self.sequence)?;
        match self.index {
            Some(index) => write!(f, "index {index}"),
            None => f.write_str("refused"),
        }
    }
}

impl fmt::Display for InstallSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InstallSnapshot { term, snapshot, offset, length, .. } = self;
        write!(f, "InstallSnapshot term {term}, up to {snapshot}, from byte {offset} of {length}")
    }
}

impl fmt::Display for InstallSnapshotReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let InstallSnapshotReply { term, snapshot, next, .. } = self;
        write!(f, "InstallSnapshot reply term {term}, up to {snapshot}, next byte {next}")
    }
}

impl fmt::Display for TimeoutNow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TimeoutNow term {}, to whom holds {}", self.term, self.last)
    }
}

impl fmt::Display for TransferEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TransferEnd::Deposed { to, .. } => write!(f, "to {to}: this node leads no more"),
            TransferEnd::GivenUp { to, why } => write!(f, "to {to}: given up, since {why}"),
        }
    }
}

impl fmt::Display for GivenUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GivenUp::NotVoter => "it votes no more",
            GivenUp::Silent => "it does not answer",
            GivenUp::Lagging => "it did not catch up within an election timeout",
            GivenUp::NotElected => "it was told to campaign, and was not elected within an election timeout",
        })
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Input::Tick => f.write_str("tick"),
            Input::Receive(envelope, _) => write!(f, "receive {envelope}"),
            Input::Propose { ticket, count: 1 } => write!(f, "propose an entry, ticket {ticket}"),
            Input::Propose { ticket, count } => write!(f, "propose {count} entries, ticket {ticket}"),
            Input::Read { ticket } => write!(f, "read, ticket {ticket}"),
            Input::Forget(tickets) => {
                f.write_str("forget tickets")?;
                tickets.iter().try_for_each(|ticket| write!(f, " {ticket}"))
            }
            Input::Bootstrap { ticket, membership } => {
                write!(f, "found a cluster, ticket {ticket}, voters")?;
                membership.voters.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Input::ChangeMembership { ticket, expected, to } => {
                write!(f, "change the membership {expected}, ticket {ticket}, voters")?;
                to.voters.iter().try_for_each(|id| write!(f, " {id}"))
            }
            Input::TransferLeadership { ticket, to: None } => write!(f, "hand over, ticket {ticket}"),
            Input::TransferLeadership { ticket, to: Some(to) } => {
                write!(f, "hand over to {to}, ticket {ticket}")
            }
            Input::Persisted(id) => write!(f, "write {id} is durable"),
            Input::Sent { to, prev, last, .. } => write!(f, "sent to {}, after {prev} up to {last}", to.id),
            Input::Unsent { to, .. } => write!(f, "not sent to {}", to.id),
            Input::Applied(index) => write!(f, "applied up to {index}"),
            Input::SnapshotSaved { snapshot, purge } => {
                write!(f, "a snapshot up to {snapshot} is durable; purge up to {purge}")
            }
            Input::PieceTaken { from, reply } => write!(f, "took a piece from {}: {reply}", from.id),
            Input::SnapshotReceived { snapshot, .. } => write!(f, "a snapshot up to {snapshot} is here"),
            Input::LeaderDown(id) => write!(f, "the process of {id} is gone"),
            Input::Campaign => f.write_str("campaign"),
            Input::KnowNoTransfers(peers) => {
                f.write_str("these know no transfers:")?;
                peers.iter().try_for_each(|peer| write!(f, " {}", peer.id))
            }
            Input::Fence => f.write_str("the machine differs from a majority's"),
            Input::WantState(Some(after)) => write!(f, "the machine wants a state from after {after}"),
            Input::WantState(None) => f.write_str("the machine wants no other state"),
            Input::Mended => f.write_str("the machine was rebuilt"),
            Input::MachineStopped(true) => f.write_str("the machine has stopped"),
            Input::MachineStopped(false) => f.write_str("the machine goes on"),
        }
    }
}

impl fmt::Display for Output {
    /// One line for each thing that is to be done, in the order of the fields; nothing where there is nothing to do.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(members) = &self.members {
            f.write_str("members")?;
            members.all().try_for_each(|member| write!(f, " {}", member.id))?;
            writeln!(f)?;
        }
        lines(f, "log", &self.tail)?;
        lines(f, "replicate", &self.replicate)?;
        lines(f, "send", &self.send)?;
        lines(f, "write", &self.write)?;
        lines(f, "send once durable", &self.send_after_sync)?;
        lines(f, "purge up to", &self.purge)?;
        for (from, piece) in &self.pieces {
            writeln!(f, "store a piece from {}: {piece}", from.id)?;
        }
        for (to, reply) in &self.taken {
            writeln!(f, "taken by {}: {reply}", to.id)?;
        }
        lines(f, "restore", &self.installed)?;
        lines(f, "commit", &self.commit)?;
        lines(f, "read", &self.reads)?;
        lines(f, "refused", &self.refused)?;
        for (ticket, end) in &self.transfers {
            writeln!(f, "transfer of ticket {ticket}, {end}")?;
        }
        lines(f, "alarm", &self.alarms)?;
        lines(f, "dropped", &self.dropped)
    }
}

fn lines<'a, T: fmt::Display + 'a>(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    items: impl IntoIterator<Item = &'a T>,
) -> fmt::Result {
    items.into_iter().try_for_each(|item| writeln!(f, "{what} {item}"))
}

impl fmt::Display for TailChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TailChange::Reset(snapshot) => write!(f, "drops everything; a snapshot stands up to {snapshot}"),
            TailChange::Truncate(last) => write!(f, "drops everything after {last}"),
            TailChange::TakeReceived(first) => write!(f, "takes the entries received, from {first} on"),
            TailChange::TakeProposed { first, count: 1, ticket } => {
                write!(f, "takes the entry of ticket {ticket} as {first}")
            }
            TailChange::TakeProposed { first, count, ticket } => {
                write!(f, "takes the {count} entries of ticket {ticket}, the first as {first}")
            }
            TailChange::TakeNoop(id) => write!(f, "takes the empty entry {id}"),
            TailChange::TakeMembership { id, membership, ticket } => {
                match ticket {
                    Some(ticket) => write!(f, "takes the membership of ticket {ticket} as {id}, voters")?,
                    None => write!(f, "takes the membership {id}, voters")?,
                }
                membership.voters.iter().try_for_each(|id| write!(f, " {id}"))?;
                if membership.is_joint() {
                    f.write_str(", and before")?;
                    membership.outgoing.keys().try_for_each(|id| write!(f, " {id}"))?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Replicate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "to {}: ", self.to.id)?;
        append_entries(f, &self.append, self.last)
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.id)?;
        if let Some(hard_state) = &self.hard_state {
            write!(f, " term {}", hard_state.term)?;
            match hard_state.vote {
                Some(vote) => write!(f, " vote {}", vote.id)?,
                None => write!(f, " no vote")?,
            }
        }
        if let Some(snapshot) = self.reset {
            write!(f, " reset to {snapshot}")?;
        }
        if let Some(last) = self.truncate {
            write!(f, " truncate after {last}")?;
        }
        match self.append {
            Some((first, last)) if first == last => write!(f, " append {first}"),
            Some((first, last)) => write!(f, " append {first} to {last}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ReadGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {} at {}", self.ticket, self.index)
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ticket {}: {}", self.ticket, self.reason)
    }
}

impl fmt::Display for RefusedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RefusedReason::NotLeader(None) => f.write_str("no leader is known"),
            RefusedReason::NotLeader(Some(leader)) => write!(f, "{leader} leads"),
            RefusedReason::NotConfigured => f.write_str("the node has no membership"),
            RefusedReason::AlreadyConfigured => f.write_str("the node has a membership, or a term, already"),
            RefusedReason::BadMembership => {
                f.write_str("no membership that can be founded or changed to here")
            }
            RefusedReason::NotYet => f.write_str(
                "the leader is new: nothing of its own term is committed yet, or too few have answered it",
            ),
            RefusedReason::ChangeUnderWay => f.write_str("another change of the membership is not over yet"),
            RefusedReason::NotCurrent(id) => write!(f, "the membership was changed meanwhile, by entry {id}"),
            RefusedReason::NotCaughtUp(id) => write!(f, "{id} is to vote, and lacks too much of the log"),
            RefusedReason::NoQuorum => f.write_str("too few of those who are to vote answer now"),
            RefusedReason::HandingOver(to) => write!(f, "the leader is handing over to {to}"),
            RefusedReason::NotVoter(id) => write!(f, "{id} is no other voter"),
            RefusedReason::KnowsNoTransfers(id) => {
                write!(f, "{id} runs a version that knows no transfers of leadership")
            }
            RefusedReason::NoTarget => f.write_str("no other voter answers and has what it needs"),
        }
    }
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::LostEntries { follower, acknowledged, last } => {
                write!(f, "node {follower} acknowledged {acknowledged} and its log ends at {last}")
            }
            Alarm::TermTooFar { from, term } => write!(f, "node {from} claims term {term}"),
            Alarm::DiskStalled { ticks } => write!(f, "the disk has not finished a write for {ticks} ticks"),
        }
    }
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dropped::Misdelivered => "as meant for another node",
            Dropped::Removed => "as from a removed node",
            Dropped::Malformed => "as malformed",
            Dropped::Stale => "as stale",
            Dropped::NotMember => "as from no member",
            Dropped::TermTooFar => "as of a term too far ahead",
            Dropped::Unexpected => "as unexpected in this role",
            Dropped::Lagging => "as asking this node to lead, which lags",
            Dropped::Promised => "as asking this node to lead, which promised another to wait",
            Dropped::SecondLeader => "as from a second leader",
            Dropped::ContradictsCommitted => "as against what is committed",
        })
    }
}
