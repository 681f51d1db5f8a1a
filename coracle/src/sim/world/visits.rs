//! Clients that are members of nothing: each is the agent of a real one, with a courier of its own, and only its connections
//! are simulated. A connection keeps the order of what it carries, and may end at any moment with all of that.

use super::{Happening, World};
use crate::client::agent::{Agent, Limits, Patient, Say};
use crate::client::reads;
use crate::error::{Cause, ReadError, WriteError};
use crate::freshness::Seen;
use crate::sim::clients::Question;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::{Event, Heard, REMOTE, encode};
use crate::sim::machine::{Look, Seen as Value};
use crate::sim::plan::MS;
use crate::sim::situations::Rare;
use crate::transport::{Forward, ForwardReply};
use crate::wire::{Directory, Mode, Query, QueryReply};
use crate::work::{RequestId, Waits};
use coracle_core::{Broken, LogId, Member, Peer, Term};
use std::collections::{BTreeMap, BTreeSet};

/// How often each looks at its clock and its connections.
const LOOK: u64 = 10 * MS;

/// Whoever waits for an answer, until a tick.
#[derive(Clone, Copy, Debug)]
pub(in crate::sim) struct Caller {
    request: RequestId,
    until: u64,
}

impl Waits for Caller {
    fn gave_up(&self) -> bool {
        false
    }
}

impl Patient for Caller {
    fn until(&self) -> u64 {
        self.until
    }
}

/// A connection.
struct Link {
    node: usize,
    /// The run of the node's process.
    run: u64,
    /// What the client was told last.
    told: Option<(Term, Option<Peer>, Option<LogId>)>,
    /// When the newest of what it carries arrives: at the node, and at the client.
    newest: [u64; 2],
}

struct Visitor {
    agent: Agent<Caller, Caller>,
    links: BTreeMap<u64, Link>,
    /// Addresses that it is about to connect to.
    dialing: BTreeSet<String>,
}

/// A question at a node: whose, over which connection, under which number.
struct Asked {
    client: usize,
    link: u64,
    flight: u64,
}

/// All of them.
#[derive(Default)]
pub(in crate::sim) struct Visitors {
    all: BTreeMap<usize, Visitor>,
    links: u64,
    asked: BTreeMap<u64, Asked>,
    newest: u64,
}

/// What happens between them and the nodes.
#[derive(Debug)]
pub(in crate::sim) enum Visit {
    Look { client: usize },
    Connect { client: usize, address: String },
    ToNode { client: usize, link: u64, say: Say },
    Heard { client: usize, link: u64, word: Word },
    Ended { client: usize, link: u64 },
}

/// What a node says.
#[derive(Debug)]
pub(in crate::sim) enum Word {
    Directory(Directory),
    Reply(ForwardReply),
    Answer(QueryReply),
}

impl Visitors {
    /// Whether this is a question of theirs.
    pub(super) fn asked(&self, request: RequestId) -> bool {
        request.0 >= REMOTE
    }
}

impl World {
    fn now_in_ticks(&self) -> u64 {
        self.now / (10 * MS)
    }

    fn visit_dice(&self, what: u64) -> Dice {
        self.chance.plain(30, (what % 251) as usize, self.now)
    }

    /// A client that is no member asks.
    pub(super) fn on_remote(&mut self, client: usize, question: Question) -> Verdict {
        if self.guests.is_some() {
            self.tell_asked(client, &question);
        }
        let Question { request, ask, patience, freshness, .. } = question;
        let until = self.now_in_ticks() + patience / (10 * MS);
        self.clients.taken_by_nobody(request);
        // As one that is asked of a node: however often it is sent, a run takes as long.
        self.step(9, client, request.0);
        if !self.visitors.all.contains_key(&client) {
            let seeds = self.hosts.iter().map(|host| host.at.listens.clone()).take(1 + client % 3).collect();
            let limits = Limits { calls: 1_000, bytes: 1 << 20 };
            #[cfg(feature = "mutants")]
            let broken = Broken::rule(self.options.mutant);
            #[cfg(not(feature = "mutants"))]
            let broken = Broken::default();
            let agent = Agent::new(seeds, self.plan.session, limits, (client as u64) << 40, broken);
            let visitor = Visitor { agent, links: BTreeMap::new(), dialing: BTreeSet::new() };
            self.visitors.all.insert(client, visitor);
            self.at(1, Happening::Visit(Visit::Look { client }));
        }
        let Some(visitor) = self.visitors.all.get_mut(&client) else { return Ok(()) };
        let caller = Caller { request, until };
        match ask {
            Ok(command) => visitor.agent.write(0, 1, encode(&command), caller),
            Err(look) => {
                let (mode, query, first) = (Mode::Read(freshness), look.to_bytes(), request.0 as u32);
                visitor.agent.read(reads::Question { mode, query, first }, caller);
            }
        }
        self.turn_visitor(client)
    }

