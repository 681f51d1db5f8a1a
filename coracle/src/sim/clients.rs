//! The clients: they ask, retry, give up and ask the wrong node, and remember what they saw.

use super::dice::Dice;
use super::fresh::{Past, Wants};
use super::ghost::{Verdict, Violation, broken};
use super::guest::{Asker, Call, Guests, Told as GuestTold};
use super::history::kv::{Command, Input, KeyValue, Output};
use super::history::{Budget, History, OperationId, Verdict as Judgement};
use super::host::{Heard, NotDone};
use super::machine::{Ask, Kv, Look, Seen, Told, too_much};
use super::names::Names;
use super::plan::{ELECTION, Plan};
use super::situations::{Met, Rare};
use super::witness;
use crate::entry::Entry;
use crate::freshness::Freshness;
use crate::proposal::{Numbered, Proposal};
use crate::state_machine::StateMachine;
use crate::work::RequestId;
use coracle_core::{Index, LogId};
use std::collections::BTreeMap;
use std::time::Duration;

/// A search that takes longer than this, which few in a hundred thousand do, is given up: there is a shortcut.
const BUDGET: Budget = Budget { steps: 5_000_000, configurations: 200_000 };

/// What a client did.
#[derive(Clone, Debug)]
struct Deed {
    client: usize,
    node: usize,
    ask: Result<Ask, Look>,
    /// Its place in the history, or in that of the guest.
    operation: OperationId,
    /// When the node took it in, among all requests.
    taken: u64,
    /// Whether the node has answered.
    answered: bool,
    outcome: Outcome,
    /// How fresh the answer to a read has to be, and the newest entry that it has to reflect for that.
    freshness: Freshness,
    least: Index,
    /// How far the machine had come that answered a read.
    read_at: Option<Index>,
}

impl Deed {
    /// What the answer to a read has to be like.
    fn judged<'a>(&self, value: &'a Seen) -> Wants<'a> {
        let stood = match (&self.ask, value) {
            (Err(Look::Key(key)), Seen::Value(value)) if self.freshness != Freshness::Linearizable => {
                Some((*key, value.as_deref()))
            }
            // What is linearizable is judged with all else that is.
            _ => None,
        };
        Wants { freshness: self.freshness, least: self.least, stood }
    }

    /// Whether not every program can apply it: what is skipped has no answer.
    fn fails(&self, poison: u64) -> bool {
        matches!(&self.ask, Ok(Ask::Put(_, text)) if too_much(text, poison))
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Outcome {
    Open,
    Told(Told),
    Read(Seen),
    /// Certainly did not happen.
    Never,
    Unknown,
}

struct Client {
    /// What it waits for, and until when.
    waits: Vec<(RequestId, u64)>,
    /// Whom it holds for the leader.
    leader: Option<usize>,
    /// Whether the last answer was that nobody is known to lead.
    lost: bool,
    /// Whether it is no member, and has connections to nodes.
    remote: bool,
}

/// What a client asks, and whom.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) node: usize,
    pub(super) request: RequestId,
    /// How fresh the answer to a read has to be.
    pub(super) freshness: Freshness,
    /// A command, or what to read.
    pub(super) ask: Result<Ask, Look>,
    /// For how long the answer is of use.
    pub(super) patience: u64,
}

/// The clients of a guest, in place of those that ask the simulator's own machine.
struct Hosted {
    guests: Guests,
    askers: Vec<Box<dyn Asker>>,
    history: History<Call, Vec<u8>>,
}

/// The node that a client asks whose agent knows better.
const NOWHERE: usize = usize::MAX;

