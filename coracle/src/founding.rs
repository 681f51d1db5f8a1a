//! Founding a cluster by promises, as a passive structure (D5.3.1): two lists that share a node never both
//! found one.
//!
//! A *proposal* is a list of members with their incarnations and addresses; a hash of it is the id of the cluster that
//! it would found. Only the list's lowest node, its *founder*, writes entry 1, and only in an *attempt*: it asks every
//! node of the list, itself first, for the promise to take part in no other founding, and each makes that durable
//! before it says so. If all have promised, and the attempt has not ended meanwhile, it founds. One objection, or
//! five seconds without an answer, ends the attempt.
//!
//! A promise names the attempt in which it was given, its *round*; the founder numbers its attempts, and starts with
//! the number of its boot, so that they only grow. Whoever is asked to take part in another founding asks the founder
//! that it is bound to whether that is still at it. "Given up" means that every attempt so far has ended; it frees
//! from a promise of the round that the question named, and from none that was given later.
//!
//! So at the moment at which entry 1 is written, each node of the list is bound to it, and stays so until it has joined
//! that cluster; a founder that has written entry 1 never says again that it gave up, unless it lost that entry in a
//! crash before it was durable, and then nobody has seen it. Meeting a member of a cluster ends it all: whoever has a
//! cluster promises nothing.

use crate::driver::Driver;
use crate::replica::{Event, Moment};
use crate::storage::identity;
use crate::wire::{
    Answer, Ask, MAX_LIST, Objection, Step, WireError, check_membership, decode_membership, encode_membership,
};
use crate::work::{Order, Waits};
use coracle_core::{Broken, ClusterId, Member, Membership, NodeId, Peer};
use std::collections::BTreeMap;
use std::mem;
use xxhash_rust::xxh3::Xxh3Default;

/// An attempt that is not over by then ends, in ticks: 5 s, as long as a handshake may take.
const ATTEMPT: u64 = 500;

/// The pause before a node that gave no answer is asked again, in ticks.
const PAUSE: u64 = 10;

/// Questions that wait for an answer at most. One more is refused.
const MAX_WAITING: usize = 256;

/// The number of a boot is the upper half of the rounds of that boot.
const BOOT_SHIFT: u32 = 32;

const _: () = assert!(MAX_LIST == identity::MAX_LIST, "what may be sent can be kept");

/// The proposal of these members: they all vote, and its cluster is named after them.
///
/// The name is as random as their incarnations, and the same whoever computes it.
pub(crate) fn proposal(members: impl IntoIterator<Item = Member>) -> Membership {
    let mut list = Membership::of_voters(ClusterId::default(), members);
    let mut hash = Xxh3Default::new();
    hash.update(b"coracle cluster");
    for Member { id, incarnation, address } in list.members.values() {
        hash.update(&id.0.to_le_bytes());
        hash.update(&incarnation.0.to_le_bytes());
        hash.update(&(address.len() as u64).to_le_bytes());
        hash.update(address.as_bytes());
    }
    list.cluster = ClusterId(hash.digest128());
    list
}

/// Who founds the cluster of this list.
pub(crate) fn founder(list: &Membership) -> Option<&Member> {
    list.members.values().next()
}

/// To which list a blank node has promised itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Promise {
    pub(crate) list: Membership,
    pub(crate) round: u64,
}

impl Promise {
    /// What an identity keeps of it.
    pub(crate) fn to_kept(&self) -> identity::Promise {
        identity::Promise { list: encode_membership(&self.list), round: self.round }
    }

    pub(crate) fn from_kept(kept: identity::Promise) -> Result<Promise, WireError> {
        Ok(Promise { list: decode_membership(&kept.list)?, round: kept.round })
    }
}

/// A question for another node. It comes back, with the answer or with what went wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Question {
    pub(crate) to: Member,
    pub(crate) ask: Ask,
}

