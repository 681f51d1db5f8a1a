//! What is worth counting when a node has handled something.

use super::World;
use crate::sim::host::{Heard, Host, Wants};
use crate::sim::situations::Rare;
use crate::storage::Change;
use crate::work::RequestId;
use coracle_core::{Alarm, LogId, NodeId, Raft, Term, WriteId};

impl World {
    pub(in crate::sim) fn watch(
        &mut self,
        node: usize,
        before: &Before,
        wants: &Wants,
        reads: bool,
        ticks: bool,
    ) {
        let Some(up) = &mut self.hosts[node].up else { return };
        let after = Before::of(up.raft());
        let met = &mut self.met;
        let busy = up.writing.is_some() || up.reported < before.newest_write;
        let own_vote = up.raft().hard_state().vote == Some(up.raft().me());
        let campaigns = own_vote && after.term > before.term;
        let mut drops = false;
        for change in wants.queued.iter().flat_map(|batch| &batch.changes) {
            if let Change::Truncate(_) = change {
                drops = true;
                met.count(Rare::Truncated);
                met.count_if(busy, Rare::TruncatedInFlight);
                met.count_if(up.led.is_some_and(|term| term == before.last.term), Rare::OwnDropped);
                up.truncated_at = Some(before.newest_write);
            }
        }
        if after.leads {
            up.led = Some(after.term);
        }
        met.count_if(!before.leads && before.term != after.term && before.unpersisted, Rare::AckHeld);
        if before.leads && wants.leadership_lost {
            let stalled = wants.alarms.iter().any(|alarm| matches!(alarm, Alarm::DiskStalled { .. }));
            met.count_if(after.term > before.term, Rare::Deposed);
            met.count_if(after.term == before.term && ticks && !stalled, Rare::NoQuorum);
        }
        if reads && before.leads {
            let young = up.raft().term_at(up.raft().commit()) != Some(after.term);
            met.count_if(young, Rare::ReadYoung);
            met.count_if(!young && !wants.send.is_empty(), Rare::ReadAtOnce);
            met.count_if(!young && wants.send.is_empty(), Rare::ReadWaits);
        }
        if !reads && !before.leads && before.leader != after.leader {
            let read = |(request, heard): &(RequestId, Heard)| {
                matches!(heard, Heard::NotDone(_)) && self.clients.reads(*request)
            };
            met.count_if(wants.heard.iter().any(read), Rare::ReadChange);
        }
        if campaigns {
            self.tell_old_votes(node);
        }
        if drops {
            self.tell_old_entries(node);
        }
        if after.leads && !before.leads {
            self.tell(|| format!("node {} leads term {}", node + 1, after.term));
            self.tell_old_acks(node);
            let leads = |host: &Host| host.up.as_ref().is_some_and(|up| up.raft().is_leader());
            let leaders = self.hosts.iter().filter(|host| leads(host)).count();
            self.met.count_if(leaders > 1, Rare::TwoLeaders);
        } else if before.leads && !after.leads {
            self.tell(|| format!("node {} leads no more", node + 1));
        }
    }
}

/// A node just before it handles something.
pub(in crate::sim) struct Before {
    leads: bool,
    term: Term,
    leader: Option<NodeId>,
    last: LogId,
    newest_write: WriteId,
    unpersisted: bool,
}

impl Before {
    pub(in crate::sim) fn of(raft: &Raft) -> Before {
        Before {
            leads: raft.is_leader(),
            term: raft.term(),
            leader: raft.leader(),
            last: raft.last(),
            newest_write: raft.newest_write(),
            unpersisted: raft.persisted() < raft.last().index,
        }
    }
}