pub(super) struct Clients {
    keys: u8,
    /// How many requests a client has open at most.
    depth: usize,
    /// Some texts have up to so many bytes.
    large: u64,
    clients: Vec<Client>,
    /// All deeds; a request's number is its place, from 1.
    deeds: Vec<Deed>,
    history: History<Input, Output>,
    hosted: Option<Hosted>,
    asking: bool,
    /// The node from which the first client reads, whoever leads.
    pub(super) reads_at: Option<usize>,
    /// Requests that a node has taken, and neither answered nor died with.
    owed: BTreeMap<RequestId, usize>,
    /// Texts that were applied, and at which index.
    applied: BTreeMap<String, u64>,
    /// How many requests nodes have taken in.
    taken: u64,
    /// For each lane of each session the newest entry of a command that took effect, and when that was taken in.
    lanes: BTreeMap<(u64, u32), (u64, u64)>,
    /// Whether writes are always done in a session.
    in_sessions: bool,
    /// Of so many commands one cannot be applied by every program; 0: none.
    poison: u64,
    acknowledged: u64,
    pub(super) met: Met,
    /// For reads that need not be linearizable.
    past: Past,
}

impl Clients {
    pub(super) fn new(plan: &Plan) -> Clients {
        let client =
            |at| Client { waits: Vec::new(), leader: None, lost: false, remote: plan.remote && at % 2 == 1 };
        let clients = (0..plan.clients).map(client).collect();
        Clients {
            keys: plan.keys,
            depth: plan.depth,
            large: plan.large,
            clients,
            deeds: Vec::new(),
            history: History::new(),
            hosted: None,
            asking: true,
            reads_at: None,
            owed: BTreeMap::new(),
            applied: BTreeMap::new(),
            taken: 0,
            lanes: BTreeMap::new(),
            in_sessions: plan.way == 2,
            poison: plan.poison,
            acknowledged: 0,
            met: Met::new(),
            past: Past::default(),
        }
    }

    /// From now on all of them are clients of this guest.
    pub(super) fn host(&mut self, guests: &Guests) {
        let askers = (0..self.clients.len() as u64).map(|client| guests.program.asker(client)).collect();
        self.hosted = Some(Hosted { guests: guests.clone(), askers, history: History::new() });
    }

    pub(super) fn len(&self) -> usize {
        self.clients.len()
    }

    pub(super) fn operations(&self) -> u64 {
        self.deeds.len() as u64
    }

    /// Writes that were acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    /// Whether it was told that nobody is known to lead.
    pub(super) fn is_lost(&self, client: usize) -> bool {
        self.clients[client].lost
    }

    pub(super) fn stop_asking(&mut self) {
        self.asking = false;
    }

    pub(super) fn ask_again(&mut self) {
        self.asking = true;
    }

    /// Whether nobody waits for anything.
    pub(super) fn idle(&self) -> bool {
        self.clients.iter().all(|client| client.waits.is_empty())
    }

    /// A client wakes: gives up what took too long, or asks something new of some node.
    pub(super) fn wake(
        &mut self,
        client: usize,
        now: u64,
        nodes: usize,
        committed: Index,
        dice: &mut Dice,
    ) -> Option<Question> {
        self.past.on_committed(now, committed);
        let it = &mut self.clients[client];
        let late: Vec<RequestId> =
            it.waits.extract_if(.., |(_, until)| *until <= now).map(|(request, _)| request).collect();
        for request in late {
            self.clients[client].leader = None;
            self.met.count(Rare::Abandoned);
            self.deeds[request.0 as usize - 1].outcome = Outcome::Unknown;
            self.tell_asker(request);
        }
        let reads_at = self.reads_at.filter(|_| client == 0);
        let waits = self.clients[client].waits.len();
        if !self.asking || waits >= self.depth + if reads_at.is_some() { 2 } else { 0 } {
            return None;
        }
        self.met.count_if(waits > 0, Rare::Pipelined);
        let request = RequestId(self.deeds.len() as u64 + 1);
        let ask = self.draw(client, request, dice);
        let ask = if reads_at.is_some() && self.hosted.is_none() { Err(Look::Key(0)) } else { ask };
        let (freshness, least) = self.fresh(&ask, now, committed, dice);
        let stray = dice.chance(200);
        let node = match reads_at.or(self.clients[client].leader) {
            _ if self.clients[client].remote => NOWHERE,
            Some(leader) if !stray || reads_at.is_some() => leader,
            _ => dice.below(nodes as u64) as usize,
        };
        let patience = dice.within(ELECTION / 6, 4 * ELECTION);
        let operation = match &mut self.hosted {
            None => self.history.invoke(client as u64, input(&ask)),
            Some(hosted) => hosted.history.invoke(client as u64, call(&ask)),
        };
        self.deeds.push(Deed {
            client,
            node,
            ask: ask.clone(),
            operation,
            taken: 0,
            answered: false,
            outcome: Outcome::Open,
            freshness,
            least,
            read_at: None,
        });
        self.clients[client].waits.push((request, now + patience));
        Some(Question { node, request, ask, freshness, patience })
    }

