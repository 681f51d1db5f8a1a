//! How the cluster of a run comes about: all nodes promise themselves to one list, and the lowest founds it. Nothing
//! goes wrong here; what can is the subject of the [`contest`](super::contest).

use super::World;
use crate::founding::{Question, proposal};
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::Event;
use crate::wire::{Answer, Ask, Step};
use coracle_core::Member;

impl World {
    /// The first node is asked to found a cluster of all.
    pub(in crate::sim) fn found(&mut self) -> Verdict {
        self.tell(|| "node 1 is asked to found the cluster".to_owned());
        let members = self.hosts.iter().map(|host| Member {
            id: host.me.id,
            incarnation: host.me.incarnation,
            address: if self.plan.addressed { host.at.says.clone() } else { String::new() },
        });
        let ask = Ask::new(Step::Found, proposal(members), 0);
        let me = self.hosts[0].me;
        self.hear_of_founding(0, Event::Founding(0, me, ask))
    }

    /// Nodes speak of a founding, and everything arrives and is durable at once.
    pub(in crate::sim) fn converse(
        &mut self,
        node: usize,
        promises: usize,
        asks: Vec<Question>,
        told: Vec<(u64, Answer)>,
    ) -> Verdict {
        for _ in 0..promises {
            let host = &mut self.hosts[node];
            let Some(up) = &mut host.up else { return Ok(()) };
            if let Err(error) = up.keep_promise(&host.disk) {
                return broken("disk", format!("node {} stops: {error}", node + 1));
            }
            self.hear_of_founding(node, Event::Promised)?;
        }
        for question in asks {
            let Some(to) = self.node(question.to.id) else { continue };
            let ask = question.ask.clone();
            let name = self.questions.len() as u64 + 1;
            self.questions.insert(name, (node, question));
            self.hear_of_founding(to, Event::Founding(name, self.hosts[node].me, ask))?;
        }
        for (name, answer) in told {
            if let Some((from, question)) = self.questions.get(&name).cloned() {
                self.hear_of_founding(from, Event::FoundingAnswer(Box::new(question), Ok(answer)))?;
            }
        }
        Ok(())
    }

    fn hear_of_founding(&mut self, node: usize, event: Event) -> Verdict {
        let queued = self.hosts[node].feed(self.now, event);
        let mut wants = self.hosts[node].settle(self.now);
        wants.queued.splice(0..0, queued);
        self.carry_out(node, wants)
    }
}