    pub(in crate::sim) fn on_visit(&mut self, visit: Visit) -> Verdict {
        let now = self.now_in_ticks();
        let client = match visit {
            Visit::ToNode { client, link, say } => return self.on_said(client, link, say),
            Visit::Look { client } => {
                self.look_after(client);
                self.at(LOOK, Happening::Visit(Visit::Look { client }));
                client
            }
            Visit::Connect { client, address } => {
                self.visit_node(client, &address);
                client
            }
            Visit::Ended { client, link } => {
                let Some(visitor) = self.visitors.all.get_mut(&client) else { return Ok(()) };
                visitor.links.remove(&link);
                visitor.agent.on_disconnected(link, "it was cut".to_owned(), now);
                client
            }
            Visit::Heard { client, link, word } => {
                let visitor = self.visitors.all.get_mut(&client).filter(|it| it.links.contains_key(&link));
                let Some(Visitor { agent, .. }) = visitor else { return Ok(()) };
                match word {
                    Word::Directory(directory) => agent.on_directory(link, directory),
                    Word::Reply(reply) => agent.on_reply(link, reply, now),
                    Word::Answer(reply) => agent.on_answer(reply, now),
                }
                client
            }
        };
        self.turn_visitor(client)
    }

    /// Looks whether the nodes are still there, and what they would tell.
    fn look_after(&mut self, client: usize) {
        let Some(visitor) = self.visitors.all.get_mut(&client) else { return };
        let mut happen = Vec::new();
        for (id, link) in &mut visitor.links {
            let host = &self.hosts[link.node];
            let Some(up) = host.up.as_ref().filter(|_| host.run == link.run) else {
                happen.push((*id, Visit::Ended { client, link: *id }));
                continue;
            };
            if host.frozen_until > self.now {
                continue;
            }
            let raft = up.raft();
            let at = (!raft.membership().is_empty()).then(|| raft.membership_id());
            let leader = raft.leader_member().map(Member::peer);
            let tells = (raft.term(), leader, at);
            if link.told != Some(tells) {
                link.told = Some(tells);
                let membership = at.map(|at| (at, raft.membership().clone()));
                let word = Word::Directory(Directory { term: raft.term(), leader, membership, machine: 1 });
                happen.push((*id, Visit::Heard { client, link: *id, word }));
            }
        }
        let wanted = visitor.agent.wanted();
        let fresh: Vec<String> = wanted.difference(&visitor.dialing).cloned().collect();
        visitor.dialing.extend(fresh.iter().cloned());
        for address in fresh {
            let delay = self.chance.plain(30, client, self.now).within(MS, 100 * MS);
            self.at(delay, Happening::Visit(Visit::Connect { client, address }));
        }
        for (link, visit) in happen {
            self.carry(client, link, 1, visit);
        }
    }

    fn visit_node(&mut self, client: usize, address: &str) {
        let host = self.hosts.iter().position(|host| host.at.listens == address && host.up.is_some());
        let Some(visitor) = self.visitors.all.get_mut(&client) else { return };
        visitor.dialing.remove(address);
        let there = host.and_then(|node| Some((node, self.hosts[node].up.as_ref()?)));
        let Some((node, up)) = there.filter(|(node, _)| self.hosts[*node].frozen_until <= self.now) else {
            return visitor.agent.on_unreachable(address.to_owned());
        };
        self.visitors.links += 1;
        let (link, me) = (self.visitors.links, self.hosts[node].me);
        if visitor.agent.on_connected(link, me, up.driver.cluster()) {
            let run = self.hosts[node].run;
            visitor.links.insert(link, Link { node, run, told: None, newest: [0; 2] });
        }
    }

