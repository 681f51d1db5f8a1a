//! What a client decides: whom to connect to, who leads, what to send to whom, and when to give up. It knows bytes, and no
//! machine.
//!
//! A passive structure, as the [`driver`](crate::driver) of a node is: somebody else has the sockets and the clock. Writes are
//! carried by a [`Courier`], the very same that a node has for its own session: it numbers them, and sends them again and
//! again, to whoever leads, until they are answered. Who leads is what the nodes say of themselves: the one that says so in
//! the newest term.

use super::reads::{Ask, Outcome, Question, Reads};
use crate::courier::{Courier, To};
use crate::error::{Busy, ReadError, WriteError};
use crate::proposal::Proposal;
use crate::transport::{Forward, ForwardReply};
use crate::wire::{Directory, Query, QueryReply};
use crate::work::Waits;
use bytes::Bytes;
use coracle_core::{Broken, ClusterId, LogId, Membership, Peer};
use std::collections::{BTreeMap, BTreeSet};

/// To how many nodes a client keeps a connection. 9: every voter of the largest cluster that makes sense. The leader is one
/// of them.
pub(super) const NODES: usize = 9;

/// How often callers who gave up are looked for, in ticks.
const SWEEP: u64 = 100;

/// A tick is 10 ms.
const TICK: u64 = 10;

/// Somebody who waits until a certain tick.
pub(crate) trait Patient: Waits {
    /// The tick after which the answer is of no use.
    fn until(&self) -> u64;
}

/// What a client may hold.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// How many calls may wait.
    pub(crate) calls: usize,
    /// How many bytes their commands may take.
    pub(crate) bytes: u64,
}

/// A node that there is a connection to.
struct Node {
    peer: Peer,
    directory: Directory,
}

/// What to say over a connection.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Say {
    Write(Forward),
    Read(Query),
}

/// A write that came before it was known whether it may be done.
struct Early<W> {
    lane: u32,
    needs: u16,
    command: Bytes,
    caller: W,
}

/// What is to be done.
pub(crate) struct Actions<W, R> {
    /// What to say over which connection. Tell [`Agent::unsaid`] what cannot be.
    pub(crate) say: Vec<(u64, Say)>,
    pub(crate) writes: Vec<(W, Result<Bytes, WriteError>)>,
    pub(crate) reads: Vec<(R, Outcome)>,
}

/// A client.
pub(crate) struct Agent<W, R> {
    courier: Courier<W>,
    reads: Reads<R>,
    limits: Limits,
    /// The newest number of what was sent.
    newest: u64,
    /// Where to begin.
    seeds: Vec<String>,
    /// The cluster, once a node has named it: it is never left for another.
    pub(crate) cluster: Option<ClusterId>,
    /// The newest membership that a node told.
    membership: (LogId, Membership),
    /// By connection.
    nodes: BTreeMap<u64, Node>,
    /// Why the last attempt to connect failed.
    problem: Option<String>,
    /// Writes that need more than the first version of the machine, until a node says which one all members have.
    early: Vec<Early<W>>,
    /// The bytes of their commands.
    early_bytes: u64,
    /// The first tick at which a write's time is over.
    soonest: u64,
    swept: u64,
    answers: Vec<(W, Result<Bytes, WriteError>)>,
    refused: Vec<(R, Outcome)>,
}

impl<W: Patient, R: Patient> Agent<W, R> {
    /// `lifetime`: of its sessions, in milliseconds. `first`: where its numbers begin.
    pub(crate) fn new(
        seeds: Vec<String>,
        lifetime: u64,
        limits: Limits,
        first: u64,
        broken: Broken,
    ) -> Agent<W, R> {
        Agent {
            courier: Courier::new(lifetime, broken).only_way(),
            reads: Reads::new(),
            limits,
            newest: first,
            seeds,
            cluster: None,
            membership: (LogId::ZERO, Membership::default()),
            nodes: BTreeMap::new(),
            problem: None,
            early: Vec::new(),
            early_bytes: 0,
            soonest: u64::MAX,
            swept: 0,
            answers: Vec::new(),
            refused: Vec::new(),
        }
    }