/// What is to be done.
#[derive(Default, Debug)]
pub(crate) struct Wants {
    /// To make durable, in this order; each is reported by [`Founding::on_durable`].
    pub(crate) promises: Vec<Option<Promise>>,
    /// To ask.
    pub(crate) asks: Vec<Question>,
    /// Answers to those who asked.
    pub(crate) answers: Vec<(u64, Answer)>,
}

/// What a node knows of foundings.
pub(crate) struct Founding {
    me: Peer,
    broken: Broken,
    /// Ticks since the start.
    now: u64,
    /// The number of the newest attempt.
    round: u64,
    /// As it was last ordered.
    promise: Option<Promise>,
    /// How many promises were ordered, and how many of them are durable.
    ordered: u64,
    durable: u64,
    /// Answers that wait until so many orders are durable.
    waiting: Vec<(u64, u64, Answer)>,
    attempt: Option<Attempt>,
    /// Whether the founder of the promise is being asked.
    asking: bool,
    /// The cluster that the node belongs to, or is about to join.
    cluster: Option<ClusterId>,
    wants: Wants,
}

/// The founder's try to found a cluster.
struct Attempt {
    list: Membership,
    /// When it ends.
    until: u64,
    /// This node's promise is durable when so many orders are.
    own: u64,
    nodes: BTreeMap<NodeId, Asked>,
    /// Why a node gave no answer, last.
    problem: Option<(NodeId, String)>,
    /// Entry 1 is written, and not durable yet.
    written: bool,
    /// Who waits for its outcome.
    callers: Vec<u64>,
}

/// How far one node of the list is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asked {
    /// It is to be asked from then on.
    Not(u64),
    /// It is being asked.
    UnderWay,
    /// It has promised itself.
    Promised,
}

impl Founding {
    /// `boot` is the number of this start.
    pub(crate) fn new(
        me: Peer,
        cluster: Option<ClusterId>,
        promise: Option<Promise>,
        boot: u64,
        broken: Broken,
    ) -> Founding {
        Founding {
            me,
            broken,
            now: 0,
            round: boot << BOOT_SHIFT,
            promise,
            ordered: 0,
            durable: 0,
            waiting: Vec::new(),
            attempt: None,
            asking: false,
            cluster,
            wants: Wants::default(),
        }
    }

    /// What is to be done now.
    pub(crate) fn take(&mut self) -> Wants {
        mem::take(&mut self.wants)
    }