    /// A node hears what one of them says.
    fn on_said(&mut self, client: usize, link: u64, say: Say) -> Verdict {
        let visitor = self.visitors.all.get(&client);
        let Some(Link { node, run, .. }) = visitor.and_then(|it| it.links.get(&link)) else { return Ok(()) };
        let (node, run) = (*node, *run);
        if !self.lives(node, run) {
            return Ok(());
        }
        if let Some(thaw) = self.frozen(node) {
            self.at(thaw, Happening::Visit(Visit::ToNode { client, link, say }));
            return Ok(());
        }
        self.visitors.newest += 1;
        let request = RequestId(REMOTE + self.visitors.newest);
        let flight = match &say {
            Say::Write(forward) => forward.id,
            Say::Read(query) => query.id,
        };
        self.visitors.asked.insert(request.0, Asked { client, link, flight });
        self.note(flight);
        match say {
            Say::Write(Forward { term, proposal, .. }) => {
                self.turn(node, Event::Submit(request, term, proposal))
            }
            Say::Read(Query { query, mode: Mode::Read(freshness), .. }) => {
                self.begin_read(node, request, Look::of_bytes(&query), freshness)
            }
            // Nobody watches from outside.
            Say::Read(_) => Ok(()),
        }
    }

    /// A node answers one of them.
    pub(super) fn answer_visitor(&mut self, request: RequestId, heard: Heard) {
        let Some(Asked { client, link, flight }) = self.visitors.asked.remove(&request.0) else { return };
        let word = match heard {
            Heard::Sent(outcome) => Word::Reply(ForwardReply { id: flight, outcome }),
            Heard::Answer(value, applied, age) => {
                let (answer, applied) = (value.to_bytes().into(), LogId::new(0, applied.0));
                Word::Answer(QueryReply { id: flight, outcome: Ok(Seen { answer, applied, age }) })
            }
            _ => Word::Answer(QueryReply { id: flight, outcome: Err(ReadError::NoLeader) }),
        };
        self.carry(client, link, 1, Visit::Heard { client, link, word });
    }

    /// Carries something over a connection, to the node (0) or to the client (1), after all that went before.
    fn carry(&mut self, client: usize, link: u64, way: usize, visit: Visit) {
        let mut dice = self.visit_dice(link * 2 + way as u64);
        let (now, latency) = (self.now, self.plan.latency);
        let Some(it) = self.visitors.all.get_mut(&client).and_then(|it| it.links.get_mut(&link)) else {
            return;
        };
        let cut = !self.healed && dice.chance(5);
        let when = (it.newest[way] + 1).max(now + dice.within(1, 2 * latency));
        it.newest[way] = when;
        if cut {
            self.met.count(Rare::VisitCut);
            return self.at(when - now, Happening::Visit(Visit::Ended { client, link }));
        }
        self.at(when - now, Happening::Visit(visit));
    }

    /// Lets one of them do what is to be done.
    fn turn_visitor(&mut self, client: usize) -> Verdict {
        let now = self.now_in_ticks();
        let Some(visitor) = self.visitors.all.get_mut(&client) else { return Ok(()) };
        let actions = visitor.agent.turn(now);
        for (link, say) in actions.say {
            self.carry(client, link, 0, Visit::ToNode { client, link, say });
        }
        for (caller, outcome) in actions.writes {
            if self.guests.is_none() {
                self.tell(|| {
                    format!("client {client} hears of its request {}: {outcome:?}", caller.request.0)
                });
            }
            if let Err(WriteError::Unknown(cause)) = &outcome
                && !matches!(cause, Cause::Timeout | Cause::SessionExpired | Cause::ReplyLost)
            {
                let detail = format!("request {} of a client was given up: {cause}", caller.request.0);
                return broken("S28", detail);
            }
            let heard = Heard::of_outcome(outcome);
            self.tell_agent_heard(client, caller.request, &heard);
            self.clients.on_heard(&self.network.names, caller.request, heard, self.now)?;
        }
        for (caller, outcome) in actions.reads {
            let heard = match outcome {
                Ok(Seen { answer, applied, age }) => {
                    Heard::Answer(Value::of_bytes(&answer), applied.index, age)
                }
                Err(error) => Heard::of_read(&error),
            };
            self.tell_agent_heard(client, caller.request, &heard);
            self.clients.on_heard(&self.network.names, caller.request, heard, self.now)?;
        }
        Ok(())
    }
}
