//! Several people want a cluster founded at once, some of other members, before there is any.
//!
//! A small world of its own: nodes without a cluster, which promise, found and join while they crash and their links
//! are cut. All lists share a node, so one cluster at most may ever come of them (S25). Once everything is healed and
//! only one list is asked for any more, there must be one soon, with all its members (L9).
//!
//! Questions travel as bytes, and may be lost, or come late, as their answers may. What the nodes say to each other in
//! a cluster is only there to have them join it.

use super::World;
use crate::founding::{Question, founder, proposal};
use crate::sim::chance::{Chance, Kind};
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::{Event, Host, Wants, Written};
use crate::sim::plan::{ELECTION, MS, Plan};
use crate::sim::situations::{Met, Rare};
use crate::storage::mem_disk::Op;
use crate::transport::PeerMessage;
use crate::wire::{self, Answer, Ask, Decoder, Incoming, Objection, Step};
use bytes::{Bytes, BytesMut};
use coracle_core::{ClusterId, Index, Member, Membership, NodeId, Peer};
use std::collections::{BTreeMap, BTreeSet};

/// How long it takes at most until a cluster is there, once everything is healed: three attempts, and an election.
const SOON: u64 = 30 * ELECTION;

/// A person asks again after so long at most.
const AGAIN: u64 = 200 * MS;

/// What happens.
enum What {
    Tick {
        node: usize,
        run: u64,
    },
    /// The disk has done what it was working on.
    Written {
        node: usize,
        run: u64,
    },
    /// The identity keeps one more promise.
    Kept {
        node: usize,
        run: u64,
    },
    Message {
        from: usize,
        to: usize,
        cluster: ClusterId,
        names: bool,
        bytes: Bytes,
    },
    Question {
        name: u64,
        to: usize,
        bytes: Bytes,
    },
    Answer {
        name: u64,
        bytes: Bytes,
    },
    /// Whoever asked this gives up on the answer.
    Lost {
        name: u64,
    },
    /// A person wants a cluster of a list founded.
    Want {
        person: usize,
    },
    Strike,
    Crash {
        node: usize,
        run: u64,
    },
    Start {
        node: usize,
    },
}

/// A question that has no answer yet.
struct Talk {
    from: usize,
    to: usize,
    run: u64,
    /// What a node asks; none: a person asks.
    question: Option<Question>,
}

struct Contest<'a> {
    chance: &'a mut Chance,
    met: &'a mut Met,
    plan: &'a Plan,
    /// Where to tell what happens, if that is wanted.
    story: Option<&'a mut Vec<String>>,
    hosts: Vec<Host>,
    cut: Vec<Vec<bool>>,
    lists: Vec<Membership>,
    /// The one that is asked for to the end.
    last: usize,
    now: u64,
    order: u64,
    queue: BTreeMap<(u64, u64), What>,
    talks: BTreeMap<u64, Talk>,
    newest: u64,
    /// Every cluster whose first entry was ever durable somewhere.
    founded: BTreeSet<ClusterId>,
    healed: bool,
}

impl World {
    /// People compete for who founds a cluster, of nodes that are gone when this run begins.
    pub(in crate::sim) fn contest(&mut self) -> Verdict {
        let mut dice = self.chance.plain(20, 0, 0);
        let size = self.plan.nodes.clamp(1, 5);
        let mut hosts: Vec<Host> = (1..=size as u64).map(Host::new).collect();
        hosts.iter_mut().for_each(|host| host.broken = self.hosts[0].broken);
        let shared = dice.below(size as u64) as usize;
        let lists = (0..self.plan.lists).map(|_| {
            let few = dice.chance(600);
            let of = hosts.iter().enumerate().filter(|(at, _)| *at == shared || !few || dice.chance(400));
            let members: Vec<Member> = of.map(|(_, host)| member(host.me)).collect();
            proposal(members)
        });
        let lists: Vec<Membership> = lists.collect();
        let last = dice.below(lists.len() as u64) as usize;
        let mut contest = Contest {
            chance: &mut self.chance,
            met: &mut self.met,
            plan: &self.plan,
            story: self.options.story.then_some(&mut self.report.story),
            hosts,
            cut: vec![vec![false; size]; size],
            lists,
            last,
            now: 0,
            order: 0,
            queue: BTreeMap::new(),
            talks: BTreeMap::new(),
            newest: 0,
            founded: BTreeSet::new(),
            healed: false,
        };
        let verdict = contest.live(&mut dice);
        let (now, order) = (contest.now, contest.order);
        self.note(now ^ order << 32);
        verdict
    }
}

