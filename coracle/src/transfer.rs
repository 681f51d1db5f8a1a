//! How a handle has another node lead.

use crate::error::TransferError;
use crate::inner::{Boxed, Inner};
use crate::requests::Request;
use crate::work::Transferred;
use coracle_core::{NodeId, RefusedReason};
use tokio::sync::oneshot;

impl Inner {
    pub(crate) fn transfer_leadership(&self, to: Option<NodeId>) -> Boxed<'_, Result<NodeId, TransferError>> {
        Box::pin(self.ask_to_lead(to))
    }

    async fn ask_to_lead(&self, to: Option<NodeId>) -> Result<NodeId, TransferError> {
        // Asked for again it succeeds again, wherever that is.
        let leads = self.leader.borrow().as_ref().map(|leader| leader.id);
        if let Some(leads) = leads.filter(|leads| Some(*leads) == to) {
            return Ok(leads);
        }
        let (answer, answered) = oneshot::channel();
        if self.requests.send_always(Request::Transfer { to, answer }).await.is_err() {
            return Err(TransferError::Stopped(self.stop_reason()));
        }
        match answered.await {
            Ok(Transferred::Leads(leader)) if to.is_none_or(|to| to == leader) => Ok(leader),
            Ok(Transferred::Leads(leader)) => Err(TransferError::AnotherLeads(leader)),
            Ok(Transferred::GivenUp(to, why)) => Err(TransferError::GivenUp { to, why }),
            Ok(Transferred::Refused(reason)) => Err(self.not_transferred(reason)),
            Ok(Transferred::Unknown) => Err(TransferError::NoLeader),
            Err(_) => Err(TransferError::Stopped(self.stop_reason())),
        }
    }

    fn not_transferred(&self, reason: RefusedReason) -> TransferError {
        match reason {
            RefusedReason::NotConfigured => TransferError::NotConfigured,
            RefusedReason::HandingOver(to) => TransferError::UnderWay(to),
            RefusedReason::NotVoter(id) => TransferError::NotVoter(id),
            RefusedReason::KnowsNoTransfers(id) => TransferError::KnowsNoTransfers(id),
            RefusedReason::NoTarget => TransferError::NoTarget,
            _ => match self.leader.borrow().clone() {
                Some(leader) if leader.id != self.me.id => TransferError::NotLeader { leader },
                _ => TransferError::NoLeader,
            },
        }
    }
}
