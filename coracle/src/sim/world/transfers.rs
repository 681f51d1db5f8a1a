//! Transfers of leadership in a simulated world: to any node at any time, to dying, lagging and cut ones; and what nobody
//! said but might be believed.

use super::World;
use crate::sim::dice::Dice;
use crate::sim::ghost::{Follows, Verdict, broken};
use crate::sim::host::{Event, Running};
use crate::sim::plan::{ELECTION, MS};
use crate::sim::situations::Rare;
use crate::transport::PeerMessage;
use crate::work::Transferred;
use coracle_core::{Envelope, HandedOver, HardState, LogId, Message, Peer, RequestVote, Term, TimeoutNow};

/// By so much may a leader be late to take commands again: two ticks, of a clock that runs at half the pace.
const SLACK: u64 = 40 * MS;

/// What a node is before it gets a message that has to do with a transfer.
pub(in crate::sim) struct Told {
    before: Follows,
    state: HardState,
    /// The leader that it hears so well that it helps nobody to depose it.
    hears: Option<Peer>,
}

impl World {
    /// Somebody wants another leader; or an order comes again, or comes from nobody.
    pub(in crate::sim) fn transfer(&mut self, node: usize, dice: &mut Dice) -> Verdict {
        let to = dice.below(self.hosts.len() as u64) as usize;
        match dice.below(8) {
            0 => return self.repeat_order(dice),
            1 => return self.forge_order(to),
            2 => return self.forge_campaign(node, to, dice),
            _ => {}
        }
        let node = if dice.chance(900) { self.newest_leader().unwrap_or(node) } else { node };
        let named = dice.chance(600).then(|| self.hosts[to].me.id);
        self.tell(|| format!("node {} is asked to hand over to {named:?}", node + 1));
        self.turn(node, Event::Transfer(named))?;
        if named.is_some() && to != node {
            match dice.below(8) {
                // It dies of it.
                0 => return self.crash(to, dice),
                1 => self.network.cut_where(|from, other| (from == to) != (other == to)),
                _ => {}
            }
        }
        Ok(())
    }

    /// What a leader once said comes again.
    fn repeat_order(&mut self, dice: &mut Dice) -> Verdict {
        let orders = &self.network.orders;
        if orders.is_empty() {
            return Ok(());
        }
        let envelope = orders[dice.below(orders.len() as u64) as usize].clone();
        self.met.count(Rare::OrderAgain);
        self.deliver_made_up(envelope)
    }

    /// A node is told to campaign, though its leader said no such thing: it holds what it is told to hold, or not.
    fn forge_order(&mut self, to: usize) -> Verdict {
        let Some(leader) = self.newest_leader() else { return Ok(()) };
        let Some(raft) = self.hosts[leader].up.as_ref().map(Running::raft) else { return Ok(()) };
        let (term, last, from) = (raft.term(), raft.last(), raft.me());
        // A lease trusts its members: whom its leader told to campaign need not wait for it to end.
        if leader == to || self.plan.lease > 0 || self.ghost.durable(leader).1.term < term {
            return Ok(());
        }
        let (to, message) = (self.hosts[to].me, Message::TimeoutNow(TimeoutNow { term, last }));
        let membership = raft.membership_id();
        self.met.count(Rare::OrderForged);
        self.deliver_made_up(Envelope { from, to, membership, message })
    }

    /// A node is asked for its vote in the place of a leader that did not give way, by one that could be elected.
    fn forge_campaign(&mut self, node: usize, to: usize, dice: &mut Dice) -> Verdict {
        let Some(raft) = self.hosts[node].up.as_ref().map(Running::raft) else { return Ok(()) };
        let Some(voter) = self.hosts[to].up.as_ref().map(Running::raft) else { return Ok(()) };
        // It could have said so itself: it is in that term, without a vote for another.
        let term = raft.term();
        if node == to || voter.term() != term || voter.leader().is_none() {
            return Ok(());
        }
        let other = self.hosts[dice.below(self.hosts.len() as u64) as usize].me;
        let (by, of) = if dice.chance(500) { (other, term) } else { (raft.me(), Term(term.0.max(2) - 1)) };
        let handed_over = Some(HandedOver { by, term: of });
        let told = voter.leader() == Some(by.id) && of == term;
        if told {
            return Ok(());
        }
        let (campaign, last) = (term.next(), LogId::ZERO);
        let vote = RequestVote { campaign, pre: false, question: 1, last, handed_over };
        let (from, membership) = (raft.me(), raft.membership_id());
        let to = self.hosts[to].me;
        self.met.count(Rare::CampaignForged);
        self.deliver_made_up(Envelope { from, to, membership, message: Message::RequestVote(vote) })
    }

