//! What a node says of itself: whom it still owes an answer, and that it has come as far again as it was.

use super::World;
use crate::applier::Outcome;
use crate::error::StopReason;
use crate::sim::ghost::{Verdict, broken};
use crate::sim::host::Running;
use crate::sim::plan::ELECTION;
use crate::work::{Caller, RequestId};
use std::collections::BTreeSet;

impl Running {
    /// The node is asked to stop: whom it tells of that.
    fn stop(&mut self) -> BTreeSet<RequestId> {
        let (writes, reads) = self.driver.stop();
        self.applier.stop(&StopReason::Requested);
        let writers = writes.into_iter().filter_map(|caller| match caller {
            Caller::Here(request) | Caller::Client(request) => Some(request),
            Caller::Forwarded(..) | Caller::Carried(_) => None,
        });
        let answered = self.applier.outcomes().into_iter().filter_map(|outcome| match outcome {
            Outcome::Reply(request, _)
            | Outcome::Encoded(request, _)
            | Outcome::Failed(request, _)
            | Outcome::Answer(request, _) => Some(request),
            Outcome::Send(..) | Outcome::Checked(..) | Outcome::Carried(..) | Outcome::Snapshot(..) => None,
            Outcome::NoSnapshot => None,
        });
        writers.chain(reads.into_iter().map(|(_, request)| request)).chain(answered).collect()
    }
}

impl World {
    /// A process ends. Had it been asked to stop at this moment, everybody who waits there would have been told (L4).
    /// In a turn that goes on the node has not even looked at some of them.
    pub(in crate::sim) fn watch_stop(&self, node: usize, up: &mut Running) -> Verdict {
        if self.turns[node].is_some() {
            return Ok(());
        }
        let told = up.stop();
        match self.clients.owed_by(node).find(|request| !told.contains(request)) {
            Some(request) => {
                broken("L4", format!("node {} would stop and not tell request {}", node + 1, request.0))
            }
            None => Ok(()),
        }
    }

    /// A node that says that it has caught up has applied all that was committed, and in its log, when it started
    /// ("ready").
    pub(in crate::sim) fn watch_ready(&self, node: usize) -> Verdict {
        let Some(up) = &self.hosts[node].up else { return Ok(()) };
        if up.driver.caught_up() && up.applied() < up.committed {
            let (applied, committed) = (up.applied(), up.committed);
            let detail = format!(
                "node {} says that it has caught up, and has applied up to {applied} of {committed}",
                node + 1
            );
            return broken("ready", detail);
        }
        Ok(())
    }

    /// Where nobody waits, no node counts anybody as waiting: it would refuse others for those (L8).
    pub(in crate::sim) fn watch_counts(&mut self) -> Verdict {
        self.until("L8", 20 * ELECTION, "end to who is counted as waiting, and does not wait", |world| {
            let mut up = world.hosts.iter().filter_map(|host| host.up.as_ref());
            up.all(|up| up.driver.pending() == 0)
        })
    }
}
