//! A world with guests: the machines and clients of a user.

use super::World;
use crate::sim::clients::{Question, call};
use crate::sim::ghost::{Verdict, Violation};
use crate::sim::guest::{Finding, Guests};
use crate::sim::host::{Heard, REMOTE};
use crate::sim::machine::{Look, Seen, Told};
use crate::work::RequestId;
use coracle_core::LogId;

impl World {
    /// All nodes carry the machine of this program, and all clients are its own.
    pub(in crate::sim) fn hosting(mut self, guests: &Guests) -> World {
        self.hosts.iter_mut().for_each(|host| host.guests = Some(guests.clone()));
        self.clients.host(guests);
        (self.plan.poison, self.plan.effects) = (0, 0);
        self.guests = Some(guests.clone());
        self
    }

    /// Whether a machine has shown something wrong.
    pub(super) fn judge_guests(&self) -> Verdict {
        match self.guests.as_ref().and_then(Guests::finding) {
            None => Ok(()),
            Some(Finding { id, rule, detail }) => {
                let place = if id == LogId::ZERO { String::new() } else { format!("entry {id}: ") };
                Err(Violation { invariant: rule, detail: place + &detail })
            }
        }
    }

    /// A client asks: a line of the story.
    pub(super) fn tell_asked(&mut self, client: usize, question: &Question) {
        if !self.options.story {
            return;
        }
        let Question { node, request, ask, .. } = question;
        let said = match (&self.guests, ask) {
            (Some(guests), ask) => guests.program.call(&call(ask)),
            (None, Ok(ask)) => format!("{ask:?}"),
            (None, Err(Look::Key(key))) => format!("read {key}"),
            (None, Err(look)) => format!("{look:?}"),
        };
        let whom = node.checked_add(1).map_or("whoever leads".to_owned(), |node| format!("node {node}"));
        let line = format!("client {client} asks {whom}: {said} (request {})", request.0);
        self.tell(|| line);
    }

    /// A client hears: a line of the story.
    pub(super) fn tell_heard(&mut self, node: usize, request: RequestId, heard: &Heard) {
        if !self.options.story {
            return;
        }
        let line = format!("node {} to request {}: {}", node + 1, request.0, self.said(request, heard));
        self.tell(|| line);
    }

    /// A client that is no member hears of a request to a guest: a line of the story.
    pub(super) fn tell_agent_heard(&mut self, client: usize, request: RequestId, heard: &Heard) {
        if self.options.story && self.guests.is_some() {
            let line =
                format!("client {client} hears of its request {}: {}", request.0, self.said(request, heard));
            self.tell(|| line);
        }
    }

    fn said(&self, request: RequestId, heard: &Heard) -> String {
        match (&self.guests, heard) {
            (Some(guests), Heard::Reply(Told::Guest(bytes)) | Heard::Answer(Seen::Guest(bytes), ..))
                if request.0 < REMOTE =>
            {
                guests.program.answer(&self.clients.call(request), bytes)
            }
            (_, heard) => format!("{heard:?}"),
        }
    }
}