    /// To which list the node has promised itself, durably or about to.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn promise(&self) -> Option<&Promise> {
        self.promise.as_ref()
    }

    /// Somebody asks, and will be told under this name.
    pub(crate) fn on_ask(&mut self, name: u64, from: Peer, ask: Ask) {
        if let Err(problem) = self.check(&from, &ask) {
            return self.refuse(name, Objection::Other(problem));
        }
        let Ask { step, list, round, .. } = ask;
        match step {
            Step::Found => self.on_found(name, list),
            Step::Promise => self.on_promise(name, list, round),
            Step::Pending => self.on_pending(name, &list),
            Step::Join => self.refuse(name, Objection::Other("this is no question of a founding".to_owned())),
        }
    }

    /// Whether this node can be asked that, by that one.
    fn check(&self, from: &Peer, ask: &Ask) -> Result<(), String> {
        let list = &ask.list;
        if *list != proposal(list.members.values().cloned()) {
            return Err("the list is not that of a founding".to_owned());
        }
        if encode_membership(list).len() > MAX_LIST {
            return Err(format!("a list of members takes at most {MAX_LIST} bytes"));
        }
        check_membership(list).map_err(|error| error.to_string())?;
        if !list.contains(self.me) {
            return Err("it is not in the list, or was in it with another disk".to_owned());
        }
        let founder = founder(list).map(Member::peer);
        match ask.step {
            Step::Found | Step::Pending if founder != Some(self.me) => {
                Err("it is not the lowest node of the list".to_owned())
            }
            Step::Promise if founder != Some(*from) => {
                Err("another than the lowest node of the list asks for a promise".to_owned())
            }
            _ if self.waiting.len() >= MAX_WAITING => Err("too many ask".to_owned()),
            _ => Ok(()),
        }
    }

    // ---- the founder

    /// Somebody wants this list to found a cluster.
    fn on_found(&mut self, name: u64, list: Membership) {
        if let Some(attempt) = self.attempt.as_mut().filter(|attempt| attempt.list == list) {
            if attempt.callers.len() < MAX_WAITING {
                return attempt.callers.push(name);
            }
            return self.refuse(name, Objection::Other("too many ask".to_owned()));
        }
        match self.cluster {
            Some(cluster) if cluster == list.cluster => return self.answer(name, Answer::Founded),
            Some(cluster) => return self.refuse(name, Objection::Cluster(cluster)),
            None => {}
        }
        if let Some(other) = self.bound_to_another(&list) {
            return self.refuse(name, Objection::Promised(other));
        }
        self.round += 1;
        self.order(Some(Promise { list: list.clone(), round: self.round }));
        let nodes = list.members.keys().map(|id| (*id, Asked::Not(0))).collect();
        let (until, own, callers) = (self.now + ATTEMPT, self.ordered, vec![name]);
        self.attempt = Some(Attempt { list, until, own, nodes, problem: None, written: false, callers });
        self.go_on();
    }

    /// Time has passed: asks who is to be asked, or ends an attempt that takes too long.
    pub(crate) fn on_tick(&mut self) {
        self.now += 1;
        let Some(attempt) = self.attempt.as_ref().filter(|attempt| !attempt.written) else { return };
        if self.now < attempt.until {
            return self.go_on();
        }
        let silent = attempt.nodes.iter().find(|(_, asked)| **asked != Asked::Promised);
        let (node, problem) = match (&attempt.problem, silent) {
            (Some((node, problem)), _) => (*node, problem.clone()),
            (None, Some((node, _))) => (*node, "no answer in time".to_owned()),
            (None, None) => (self.me.id, "it could not found the cluster".to_owned()),
        };
        self.give_up(Answer::Refused(node, Objection::Other(problem)));
    }

    /// Asks every node that is to be asked, once this node's promise is durable.
    fn go_on(&mut self) {
        let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.written) else { return };
        if self.durable < attempt.own {
            return;
        }
        attempt.nodes.insert(self.me.id, Asked::Promised);
        for (id, asked) in &mut attempt.nodes {
            let due = matches!(asked, Asked::Not(from) if *from <= self.now);
            if let (true, Some(to)) = (due, attempt.list.members.get(id)) {
                *asked = Asked::UnderWay;
                let ask = Ask::new(Step::Promise, attempt.list.clone(), self.round);
                self.wants.asks.push(Question { to: to.clone(), ask });
            }
        }
    }

    /// What came of a question.
    pub(crate) fn on_answer(&mut self, question: &Question, answer: Result<Answer, String>) {
        let (node, ask) = (question.to.id, &question.ask);
        match ask.step {
            Step::Pending => {
                self.asking = false;
                let bound = self.promise.as_ref().is_some_and(|promise| {
                    // What the founder said then says nothing of a promise that was given later.
                    promise.list == ask.list && promise.round == ask.round
                });
                if bound && self.cluster.is_none() && answer == Ok(Answer::GivenUp) {
                    self.order(None);
                }
            }
            Step::Promise if ask.round == self.round => {
                let Some(attempt) = self.attempt.as_mut().filter(|attempt| !attempt.written) else { return };
                match answer {
                    Ok(Answer::Promised) => drop(attempt.nodes.insert(node, Asked::Promised)),
                    Ok(refused @ Answer::Refused(..)) => self.give_up(refused),
                    Ok(_) => {}
                    Err(problem) => {
                        attempt.nodes.insert(node, Asked::Not(self.now + PAUSE));
                        attempt.problem = Some((node, problem));
                    }
                }
            }
            // Of an attempt that is over; and whoever wants a cluster founded hears of it elsewhere.
            Step::Promise | Step::Found | Step::Join => {}
        }
    }

    /// The list that is to be founded now: all its nodes have promised themselves to it. It is told once.
    pub(crate) fn ready(&mut self) -> Option<Membership> {
        let attempt = self.attempt.as_mut().filter(|attempt| !attempt.written)?;
        let promised = attempt.nodes.values().filter(|asked| **asked == Asked::Promised).count();
        let enough = match attempt.nodes.len() {
            all if self.broken.is("founds-without-all-promises") => all / 2 + 1,
            all => all,
        };
        (promised >= enough).then(|| {
            attempt.written = true;
            attempt.list.clone()
        })
    }

    /// Entry 1 could not be written, for this reason.
    pub(crate) fn not_founded(&mut self, problem: String) {
        self.give_up(Answer::Refused(self.me.id, Objection::Other(problem)));
    }

    /// Entry 1 is durable.
    pub(crate) fn founded(&mut self) {
        self.end(&Answer::Founded);
    }

    /// Ends the attempt, and with it this node's promise.
    fn give_up(&mut self, answer: Answer) {
        if self.attempt.is_some() {
            self.order(None);
            self.end(&answer);
        }
    }

    fn end(&mut self, answer: &Answer) {
        if let Some(Attempt { callers, .. }) = self.attempt.take() {
            callers.into_iter().for_each(|name| self.answer(name, answer.clone()));
        }
    }

    /// Whether an attempt of this list can still found it.
    fn on_pending(&mut self, name: u64, list: &Membership) {
        let under_way = self.attempt.as_ref().is_some_and(|attempt| attempt.list == *list);
        let under_way = under_way && !self.broken.is("gives-up-and-founds");
        if under_way || self.cluster == Some(list.cluster) {
            return self.answer(name, Answer::Pending);
        }
        // This node's promise goes first, and durably.
        let own = self.promise.as_ref().is_some_and(|promise| promise.list == *list);
        if own && self.attempt.is_none() && self.cluster.is_none() {
            self.order(None);
        }
        self.answer_durably(name, Answer::GivenUp);
    }

    // ---- those who promise

    /// The founder of this list asks for the promise to found no other.
    fn on_promise(&mut self, name: u64, list: Membership, round: u64) {
        if let Some(cluster) = self.cluster {
            return self.refuse(name, Objection::Cluster(cluster));
        }
        if !self.broken.is("two-promises")
            && let Some(other) = self.bound_to_another(&list)
        {
            return self.refuse(name, Objection::Promised(other));
        }
        match &self.promise {
            Some(promise) if promise.list == list && promise.round > round => {
                return self.refuse(name, Objection::Other("the attempt is an old one".to_owned()));
            }
            Some(promise) if promise.list == list && promise.round == round => {}
            _ => self.order(Some(Promise { list, round })),
        }
        self.answer_durably(name, Answer::Promised);
    }

    /// The list that forbids to take part in the founding of this one. Its founder is asked whether it is still at it.
    fn bound_to_another(&mut self, list: &Membership) -> Option<Membership> {
        let attempt = self.attempt.as_ref().map(|attempt| &attempt.list);
        if let Some(other) = attempt.filter(|other| *other != list) {
            return Some(other.clone());
        }
        let Promise { list: other, round } = self.promise.as_ref().filter(|own| own.list != *list)?;
        let founder = founder(other).filter(|founder| founder.peer() != self.me)?;
        // (Its own founder, without an attempt, has given up.)
        if !mem::replace(&mut self.asking, true) {
            let ask = Ask::new(Step::Pending, other.clone(), *round);
            self.wants.asks.push(Question { to: founder.clone(), ask });
        }
        Some(other.clone())
    }

    /// The node belongs to this cluster from now on, or is about to join it.
    pub(crate) fn belongs(&mut self, cluster: ClusterId) {
        self.cluster = Some(cluster);
        self.promise = None;
        let answer = Answer::Refused(self.me.id, Objection::Cluster(cluster));
        for (_, name, _) in mem::take(&mut self.waiting) {
            self.answer(name, answer.clone());
        }
        // What it founds itself ends when the entry is durable.
        let own = self.attempt.as_ref().is_some_and(|attempt| attempt.list.cluster == cluster);
        if !own {
            self.end(&answer);
        }
    }

    // ---- the disk

    /// One more of the promises that were ordered is durable.
    pub(crate) fn on_durable(&mut self) {
        self.durable += 1;
        let (told, waiting) =
            mem::take(&mut self.waiting).into_iter().partition(|(order, ..)| *order <= self.durable);
        self.waiting = waiting;
        let told: Vec<(u64, u64, Answer)> = told;
        self.wants.answers.extend(told.into_iter().map(|(_, name, answer)| (name, answer)));
        self.go_on();
    }

    fn order(&mut self, promise: Option<Promise>) {
        self.promise = promise;
        if !self.broken.is("promise-not-durable") {
            self.ordered += 1;
            self.wants.promises.push(self.promise.clone());
        }
    }

    /// Answers once all that was ordered is durable.
    fn answer_durably(&mut self, name: u64, answer: Answer) {
        if self.durable < self.ordered {
            self.waiting.push((self.ordered, name, answer));
        } else {
            self.answer(name, answer);
        }
    }

    fn answer(&mut self, name: u64, answer: Answer) {
        self.wants.answers.push((name, answer));
    }

    fn refuse(&mut self, name: u64, objection: Objection) {
        self.answer(name, Answer::Refused(self.me.id, objection));
    }
}

