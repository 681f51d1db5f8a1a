//! The consensus core as a state machine: one node of three, whose shell does what is asked of it and no more, and whose
//! two peers say whatever the bytes say.

use crate::Source;
use coracle::raft::{
    AppendEntries, AppendEntriesReply, Boot, Carried, ClusterId, Envelope, HandedOver, Incarnation, Index,
    Input, InstallSnapshot, InstallSnapshotReply, LogId, Member, Membership, Message, NodeId, Output, Peer,
    Raft, ReadIndex, ReadIndexReply, Refusal, Replicate, RequestVote, RequestVoteReply, Restored, Round, Run,
    Settings, Term, Tick, Ticket, TimeoutNow, WriteId,
};
use std::collections::VecDeque;

/// Inputs in one life at most, so that none takes long.
const INPUTS: usize = 2_000;

/// Three bytes and more for each step: what happens, who does it, and small numbers for the rest.
pub fn steps(data: &[u8]) {
    let mut source = Source(data);
    let mut shell = Shell::new(source.byte());
    for _ in 0..INPUTS {
        if source.is_over() {
            return;
        }
        let Some(input) = shell.input(&mut source) else { continue };
        shell.step(input);
    }
}

fn peer(id: u8) -> Peer {
    Peer { id: NodeId(u64::from(id)), incarnation: Incarnation(u64::from(id) + 100) }
}

fn three() -> Membership {
    let member = |id: u8| {
        let Peer { id, incarnation } = peer(id);
        Member { id, incarnation, address: format!("node-{id}:1") }
    };
    Membership::of_voters(ClusterId(7), (1..=3).map(member))
}

/// What a driver owes the core.
struct Shell {
    raft: Raft,
    now: u64,
    tickets: u64,
    /// Writes that are not done, in their order.
    writes: VecDeque<WriteId>,
    /// What the core wants sent and was not told of.
    replicate: VecDeque<Replicate>,
    /// Pieces that were asked to be taken.
    pieces: VecDeque<(Peer, InstallSnapshot)>,
}

