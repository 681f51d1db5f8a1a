//! What is done in a turn: its commands in their order, neighbours of one kind at once.

use super::{Connection, End, FULL, Shared};
use crate::access::Verdict;
use crate::commands::{self, Phrase, Request};
use crate::kv::{Lookup, MAX_COST, MAX_FOUND, MAX_VALUE, Machine, Operation};
use crate::monitor::Refused;
use std::collections::VecDeque;
use tokio::io::{AsyncRead, AsyncWrite};

/// How many commands are carried out in one turn: then all other connections have theirs.
const TURN: usize = 512;

/// What a write hears that would take memory where the keys have all that they may.
const NO_MEMORY: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// Neighbouring requests of one kind, gathered to be done at once.
#[derive(Default)]
enum Batch {
    #[default]
    Empty,
    /// With what they cost together.
    Writes(Vec<Operation>, Vec<Phrase>, usize),
    Reads(Vec<Lookup>, Vec<Phrase>),
}

impl Batch {
    /// Takes one more request. It comes back if it is no such one, or there is no room for it.
    fn add(&mut self, request: Request) -> Option<Request> {
        match (&mut *self, request) {
            (Batch::Writes(writes, phrases, costs), Request::Write(write, phrase)) => {
                let cost = *costs + cost(&write);
                if writes.len() == TURN || cost > MAX_COST {
                    return Some(Request::Write(write, phrase));
                }
                writes.push(write);
                phrases.push(phrase);
                *costs = cost;
            }
            (Batch::Reads(reads, phrases), Request::Read(read, phrase)) if reads.len() < TURN => {
                reads.push(read);
                phrases.push(phrase);
            }
            (Batch::Empty, Request::Write(write, phrase)) => {
                let cost = cost(&write);
                *self = Batch::Writes(vec![write], vec![phrase], cost);
            }
            (Batch::Empty, Request::Read(read, phrase)) => *self = Batch::Reads(vec![read], vec![phrase]),
            (_, other) => return Some(other),
        }
        None
    }
}

/// What a write of a batch costs. All of those that are told values are answered, though each value be the longest.
fn cost(write: &Operation) -> usize {
    match write.reply() {
        0 => write.cost(),
        _ => write.cost().max(MAX_COST * MAX_VALUE / MAX_FOUND),
    }
}

/// Why gathering pauses.
enum Pause {
    /// So much was taken that others have their turns.
    Turn,
    /// This is done when the batch is.
    Apart(Box<Apart>),
    /// Whether this may be done has to be asked for.
    Unsure(Box<Request>),
}

/// What waits for the batch before it.
enum Apart {
    Request(Request),
    /// The connection ends with this error.
    End(&'static str),
}

impl<M: Machine, T: AsyncRead + AsyncWrite + Unpin> Connection<M, T> {
    /// Does what the queue says, in order.
    pub(super) async fn carry_out(&mut self) -> Result<(), End> {
        self.shared.about.served.asked(self.queue.len());
        let (mut batch, mut taken) = (Batch::Empty, 0);
        while let Some(pause) = self.gather(&mut batch, &mut taken)? {
            let apart = match pause {
                Pause::Turn => {
                    tokio::task::yield_now().await;
                    None
                }
                Pause::Apart(request) => Some(request),
                Pause::Unsure(request) => {
                    let verdict = Box::pin(self.ask_whether(&request)).await;
                    self.judged(&mut batch, *request, verdict).err()
                }
            };
            let Some(apart) = apart else { continue };
            self.settle(std::mem::take(&mut batch)).await?;
            match *apart {
                Apart::End(fault) => return Err(End::Fault(fault.to_owned())),
                Apart::Request(request) => {
                    if let Some(other) = batch.add(request) {
                        // Rare, and large: idle connections have no room for it.
                        Box::pin(self.answer(other)).await?;
                    }
                }
            }
        }
        self.settle(batch).await
    }

    /// Takes commands from the queue into the batch, until something else is to be done before the next; nothing: all are
    /// taken. Nothing here waits, so that none of it is kept with the connection while that does.
    fn gather(&mut self, batch: &mut Batch, taken: &mut usize) -> Result<Option<Pause>, End> {
        loop {
            if *taken == TURN {
                *taken = 0;
                return Ok(Some(Pause::Turn));
            }
            let Some(command) = self.queue.pop_front() else { break };
            let place = commands::place(command.argument(0));
            if *taken == 0 {
                self.session.listed().asked(place, self.session.database);
            }
            *taken += 1;
            let request = commands::understand(command, place);
            self.permit(&request)?;
            let verdict = match self.access.is_free() && !matches!(request, Request::Admin(_)) {
                true => Verdict::May,
                false => match self.access.judge(&request) {
                    Some(verdict) => verdict,
                    None => return Ok(Some(Pause::Unsure(Box::new(request)))),
                },
            };
            if let Err(apart) = self.judged(batch, request, verdict) {
                return Ok(Some(Pause::Apart(apart)));
            }
        }
        // Between turns a connection holds no buffers.
        self.queue = VecDeque::new();
        Ok(None)
    }

    /// Adds a request to the batch, or an error in its place. What is done apart is the error of this.
    fn judged(&mut self, batch: &mut Batch, request: Request, verdict: Verdict) -> Result<(), Box<Apart>> {
        let served = &self.shared.about.served;
        let request = match verdict {
            Verdict::May => match &request {
                Request::Write(write, _) if write.adds() && self.shared.about.is_full() => {
                    served.refuse(Refused::Full);
                    Request::Reject(NO_MEMORY.to_owned())
                }
                _ => request,
            },
            Verdict::Refused(error) => {
                served.refuse(Refused::Rights);
                Request::Reject(error)
            }
            Verdict::Ends(fault) => return Err(Box::new(Apart::End(fault))),
        };
        let left = batch.add(self.transaction.take(request));
        left.map_or(Ok(()), |other| Err(Box::new(Apart::Request(other))))
    }

    async fn ask_whether(&mut self, request: &Request) -> Verdict {
        let Shared { node, timeout, .. } = &*self.shared;
        self.access.ask(node, *timeout, request).await
    }

    /// Whether this connection may ask that: a guest is no client.
    fn permit(&mut self, request: &Request) -> Result<(), End> {
        let Some(guest) = self.place.guest() else { return Ok(()) };
        guest.asked();
        match request {
            Request::Write(..) | Request::Read(..) | Request::Keys(_) | Request::Watch(_) | Request::Exec => {
                Err(End::Fault(FULL.to_owned()))
            }
            _ => Ok(()),
        }
    }

    /// Has a batch done and answers each of its requests.
    async fn settle(&mut self, batch: Batch) -> Result<(), End> {
        match batch {
            Batch::Empty => Ok(()),
            Batch::Writes(writes, phrases, _) => self.write(writes, phrases).await,
            Batch::Reads(reads, phrases) => self.read(reads, phrases).await,
        }
    }
}