fn member(peer: Peer) -> Member {
    let Peer { id, incarnation } = peer;
    Member { id, incarnation, address: format!("node-{id}:1") }
}

fn at(id: NodeId) -> usize {
    id.0 as usize - 1
}

impl Contest<'_> {
    fn live(&mut self, dice: &mut crate::sim::dice::Dice) -> Verdict {
        for node in 0..self.hosts.len() {
            self.start(node)?;
        }
        for person in 0..self.plan.founders.max(self.lists.len()) {
            self.after(dice.below(20 * MS), What::Want { person });
        }
        self.after(dice.below(50 * MS), What::Strike);
        let end = dice.within(50 * MS, 3 * ELECTION);
        while self.now < end {
            self.happen()?;
        }
        self.tell(|| "only one list is asked for any more, and nothing goes wrong".to_owned());
        self.healed = true;
        self.cut.iter_mut().for_each(|row| row.fill(false));
        let end = self.now + SOON;
        while !self.is_founded() {
            if self.now > end {
                let hosts: Vec<String> = self.hosts.iter().map(Host::describe).collect();
                return broken("L9", format!("no cluster with all its members: {}", hosts.join("; ")));
            }
            self.happen()?;
        }
        Ok(())
    }

    /// Whether a cluster is there, and all its members know.
    fn is_founded(&self) -> bool {
        let cluster = |id: &NodeId| self.hosts[at(*id)].up.as_ref().and_then(|up| up.driver.cluster());
        let whole = |list: &Membership| list.members.keys().all(|id| cluster(id) == Some(list.cluster));
        self.lists.iter().any(|list| self.founded.contains(&list.cluster) && whole(list))
    }

    fn after(&mut self, delay: u64, what: What) {
        self.order += 1;
        self.queue.insert((self.now + delay, self.order), what);
    }

    fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:6}.{:03}  {}", self.now / MS, self.now % MS, line()));
        }
    }

    fn lives(&self, node: usize, run: u64) -> bool {
        self.hosts[node].run == run && self.hosts[node].up.is_some()
    }

    fn happen(&mut self) -> Verdict {
        let Some(((now, _), what)) = self.queue.pop_first() else {
            return broken("queue", "nothing will ever happen again".to_owned());
        };
        self.now = now;
        match what {
            What::Tick { node, run } => {
                if self.lives(node, run) {
                    self.after(10 * MS, What::Tick { node, run });
                    return self.feed(node, Event::Tick);
                }
            }
            What::Written { node, run } => {
                if self.lives(node, run) {
                    return self.on_written(node);
                }
            }
            What::Kept { node, run } => {
                if self.lives(node, run) {
                    return self.on_kept(node);
                }
            }
            What::Message { from, to, cluster, names, bytes } => {
                let from = self.hosts[from].me;
                let Ok(Some(message)) = wire::decode(&bytes) else {
                    return broken("wire", "a message that was sent cannot be decoded".to_owned());
                };
                return self.feed(to, Event::Message(from, cluster, names, message));
            }
            What::Question { name, to, bytes } => {
                let Some(talk) = self.talks.get(&name) else { return Ok(()) };
                let from = self.hosts[talk.from].me;
                let Some(Incoming::FoundingAsk(ask)) = decode(&bytes) else {
                    return broken("wire", "a question that was sent cannot be decoded".to_owned());
                };
                return self.feed(to, Event::Founding(name, from, ask));
            }
            What::Answer { name, bytes } => return self.on_answer(name, &bytes),
            What::Lost { name } => return self.close(name, Err("no answer in time".to_owned())),
            What::Want { person } => return self.want(person),
            What::Strike => self.strike(),
            What::Crash { node, run } => {
                if self.lives(node, run) && !self.healed {
                    let mut dice = self.chance.plain(22, node, run);
                    self.crash(node, &mut dice);
                }
            }
            What::Start { node } => return self.start(node),
        }
        Ok(())
    }

    // ---- nodes

    fn start(&mut self, node: usize) -> Verdict {
        let host = &mut self.hosts[node];
        let mut dice = self.chance.plain(21, node, host.run);
        let (before, again) = (host.run, host.run > 0);
        if let Err(error) = host.start(self.now, self.plan, &mut dice) {
            return broken("S20", format!("node {} does not start: {error}", node + 1));
        }
        let run = host.run;
        debug_assert!(run > before);
        let promised = host.up.as_ref().is_some_and(|up| up.driver.founding.promise().is_some());
        self.met.count_if(again && promised, Rare::PromiseKept);
        self.tell(|| format!("node {} starts, {}promised", node + 1, if promised { "" } else { "not " }));
        self.after(dice.below(10 * MS), What::Tick { node, run });
        self.judge()
    }

    fn feed(&mut self, node: usize, event: Event) -> Verdict {
        if self.hosts[node].up.is_none() {
            return Ok(());
        }
        self.hosts[node].feed(self.now, event);
        let wants = self.hosts[node].settle(self.now);
        self.carry_out(node, wants)
    }

    fn carry_out(&mut self, node: usize, wants: Wants) -> Verdict {
        let Wants { send, asks, told, promises, fatal, .. } = wants;
        if let Some(reason) = fatal {
            return broken("disk", format!("node {} stops: {reason}", node + 1));
        }
        let run = self.hosts[node].run;
        for _ in 0..promises {
            let delay = self.chance.within(Kind::SlowDisk, node, 1, self.plan.disk);
            self.after(delay, What::Kept { node, run });
        }
        self.work(node);
        for question in asks {
            let to = at(question.to.id);
            let ask = question.ask.clone();
            self.ask(node, to, Some(question), &ask)?;
        }
        for (name, answer) in told {
            self.answer(node, name, &answer)?;
        }
        for (to, message) in send {
            self.send(node, at(to.id), message);
        }
        self.judge()
    }

    /// Two clusters never come of lists that share a node.
    fn judge(&mut self) -> Verdict {
        for host in &self.hosts {
            let Some(raft) = host.up.as_ref().map(crate::sim::host::Running::raft) else { continue };
            if raft.persisted() > Index::ZERO && !raft.membership().is_empty() {
                self.founded.insert(raft.membership().cluster);
            }
        }
        if self.founded.len() < 2 {
            return Ok(());
        }
        let lists = self.lists.iter().filter(|list| self.founded.contains(&list.cluster));
        let lists: Vec<Vec<u64>> = lists.map(|list| list.members.keys().map(|id| id.0).collect()).collect();
        broken("S25", format!("two clusters were founded of lists that share a node: {lists:?}"))
    }

    /// Gives an idle disk its next batch.
    fn work(&mut self, node: usize) {
        let run = self.hosts[node].run;
        let Some(up) = self.hosts[node].up.as_mut().filter(|up| up.writing.is_none()) else { return };
        up.writing = up.queue.take();
        if up.writing.is_some() {
            let delay = self.chance.within(Kind::SlowDisk, node, 1, self.plan.disk);
            self.after(delay, What::Written { node, run });
        }
    }

    fn on_written(&mut self, node: usize) -> Verdict {
        let Some(up) = &mut self.hosts[node].up else { return Ok(()) };
        match up.write(self.now) {
            Ok(Written::Whole(id)) => self.feed(node, Event::Persisted(id)),
            Ok(_) => {
                self.work(node);
                Ok(())
            }
            Err(error) => broken("disk", format!("node {} stops: {error}", node + 1)),
        }
    }

    fn on_kept(&mut self, node: usize) -> Verdict {
        let Host { up: Some(up), disk, .. } = &mut self.hosts[node] else { return Ok(()) };
        if up.promises.is_empty() {
            // It was kept before the cluster was named.
            return Ok(());
        }
        if let Err(error) = up.keep_promise(disk) {
            return broken("disk", format!("node {} stops: {error}", node + 1));
        }
        self.tell(|| format!("node {} has its promise on disk", node + 1));
        self.feed(node, Event::Promised)
    }

    // ---- questions

    /// How long something takes from one node to another; none: it does not arrive.
    fn way(&mut self, from: usize, to: usize) -> Option<u64> {
        let link = (from + 1) * 10 + to + 1;
        let lost = self.chance.happens(Kind::Drop, link, self.plan.drop).is_some();
        if self.cut[from][to] || (lost && !self.healed) {
            return None;
        }
        match self.chance.happens(Kind::Hold, link, if self.healed { 0 } else { 30 }) {
            Some(mut dice) => Some(dice.within(1, 2 * ELECTION)),
            None => Some(self.chance.within(Kind::Delay, link, MS / 5, self.plan.latency.max(MS))),
        }
    }

    fn ask(&mut self, from: usize, to: usize, question: Option<Question>, ask: &Ask) -> Verdict {
        self.newest += 1;
        let (name, run) = (self.newest, self.hosts[from].run);
        let patience = self.chance.plain(23, from, name).within(100 * MS, 2 * ELECTION);
        self.talks.insert(name, Talk { from, to, run, question });
        self.after(patience, What::Lost { name });
        let (step, list, round) = (ask.step, self.list(&ask.list), ask.round);
        self.tell(|| format!("node {} to {}: {step:?} list {list:?}, round {round}", from + 1, to + 1));
        if from == to {
            let me = self.hosts[from].me;
            return self.feed(from, Event::Founding(name, me, ask.clone()));
        }
        if let Some(delay) = self.way(from, to) {
            self.after(delay, What::Question { name, to, bytes: ask.encode().to_bytes() });
        }
        Ok(())
    }

    /// The number of a list, from 1.
    fn list(&self, list: &Membership) -> Option<usize> {
        self.lists.iter().position(|other| other == list).map(|at| at + 1)
    }

    fn answer(&mut self, node: usize, name: u64, answer: &Answer) -> Verdict {
        let Some(Talk { from, to, .. }) = self.talks.get(&name) else { return Ok(()) };
        let (from, to) = (*from, *to);
        self.tell(|| format!("node {} to {}: {}", to + 1, from + 1, shown(answer)));
        match answer {
            Answer::Refused(_, Objection::Promised(_)) => self.met.count(Rare::PromiseRefused),
            Answer::GivenUp => self.met.count(Rare::PromiseReleased),
            Answer::Promised => {
                // Between promise and founding much can happen.
                if let Some(mut dice) = self.chance.happens(Kind::Strike, node + 1, 100) {
                    let run = self.hosts[node].run;
                    self.after(dice.below(20 * MS), What::Crash { node, run });
                }
                if let Some(mut dice) = self.chance.happens(Kind::Strike, node + 11, 100) {
                    self.cut_off(node, &mut dice);
                }
            }
            _ => {}
        }
        let bytes = answer.encode().to_bytes();
        if from == to {
            return self.on_answer(name, &bytes);
        }
        if let Some(delay) = self.way(to, from) {
            self.after(delay, What::Answer { name, bytes });
        }
        Ok(())
    }

    fn on_answer(&mut self, name: u64, bytes: &Bytes) -> Verdict {
        match decode(bytes) {
            Some(Incoming::FoundingAnswer(answer)) => self.close(name, Ok(answer)),
            _ => broken("wire", "an answer that was sent cannot be decoded".to_owned()),
        }
    }

    /// A question is over.
    fn close(&mut self, name: u64, answer: Result<Answer, String>) -> Verdict {
        let Some(Talk { from, run, question, .. }) = self.talks.remove(&name) else { return Ok(()) };
        match question {
            Some(question) if self.lives(from, run) => {
                self.feed(from, Event::FoundingAnswer(Box::new(question), answer))
            }
            _ => Ok(()),
        }
    }

    /// A person asks a node of a list to have it founded, and the node asks the list's lowest.
    fn want(&mut self, person: usize) -> Verdict {
        let which = person % self.lists.len();
        let (decision, mut dice) = self.chance.next(Kind::Want, person);
        let stops = self.healed && which != self.last;
        if !stops {
            self.after(dice.within(MS, AGAIN), What::Want { person });
        }
        // What is asked after the healing is part of the test, and cannot be left out.
        if stops || (!self.healed && !self.chance.allows(decision)) {
            return Ok(());
        }
        let list = self.lists[which].clone();
        let nodes: Vec<usize> = list.members.keys().map(|id| at(*id)).collect();
        let asked = *dice.pick(&nodes);
        let Some(lowest) = founder(&list).map(|member| at(member.id)) else { return Ok(()) };
        let Some(up) = &self.hosts[asked].up else { return Ok(()) };
        if up.driver.cluster().is_some() {
            return Ok(());
        }
        let asks = |talk: &Talk| talk.question.is_none() && talk.to == lowest && talk.from != asked;
        let at_once = self.talks.values().any(asks);
        self.met.count_if(at_once, Rare::SecondFounder);
        self.ask(asked, lowest, None, &Ask::new(Step::Found, list, 0))
    }

    fn send(&mut self, from: usize, to: usize, message: PeerMessage) {
        let Some(up) = &self.hosts[from].up else { return };
        let (cluster, names) = (up.driver.cluster(), up.names(self.hosts[to].me));
        if let (Some(cluster), Some(delay)) = (cluster, self.way(from, to)) {
            let bytes = wire::encode(&message).to_bytes();
            self.after(delay, What::Message { from, to, cluster, names, bytes });
        }
    }

    // ---- what goes wrong

    fn strike(&mut self) {
        if self.healed {
            return;
        }
        let (decision, mut dice) = self.chance.next(Kind::Strike, 0);
        self.after(dice.within(MS, 300 * MS), What::Strike);
        if !self.chance.allows(decision) {
            return;
        }
        let node = dice.below(self.hosts.len() as u64) as usize;
        match dice.below(5) {
            0 | 1 => self.crash(node, &mut dice),
            2 | 3 => self.cut_off(node, &mut dice),
            _ => self.cut.iter_mut().for_each(|row| row.fill(false)),
        }
    }

    /// Links of a node are cut: all of them, or some, in one direction or both.
    fn cut_off(&mut self, node: usize, dice: &mut crate::sim::dice::Dice) {
        if self.healed {
            return;
        }
        self.tell(|| format!("links of node {} are cut", node + 1));
        let odds = *dice.pick(&[400, 1000]);
        for other in (0..self.hosts.len()).filter(|other| *other != node) {
            self.cut[node][other] |= dice.chance(odds);
            self.cut[other][node] |= dice.chance(odds);
        }
    }

    /// A process ends, or its power, perhaps in the middle of what its disk does.
    fn crash(&mut self, node: usize, dice: &mut crate::sim::dice::Dice) {
        let host = &mut self.hosts[node];
        let Some(mut up) = host.up.take() else { return };
        let before = host.disk.operations();
        let unwritten = up.driver.cluster().is_some() && up.raft().persisted() == Index::ZERO;
        self.met.count_if(unwritten, Rare::FounderCrash);
        if !up.promises.is_empty() {
            host.disk.fail_from(before + dice.below(6));
            // Nobody is there to hear of it.
            let kept = up.keep_promise(&host.disk);
            let replaced = host.disk.trace().iter().skip(before as usize).any(|op| *op == Op::Rename);
            self.met.count_if(kept.is_err() && replaced, Rare::PromiseCut);
        } else if up.writing.is_some() {
            host.disk.fail_from(before + dice.below(6));
            drop(up.write(self.now));
        }
        drop(up);
        let (power, odds) = (dice.chance(500), *dice.pick(&[0, 300, 700, 1000]));
        if power {
            host.disk = host.disk.power_cut(512, || dice.chance(odds));
        } else {
            host.disk.clear_faults();
        }
        self.tell(|| format!("node {} {}", node + 1, if power { "loses its power" } else { "crashes" }));
        self.after(dice.within(MS, ELECTION), What::Start { node });
    }
}

fn decode(bytes: &Bytes) -> Option<Incoming> {
    let mut stream = BytesMut::from(&bytes[..]);
    Decoder::new(usize::MAX).next(&mut stream).ok().flatten().map(|(incoming, _)| incoming)
}

/// An answer in a few words.
fn shown(answer: &Answer) -> String {
    match answer {
        Answer::Refused(node, Objection::Promised(list)) => {
            let members: Vec<u64> = list.members.keys().map(|id| id.0).collect();
            format!("no: node {node} has promised itself to {members:?}")
        }
        other => format!("{other:?}"),
    }
}