impl<W: Waits, R: Waits> Driver<W, R> {
    /// What the node remembers of earlier boots: its promise, and the number of this start.
    pub(crate) fn remembering(mut self, promise: Option<Promise>, boot: u64) -> Driver<W, R> {
        let raft = self.raft();
        self.founding = Founding::new(raft.me(), self.cluster(), promise, boot, raft.broken());
        self
    }

    /// Somebody asks about a founding, and is to be told under this name.
    pub(crate) fn on_founding(&mut self, name: u64, from: Peer, ask: Ask) {
        self.founding.on_ask(name, from, ask);
        self.pass_on_founding();
    }

    /// What came of a question of [`Actions::asks`](crate::driver::Actions::asks).
    pub(crate) fn on_founding_answer(&mut self, question: &Question, answer: Result<Answer, String>) {
        self.founding.on_answer(question, answer);
        self.pass_on_founding();
    }

    /// One more [`Order::Promise`] is durable.
    pub(crate) fn on_promised(&mut self) {
        self.founding.on_durable();
        self.pass_on_founding();
    }

    /// Founds the cluster of this list: every node in it has promised itself.
    pub(crate) fn found(&mut self, now: Moment, list: Membership) {
        let cluster = list.cluster;
        self.replica.on_event(now, Event::Bootstrap(list));
        let effects = self.replica.take();
        match effects.bootstrapped {
            Some(Ok(())) => {
                // From here on this node is of its own cluster, and no other can claim it.
                self.join(cluster);
                self.founded = Some(cluster);
            }
            Some(Err(reason)) => self.founding.not_founded(format!("its log cannot begin: {reason}")),
            None => self.founding.not_founded("its log cannot begin".to_owned()),
        }
        self.absorb(effects);
    }

    /// At once, so that the orders for the writer stay in their order.
    pub(crate) fn pass_on_founding(&mut self) {
        let Wants { promises, asks, answers } = self.founding.take();
        self.actions.orders.extend(promises.into_iter().map(Order::Promise));
        self.actions.asks.extend(asks);
        self.actions.told.extend(answers);
    }
}

#[cfg(test)]
#[path = "founding_tests.rs"]
mod tests;