    /// What a client asks next.
    fn draw(&mut self, client: usize, request: RequestId, dice: &mut Dice) -> Result<Ask, Look> {
        let text = format!("{};", request.0);
        if let Some(hosted) = &mut self.hosted {
            return match hosted.askers[client].ask(dice) {
                Ok(Call::Command(command)) => Ok(Ask::Guest(text, command)),
                Ok(Call::Query(query)) => Err(Look::Guest(query)),
                // Which nobody asks for.
                Ok(Call::Timer(_)) => Err(Look::Guest(Vec::new())),
                Err(wrong) => {
                    hosted.guests.with(|record| record.find(LogId::ZERO, wrong));
                    Err(Look::Guest(Vec::new()))
                }
            };
        }
        let key = dice.below(u64::from(self.keys)) as u8;
        match dice.below(10) {
            0..=3 => Err(Look::Key(key)),
            // A text ends with as many semicolons as make it large.
            4 | 5 if self.large > 0 && dice.chance(500) => {
                let bytes = dice.within(1, self.large) as usize;
                Ok(Ask::Put(key, format!("{text:;<bytes$}")))
            }
            4 | 5 => Ok(Ask::Put(key, text)),
            6 | 7 => Ok(Ask::Append(key, text)),
            _ => {
                // Expect what somebody saw there last, or something wrong.
                let seen =
                    self.deeds.iter().rev().take(20).find_map(|deed| match (&deed.ask, &deed.outcome) {
                        (Err(Look::Key(other)), Outcome::Read(Seen::Value(value))) if *other == key => {
                            Some(value.clone())
                        }
                        _ => None,
                    });
                Ok(Ask::Cas(key, seen.flatten(), text))
            }
        }
    }

    /// How fresh the answer to what a client asks has to be, and the newest entry that it must reflect for that.
    fn fresh(
        &self,
        ask: &Result<Ask, Look>,
        now: u64,
        committed: Index,
        dice: &mut Dice,
    ) -> (Freshness, Index) {
        if ask.is_ok() || self.hosted.is_some() {
            return (Freshness::Linearizable, committed);
        }
        match dice.below(8) {
            0 => {
                let index = Index(committed.0.saturating_sub(dice.below(4)));
                (Freshness::AtLeast(index), index)
            }
            1 => {
                let bound = Duration::from_micros(dice.below(2 * ELECTION));
                (Freshness::Within(bound), self.past.committed(now, bound))
            }
            _ => (Freshness::Linearizable, committed),
        }
    }

    /// The client of a guest hears of what it asked.
    fn tell_asker(&mut self, request: RequestId) {
        let Some(hosted) = &mut self.hosted else { return };
        let Deed { client, ask, outcome, .. } = &self.deeds[request.0 as usize - 1];
        let told = match outcome {
            Outcome::Told(Told::Guest(bytes)) | Outcome::Read(Seen::Guest(bytes)) => GuestTold::Done(bytes),
            Outcome::Never => GuestTold::NotDone,
            _ => GuestTold::Unknown,
        };
        if let Err(wrong) = hosted.askers[*client].told(&call(ask), told) {
            hosted.guests.with(|record| record.find(LogId::ZERO, wrong));
        }
    }

    /// The node has taken the request, and owes an answer for as long as it lives.
    pub(super) fn taken(&mut self, node: usize, request: RequestId) {
        self.owed.insert(request, node);
        self.taken += 1;
        self.deeds[request.0 as usize - 1].taken = self.taken;
    }

    /// The agent of a client has taken the request, in this order.
    pub(super) fn taken_by_nobody(&mut self, request: RequestId) {
        self.taken += 1;
        self.deeds[request.0 as usize - 1].taken = self.taken;
    }