    /// Whether anybody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.calls() == 0
    }

    fn is_full(&self) -> bool {
        self.calls() >= self.limits.calls
    }

    fn calls(&self) -> usize {
        self.early.len() + self.courier.pending() + self.reads.len()
    }

    // ---- what is asked

    /// Somebody wants this written, in order with what is in that lane. It needs a version of the machine: a node of an older
    /// one would not understand it.
    pub(crate) fn write(&mut self, lane: u32, needs: u16, command: Bytes, caller: W) {
        if self.is_full() || self.courier.bytes() + self.early_bytes > self.limits.bytes {
            return self.answers.push((caller, Err(WriteError::Busy(Busy::Requests))));
        }
        self.soonest = self.soonest.min(caller.until());
        match self.machine() {
            // With those that wait it would come out of its order.
            None if needs > 1 || !self.early.is_empty() => {
                self.wait(Early { lane, needs, command, caller });
            }
            Some(all_have) if needs > all_have => {
                self.answers.push((caller, Err(WriteError::NotYet { needs, all_have })));
            }
            _ => self.courier.take(lane, command, caller),
        }
    }

    fn wait(&mut self, early: Early<W>) {
        self.early_bytes += early.command.len() as u64;
        self.early.push(early);
    }

    /// The version of the machine that all members have, by the node that knows most of that. None: nobody has said so yet.
    fn machine(&self) -> Option<u16> {
        self.nodes.values().map(|node| node.directory.machine).max().filter(|machine| *machine > 0)
    }

    /// What came too early to know is done now, or refused.
    fn sort_early(&mut self, now: u64, unreached: &WriteError) {
        let known = self.machine().is_some();
        self.early_bytes = 0;
        for Early { lane, needs, command, caller } in std::mem::take(&mut self.early) {
            match caller.until() {
                until if until <= now => self.answers.push((caller, Err(unreached.clone()))),
                _ if caller.gave_up() => {}
                _ if known => self.write(lane, needs, command, caller),
                _ => self.wait(Early { lane, needs, command, caller }),
            }
        }
    }

    /// Somebody wants to know this.
    pub(crate) fn read(&mut self, question: Question, caller: R) {
        if self.is_full() {
            return self.refused.push((caller, Err(ReadError::Busy(Busy::Requests))));
        }
        self.reads.take(question, caller.until(), caller);
    }

    // ---- what happens

    /// There is a connection to this node. False: there was one already, and this one is to be closed.
    pub(crate) fn on_connected(&mut self, link: u64, peer: Peer, cluster: Option<ClusterId>) -> bool {
        let strange = cluster.is_some() && self.cluster.is_some() && cluster != self.cluster;
        if strange || self.nodes.values().any(|node| node.peer == peer) {
            return false;
        }
        self.cluster = self.cluster.or(cluster);
        self.nodes.insert(link, Node { peer, directory: Directory::default() });
        true
    }

    /// A node says who leads.
    pub(crate) fn on_directory(&mut self, link: u64, directory: Directory) {
        let Some(node) = self.nodes.get_mut(&link) else { return };
        if let Some((newest, membership)) = &directory.membership
            && (*newest >= self.membership.0 || self.membership.1.is_empty())
            && self.cluster.is_none_or(|cluster| cluster == membership.cluster)
        {
            self.cluster = Some(membership.cluster);
            self.membership = (*newest, membership.clone());
        }
        node.directory = directory;
    }

    /// A node says what came of a write.
    pub(crate) fn on_reply(&mut self, link: u64, reply: ForwardReply, now: u64) {
        let Some(node) = self.nodes.get(&link) else { return };
        if self.courier.awaits(reply.id, node.peer) {
            self.courier.on_answer(reply.id, reply.outcome, now);
        }
    }

    /// A node answers a question.
    pub(crate) fn on_answer(&mut self, reply: QueryReply, now: u64) {
        self.reads.on_answer(reply.id, reply.outcome, now);
    }

    /// The connection has ended.
    pub(crate) fn on_disconnected(&mut self, link: u64, why: String, now: u64) {
        if let Some(node) = self.nodes.remove(&link) {
            self.courier.on_disconnected(node.peer, now);
            self.reads.on_disconnected(link);
            self.problem = Some(why);
        }
    }

    /// There is no connection to be had there.
    pub(crate) fn on_unreachable(&mut self, why: String) {
        self.problem = Some(why);
    }

    /// Something could not be said: why the node will never take it, if so.
    pub(crate) fn unsaid(&mut self, say: &Say, never: Option<&str>, now: u64) {
        match say {
            Say::Write(forward) => {
                let error = never.map_or(WriteError::NoLeader, |why| WriteError::Invalid(why.to_owned()));
                self.courier.on_answer(forward.id, Err(error), now);
            }
            Say::Read(query) => {
                let error = never.map_or(ReadError::NoLeader, |why| ReadError::Invalid(why.to_owned()));
                self.reads.on_answer(query.id, Err(error), now);
            }
        }
    }

    // ---- what is wanted

    /// The one that leads, of those that there is a connection to.
    fn leader(&self) -> Option<(u64, To)> {
        let leads = |node: &&Node| node.directory.leader == Some(node.peer);
        let leading = self.nodes.iter().filter(|(_, node)| leads(node));
        let (link, node) = leading.max_by_key(|(_, node)| node.directory.term)?;
        Some((*link, To::Peer(node.peer, node.directory.term)))
    }

    /// Where to look for nodes that there is no connection to.
    pub(crate) fn wanted(&self) -> BTreeSet<String> {
        let membership = &self.membership.1;
        let newest = self.nodes.values().max_by_key(|node| node.directory.term);
        let leader = newest.and_then(|node| node.directory.leader);
        let named = membership.members.values().filter(|member| leader == Some(member.peer()));
        let nodes = named.chain(membership.members.values()).take(NODES);
        let met = |peer: Peer| self.nodes.values().any(|node| node.peer == peer);
        let mut wanted: BTreeSet<String> =
            nodes.filter(|member| !met(member.peer())).map(|member| member.address.clone()).collect();
        if self.nodes.is_empty() {
            wanted.extend(self.seeds.iter().cloned());
        }
        wanted
    }

    /// Whether the node at the other end of this connection is no member any more.
    pub(crate) fn is_over(&self, link: u64) -> bool {
        let membership = &self.membership.1;
        let node = self.nodes.get(&link);
        node.is_some_and(|node| {
            let others = self.nodes.values().any(|other| membership.contains(other.peer));
            !membership.is_empty() && !membership.contains(node.peer) && others
        })
    }

    /// What ends its session, for the leader, once nothing waits any more.
    pub(crate) fn end(&mut self) -> Option<(u64, Say)> {
        let (proposal, (link, to)) = (self.courier.end()?, self.leader()?);
        self.newest = self.newest.wrapping_add(1);
        Some((link, Say::Write(forward(self.newest, &to, SWEEP, proposal))))
    }

    /// What is to be done at this tick.
    pub(crate) fn turn(&mut self, now: u64) -> Actions<W, R> {
        let why = self.problem.as_deref().unwrap_or("no answer yet");
        let nobody = self.nodes.is_empty().then_some(why);
        self.reads.look_at_clock(now, nobody);
        if now >= self.soonest || !self.early.is_empty() {
            let unreached = nobody.map(|why| WriteError::Unreachable(why.to_owned()));
            let unreached = unreached.unwrap_or(WriteError::NoLeader);
            self.sort_early(now, &unreached);
            self.courier.expire(|caller| caller.until() <= now, &unreached);
            let early = self.early.iter().map(|early| early.caller.until());
            self.soonest = self.courier.callers().map(Patient::until).chain(early).min().unwrap_or(u64::MAX);
        }
        if now >= self.swept + SWEEP {
            self.swept = now;
            self.courier.sweep();
        }
        let mut say = Vec::new();
        let leader = self.leader();
        let proposals = self.courier.send(leader.map(|(_, to)| to), now, &mut self.newest);
        if let Some((link, to)) = &leader {
            let most = self.soonest.saturating_sub(now);
            say.extend(proposals.into_iter().map(|(id, it)| (*link, Say::Write(forward(id, to, most, it)))));
        }
        let first = leader.map(|(link, _)| link);
        let others = self.nodes.keys().copied().filter(|link| Some(*link) != first);
        let nodes: Vec<u64> = first.into_iter().chain(others).collect();
        for Ask { link, flight, limit, mode, query } in self.reads.ask(&nodes, now, &mut self.newest) {
            let time_left = limit.saturating_mul(TICK);
            say.push((link, Say::Read(Query { id: flight, time_left, mode, query })));
        }
        Actions { say, writes: self.told_writes(), reads: self.told_reads() }
    }

    fn told_writes(&mut self) -> Vec<(W, Result<Bytes, WriteError>)> {
        let mut answers = std::mem::take(&mut self.answers);
        answers.extend(self.courier.heard().answers);
        answers
    }

    fn told_reads(&mut self) -> Vec<(R, Outcome)> {
        let mut answers = std::mem::take(&mut self.refused);
        answers.extend(self.reads.answers());
        answers
    }
}

/// A write for the leader that this is.
fn forward(id: u64, to: &To, ticks: u64, proposal: Proposal) -> Forward {
    let (To::Here(term) | To::Peer(_, term)) = *to;
    Forward { id, time_left: ticks.saturating_mul(TICK), term, proposal }
}

#[cfg(test)]
#[path = "agent_tests.rs"]
mod tests;