impl Shell {
    fn new(seed: u8) -> Shell {
        let settings = Settings::default();
        let raft = Raft::new(peer(1), Boot(1), settings, u64::from(seed), Restored::default(), Tick(0));
        let raft = raft.expect("a blank node starts");
        let (writes, replicate, pieces) = (VecDeque::new(), VecDeque::new(), VecDeque::new());
        let mut shell = Shell { raft, now: 0, tickets: 0, writes, replicate, pieces };
        let ticket = shell.ticket();
        shell.step(Input::Bootstrap { ticket, membership: three() });
        shell
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn step(&mut self, input: Input) {
        let before = (self.raft.term(), self.raft.commit());
        let output: Output = self.raft.step(Tick(self.now), input);
        self.writes.extend(output.write.map(|write| write.id));
        self.replicate.extend(output.replicate);
        self.pieces.extend(output.pieces);
        assert!(self.raft.term() >= before.0, "a term went back");
        assert!(self.raft.commit() >= before.1, "what was committed is not any more");
        assert!(self.raft.commit() <= self.raft.last().index, "what is committed is not in the log");
        assert!(self.raft.persisted() <= self.raft.last().index, "what is durable is not in the log");
    }

    /// What happens next; nothing if it cannot.
    fn input(&mut self, source: &mut Source<'_>) -> Option<Input> {
        let what = source.byte();
        Some(match what % 16 {
            0..=2 => {
                self.now += u64::from(source.byte());
                Input::Tick
            }
            3 | 4 => Input::Persisted(self.writes.pop_front()?),
            5 => {
                let (ticket, count) = (self.ticket(), u64::from(source.byte() % 8) + 1);
                Input::Propose { ticket, count }
            }
            6 => {
                let Replicate { to, append, last, .. } = self.replicate.pop_front()?;
                let (term, prev) = (append.term, append.prev);
                let reach = last.0.min(prev.index.0 + u64::from(source.byte() % 8) + 1);
                match source.byte() % 4 {
                    0 => Input::Unsent { to, term, prev },
                    _ => Input::Sent { to, term, prev, last: Index(reach), bytes: 100 },
                }
            }
            7 => match source.byte() % 8 {
                0 => Input::Read { ticket: self.ticket() },
                1 => Input::LeaderDown(NodeId(u64::from(source.byte() % 4))),
                2 => Input::Campaign,
                3 => {
                    let to = Some(source.byte() % 4).filter(|id| *id > 0).map(|id| NodeId(u64::from(id)));
                    Input::TransferLeadership { ticket: self.ticket(), to }
                }
                4 => self.change(source),
                5 => {
                    let (from, piece) = self.pieces.pop_front()?;
                    let InstallSnapshot { term, snapshot, file, length, .. } = piece;
                    let next = u64::from(source.u16()).min(length);
                    Input::PieceTaken { from, reply: InstallSnapshotReply { term, snapshot, file, next } }
                }
                6 => Input::Applied(self.raft.commit().min(self.raft.persisted())),
                _ => Input::MachineStopped(source.once_in(2)),
            },
            _ => self.received(what, source),
        })
    }

    fn change(&mut self, source: &mut Source<'_>) -> Input {
        let mut to = self.raft.membership().clone();
        to.outgoing.clear();
        let id = source.byte() % 6;
        let node = NodeId(u64::from(id));
        match source.byte() % 4 {
            0 => drop(to.voters.remove(&node)),
            1 => drop(to.voters.insert(node)),
            2 => {
                to.voters.remove(&node);
                to.members.remove(&node);
            }
            _ => {
                let Peer { id, incarnation } = peer(id);
                let address = "new:1".to_owned();
                to.members.insert(node, Member { id, incarnation, address });
            }
        }
        let expected = self.raft.status().membership_id;
        Input::ChangeMembership { ticket: self.ticket(), expected, to }
    }

    /// A message of one of the peers, or of a stranger.
    fn received(&self, what: u8, source: &mut Source<'_>) -> Input {
        let from = peer(2 + source.byte() % 3);
        let mut carried = Carried::default();
        let term = Term(u64::from(source.byte() % 16));
        let message = match what % 16 {
            8 | 9 => Message::AppendEntries(append(term, source, &mut carried)),
            10 => Message::AppendEntriesReply(AppendEntriesReply {
                term,
                round: Round(u64::from(source.byte())),
                promised: u64::from(source.byte()),
                matched: index(source),
                last: index(source),
                conflict: (source.once_in(2)).then(|| log_id(source)),
                applied: index(source),
                disk_age: u64::from(source.byte()),
                digest: None,
                stop: None,
                wants: (source.once_in(8)).then(|| index(source)),
            }),
            11 => {
                let (pre, question, last) = (source.once_in(2), u64::from(source.byte()), log_id(source));
                let by = peer(1 + source.byte() % 4);
                let handed_over = (source.once_in(4)).then(|| HandedOver { by, term: self.raft.term() });
                Message::RequestVote(RequestVote { campaign: term, pre, question, last, handed_over })
            }
            12 => Message::RequestVoteReply(RequestVoteReply {
                campaign: term,
                pre: source.once_in(2),
                question: u64::from(source.byte() % 4),
                term: Term(u64::from(source.byte() % 16)),
                refusal: (source.once_in(2)).then_some(Refusal::Log),
                leader: (source.once_in(4)).then_some(NodeId(2)),
            }),
            13 => {
                let (boot, sequence) = (Boot(u64::from(source.byte() % 3)), u64::from(source.byte()));
                match source.byte() % 2 {
                    0 => Message::ReadIndex(ReadIndex { term, boot, sequence }),
                    _ => {
                        let index = Some(index(source));
                        Message::ReadIndexReply(ReadIndexReply { term, boot, sequence, index })
                    }
                }
            }
            14 => {
                let (snapshot, file) = (log_id(source), u64::from(source.byte() % 3));
                let (length, offset) = (u64::from(source.u16()), u64::from(source.u16()));
                match source.byte() % 2 {
                    0 => Message::InstallSnapshot(InstallSnapshot { term, snapshot, file, length, offset }),
                    _ => Message::InstallSnapshotReply(InstallSnapshotReply {
                        term,
                        snapshot,
                        file,
                        next: offset,
                    }),
                }
            }
            _ => Message::TimeoutNow(TimeoutNow { term, last: log_id(source) }),
        };
        let membership = LogId::new(1, 1);
        Input::Receive(Envelope { from, to: peer(1), membership, message }, carried)
    }
}

fn index(source: &mut Source<'_>) -> Index {
    Index(u64::from(source.byte() % 64))
}

fn log_id(source: &mut Source<'_>) -> LogId {
    LogId::new(u64::from(source.byte() % 16), u64::from(source.byte() % 64))
}

fn append(term: Term, source: &mut Source<'_>, carried: &mut Carried) -> AppendEntries {
    let prev = log_id(source);
    let count = u64::from(source.byte() % 8);
    if count > 0 {
        carried.runs.push(Run { first: prev.index.next(), term: Term(u64::from(source.byte() % 16)) });
    }
    let commit = index(source);
    AppendEntries {
        term,
        prev,
        last: Index(prev.index.0 + count),
        commit,
        round: Round(u64::from(source.byte())),
        lease: 0,
        persisted: commit,
        disk_age: 0,
        time: u64::from(source.u16()),
        agreed: None,
    }
}