    /// Whether a client is no member, and asks by its agent.
    pub(super) fn is_remote(&self, client: usize) -> bool {
        self.clients[client].remote
    }

    /// Whom a node owes an answer.
    pub(super) fn owed_by(&self, node: usize) -> impl Iterator<Item = RequestId> + '_ {
        self.owed.iter().filter(move |(_, owes)| **owes == node).map(|(request, _)| *request)
    }

    /// The node was not there.
    pub(super) fn refused(&mut self, names: &Names, request: RequestId) -> Verdict {
        self.on_heard(names, request, Heard::NotDone(NotDone::NotLeader(None)), 0)
    }

    /// A process is gone, and with it the connections to it.
    pub(super) fn on_crash(&mut self, node: usize) {
        self.owed.retain(|_, owes| *owes != node);
        let mut lost = Vec::new();
        for client in &mut self.clients {
            let deeds = &mut self.deeds;
            client.waits.retain(|(request, _)| {
                let deed = &mut deeds[request.0 as usize - 1];
                let gone = deed.node == node;
                if gone {
                    deed.outcome = Outcome::Unknown;
                    client.leader = None;
                    lost.push(*request);
                }
                !gone
            });
        }
        lost.into_iter().for_each(|request| self.tell_asker(request));
    }

    pub(super) fn on_heard(&mut self, names: &Names, request: RequestId, heard: Heard, now: u64) -> Verdict {
        let Some(at) = (request.0 as usize).checked_sub(1) else { return Ok(()) };
        let deed = &mut self.deeds[at];
        if deed.answered {
            return broken("S21", format!("request {} was answered twice", request.0));
        }
        deed.answered = true;
        self.owed.remove(&request);
        let client = &mut self.clients[deed.client];
        let waits = client.waits.extract_if(.., |(waits_for, _)| *waits_for == request).count() > 0;
        client.lost = false;
        let outcome = match heard {
            Heard::Reply(told) => {
                // All replies are true of one order of all commands only if each comes from its own place in it.
                if let Ok(ask) = &deed.ask
                    && !self.applied.contains_key(text_of(ask))
                {
                    let detail =
                        format!("request {} was answered before any machine had applied it", request.0);
                    return broken("S17", detail);
                }
                client.leader = Some(deed.node);
                self.acknowledged += u64::from(waits);
                Outcome::Told(told)
            }
            Heard::Answer(value, applied, age) => {
                self.past.judge(request, deed.judged(&value), applied, age, now)?;
                deed.read_at = Some(applied);
                self.met.count_if(self.reads_at == Some(deed.node), Rare::CornerRead);
                Outcome::Read(value)
            }
            Heard::NotDone(NotDone::NotLeader(leader)) => {
                self.met.count_if(deed.ask.is_ok(), Rare::WrongNode);
                client.leader = leader.and_then(|id| names.node(id));
                client.lost = client.leader.is_none();
                Outcome::Never
            }
            Heard::NotDone(why) => {
                self.met.count_if(why == NotDone::Busy, Rare::Busy);
                Outcome::Never
            }
            Heard::Unknown if self.in_sessions && deed.node != NOWHERE && !deed.fails(self.poison) => {
                let detail = format!("request {} of a session was given up by its node", request.0);
                return broken("S28", detail);
            }
            Heard::Expired => {
                self.met.count(Rare::SessionExpired);
                Outcome::Unknown
            }
            Heard::Unknown | Heard::Sent(_) => Outcome::Unknown,
        };
        if outcome == Outcome::Never
            && let Ok(ask) = &deed.ask
            && self.applied.contains_key(text_of(ask))
        {
            return broken("S21", format!("request {} was refused, but had been applied", request.0));
        }
        deed.outcome = outcome;
        self.note(at, waits);
        Ok(())
    }

    /// What is known of a deed is part of the history. Whoever gave up did not see it; that it is known all the same helps
    /// the judge, and is true. The client of a guest hears of it if it still waits.
    fn note(&mut self, at: usize, waits: bool) {
        if waits {
            self.tell_asker(RequestId(at as u64 + 1));
        }
        let Deed { operation, ask, outcome, .. } = &self.deeds[at];
        if let Some(hosted) = &mut self.hosted {
            match outcome {
                Outcome::Told(Told::Guest(bytes)) | Outcome::Read(Seen::Guest(bytes)) => {
                    hosted.history.complete(*operation, bytes.clone());
                }
                Outcome::Never => hosted.history.refuse(*operation),
                _ => {}
            }
            return;
        }
        match outcome {
            Outcome::Told(told) => self.history.complete(*operation, output(ask, told)),
            // It is judged by itself.
            Outcome::Read(_) if self.deeds[at].freshness != Freshness::Linearizable => {
                self.history.refuse(*operation);
            }
            Outcome::Read(Seen::Value(value)) => {
                let value = value.clone().map(bytes::Bytes::from);
                self.history.complete(*operation, Output::Value(value));
            }
            Outcome::Never => self.history.refuse(*operation),
            Outcome::Read(Seen::Guest(_)) | Outcome::Unknown | Outcome::Open => {}
        }
    }

    /// What this request asks of a guest.
    pub(super) fn call(&self, request: RequestId) -> Call {
        call(&self.deeds[request.0 as usize - 1].ask)
    }

    /// Who asked this.
    pub(super) fn client_of(&self, request: RequestId) -> usize {
        self.deeds[request.0 as usize - 1].client
    }

    /// A machine was given a command, which took effect or did not, since it had before or may not any more.
    pub(super) fn on_applied(&mut self, entry: &Entry, effect: bool) -> Verdict {
        let stamp = entry.stamp();
        let proposal = Proposal::read(entry.kind(), stamp.session, stamp.sequence, &entry.payload());
        self.met.count_if(matches!(proposal, Some(Proposal::Open(_))), Rare::SessionOpened);
        let (place, command) = match proposal {
            Some(Proposal::Command(command)) => (None, command),
            Some(Proposal::Numbered(place, Some(command))) => (Some(place), command),
            _ => return Ok(()),
        };
        let Ok(ask) = Kv::decode_command(&command) else {
            return broken("S5", format!("the command of {} cannot be decoded", entry.id()));
        };
        if matches!(ask, Ask::Settle(_)) {
            // No client asks for that.
            return Ok(());
        }
        let text = text_of(&ask);
        let request: usize = text.trim_end_matches(';').parse().unwrap_or(0);
        let deed = self.deeds.get(request.wrapping_sub(1));
        let taken = deed.map_or(0, |deed| deed.taken);
        if deed.is_none_or(|deed| deed.ask.as_ref() != Ok(&ask)) {
            return broken("S5", format!("the command of {} was never asked for: {ask:?}", entry.id()));
        }
        if !effect {
            self.met.count(Rare::CarriedAgain);
            return Ok(());
        }
        if deed.is_some_and(|deed| deed.outcome == Outcome::Never) {
            return broken("S21", format!("request {request} was refused, but is applied at {}", entry.id()));
        }
        self.past.on_applied(entry.index(), &ask);
        let index = entry.index().0;
        let first = *self.applied.entry(text.to_owned()).or_insert(index);
        if first != index {
            return broken("S18", format!("request {request} is applied at {first} and at {index}"));
        }
        if let Some(Numbered { session, lane, .. }) = place {
            let newest = self.lanes.entry((session, lane)).or_insert((index, taken));
            if newest.0 < index && taken < newest.1 {
                let detail =
                    format!("request {request} takes effect at {index}, after a later one of its lane");
                return broken("S29", detail);
            }
            *newest = (*newest).max((index, taken));
        }
        Ok(())
    }

    /// At the end: what became of commands whose outcome nobody knew.
    pub(super) fn count_unknown(&mut self) {
        for deed in &self.deeds {
            if let (Outcome::Unknown, Ok(ask)) = (&deed.outcome, &deed.ask) {
                let done = self.applied.contains_key(text_of(ask));
                self.met.count(if done { Rare::Survived } else { Rare::Forgotten });
            }
        }
    }

    /// Whether this request reads.
    pub(super) fn reads(&self, request: RequestId) -> bool {
        self.deeds.get((request.0 as usize).wrapping_sub(1)).is_some_and(|deed| deed.ask.is_err())
    }

    /// Whether all that the clients saw can be explained by one machine (S17). False if that could not be
    /// decided within the budget, the question being NP-complete, and the order of the log is no answer.
    pub(super) fn judge(&mut self) -> Result<bool, Violation> {
        let unanswered = self.deeds.iter().filter(|deed| deed.outcome == Outcome::Open).count();
        if unanswered > 0 {
            broken("L4", format!("{unanswered} requests were never answered"))?;
        }
        if let Some((request, node)) = self.owed.first_key_value() {
            broken("L4", format!("node {} never answered request {}", node + 1, request.0))?;
        }
        // What no machine applied by now never will be: to know that makes the question far smaller.
        for deed in self.deeds.iter().filter(|deed| deed.outcome == Outcome::Unknown) {
            if deed.ask.as_ref().is_ok_and(|ask| !self.applied.contains_key(text_of(ask))) {
                match &mut self.hosted {
                    None => self.history.refuse(deed.operation),
                    Some(hosted) => hosted.history.refuse(deed.operation),
                }
            }
        }
        if let Some(Hosted { guests, history, .. }) = &self.hosted {
            let read = |deed: &Deed| Some((deed.read_at?, deed.ask.as_ref().err()?.guest()?.to_vec()));
            let queries = self.deeds.iter().filter_map(read).collect();
            guests.with(|record| record.queries = queries);
            return guests.program.judge(history, &self.places(), &guests.with(|record| record.commands()));
        }
        match KeyValue::new().check(&self.history, BUDGET) {
            Judgement::Linearizable => Ok(true),
            Judgement::NotLinearizable(explanation) => {
                Err(Violation { invariant: "S17", detail: explanation.to_string() })
            }
            Judgement::Undecided => Ok(self.is_explained_by_the_log()),
        }
    }

    /// Whether the order in which the log has the writes explains what the clients saw.
    pub(super) fn is_explained_by_the_log(&self) -> bool {
        witness::explains(&self.history, &self.places())
    }

    /// For each deed the index at which it took effect, or at which its answer was true.
    fn places(&self) -> Vec<Option<Index>> {
        let at = |deed: &Deed| match &deed.ask {
            Ok(ask) => self.applied.get(text_of(ask)).map(|index| Index(*index)),
            Err(_) => deed.read_at,
        };
        self.deeds.iter().map(at).collect()
    }
}