    fn deliver_made_up(&mut self, envelope: Envelope) -> Verdict {
        let (Some(from), Some(to)) = (self.node(envelope.from.id), self.node(envelope.to.id)) else {
            return Ok(());
        };
        let cluster = self.hosts[to].up.as_ref().and_then(|up| up.driver.cluster());
        if self.frozen(to).is_some() || envelope.to != self.hosts[to].me || cluster.is_none() {
            return Ok(());
        }
        self.tell(|| format!("node {} to {} (made up): {}", from + 1, to + 1, envelope.message));
        let told = self.before_told(to);
        let message = envelope.message.clone();
        let sender = envelope.from;
        self.hand(from, to, cluster, true, PeerMessage::Raft { envelope, entries: Vec::new() })?;
        self.after_told(to, sender, &message, told)
    }

    /// What a node is before a message comes.
    pub(in crate::sim) fn before_told(&self, node: usize) -> Option<Told> {
        let host = &self.hosts[node];
        let raft = host.up.as_ref()?.raft();
        let moment = host.clock.moment(self.now);
        let before = Follows { term: raft.term(), leader: raft.leader() };
        Some(Told { before, state: raft.hard_state(), hears: raft.hears_leader_at(moment.tick) })
    }

    /// What it made of it.
    pub(in crate::sim) fn after_told(
        &mut self,
        node: usize,
        from: Peer,
        message: &Message,
        told: Option<Told>,
    ) -> Verdict {
        let (Some(told), Some(up)) = (told, &self.hosts[node].up) else { return Ok(()) };
        let (state, me) = (up.raft().hard_state(), up.raft().me());
        let moved = state.term > told.state.term;
        match message {
            Message::TimeoutNow(ask) if moved && state.vote == Some(me) => {
                self.met.count(Rare::TookOver);
                self.ghost.may_obey(node, told.before, from.id, ask.term, ask.last)
            }
            Message::TimeoutNow(_) => {
                self.met.count(Rare::NotTakenOver);
                Ok(())
            }
            Message::RequestVote(RequestVote { handed_over: Some(handed), .. }) if moved => {
                let Some(leader) = told.hears else { return Ok(()) };
                self.met.count(Rare::HelpedOver);
                self.ghost.may_help(node, told.before, leader, *handed)
            }
            _ => Ok(()),
        }
    }

    /// A leader tells a node to campaign: that may come again.
    pub(super) fn keep_order(&mut self, envelope: &Envelope) {
        if matches!(envelope.message, Message::TimeoutNow(_)) {
            let orders = &mut self.network.orders;
            orders.truncate(7);
            orders.insert(0, envelope.clone());
        }
    }

    /// What became of transfers.
    pub(in crate::sim) fn on_transferred(&mut self, node: usize, transferred: &[Transferred]) {
        for outcome in transferred {
            self.met.count(match outcome {
                Transferred::Leads(_) => Rare::Transferred,
                Transferred::Refused(_) => Rare::TransferRefused,
                Transferred::GivenUp(..) | Transferred::Unknown => Rare::TransferGivenUp,
            });
            self.tell(|| format!("node {}: transfer {outcome:?}", node + 1));
        }
    }

    /// No leader holds back commands for longer than an election timeout (L10): after a tick it knows how late it is.
    pub(in crate::sim) fn watch_holding(&mut self, node: usize, ticks: bool) -> Verdict {
        let host = &mut self.hosts[node];
        let local = host.clock.local(self.now);
        let Some(up) = &host.up else { return Ok(()) };
        if !up.raft().holds_proposals() {
            host.holding = None;
            return Ok(());
        }
        let now = (host.run, up.raft().term());
        let (of, since) = *host.holding.get_or_insert((now, local));
        if of != now {
            host.holding = None;
            return Ok(());
        }
        if !ticks || local.saturating_sub(since) <= ELECTION / 2 + SLACK {
            return Ok(());
        }
        let time = (local - since) / MS;
        broken("L10", format!("leader {} has taken no command for {time} ms", node + 1))
    }
}