/// What is asked of a guest.
pub(super) fn call(ask: &Result<Ask, Look>) -> Call {
    match ask {
        Ok(Ask::Guest(_, command)) => Call::Command(command.clone()),
        Err(Look::Guest(query)) => Call::Query(query.clone()),
        // Not of a guest.
        Ok(_) | Err(Look::Key(_)) => Call::Query(Vec::new()),
    }
}

fn input(ask: &Result<Ask, Look>) -> Input {
    let text = |text: &String| bytes::Bytes::from(text.clone());
    let (key, command) = match ask {
        Err(Look::Key(key)) => (*key, Command::Get),
        Err(Look::Guest(_)) | Ok(Ask::Guest(..) | Ask::Settle(_)) => (0, Command::Get),
        Ok(Ask::Put(key, value)) => (*key, Command::Put(text(value))),
        Ok(Ask::Append(key, value)) => (*key, Command::Append(text(value))),
        Ok(Ask::Cas(key, from, to)) => (*key, Command::Cas { from: from.as_ref().map(text), to: text(to) }),
    };
    Input::new(vec![key], command)
}

fn output(ask: &Result<Ask, Look>, told: &Told) -> Output {
    match ask {
        Ok(Ask::Cas(..)) => Output::Swapped(*told == Told::Done),
        _ => Output::Done,
    }
}

fn text_of(ask: &Ask) -> &str {
    match ask {
        Ask::Put(_, text) | Ask::Append(_, text) | Ask::Cas(_, _, text) | Ask::Guest(text, _) => text,
        Ask::Settle(_) => "",
    }
}
