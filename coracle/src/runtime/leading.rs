//! Who leads: as the handles, the clients and the log are told of it.

use super::{Runtime, directory};
use crate::alarms;
use crate::error::{Leader, WriteError};
use crate::wire::Directory;
use coracle_core::{LogId, Term};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Where the handles and the clients read it.
pub(crate) struct Told {
    pub(crate) leader: watch::Sender<Option<Leader>>,
    /// How often that was news.
    pub(crate) times_led: Arc<AtomicU64>,
    pub(crate) office: watch::Sender<Option<Term>>,
    pub(crate) directory: watch::Sender<Listing>,
}

/// The newest membership with its entry, and who leads.
type Listing = (LogId, Arc<Directory>);

/// What reads of leader, office and directory.
type Readers = (watch::Receiver<Option<Leader>>, watch::Receiver<Option<Term>>, watch::Receiver<Listing>);

impl Told {
    pub(crate) fn channels() -> (Told, Readers) {
        let ((leader, leaders), (office, offices)) = (watch::channel(None), watch::channel(None));
        let (directory, directories) = watch::channel(Default::default());
        (Told { leader, times_led: Arc::default(), office, directory }, (leaders, offices, directories))
    }
}

impl Runtime {
    pub(super) fn meet_leader(&mut self) {
        let raft = self.parts.driver.raft();
        if let Some(member) = raft.leader_member() {
            self.meet(member.peer());
        }
    }

    /// The leader with what is known of it.
    fn introduced(&self, leader: Leader) -> Leader {
        let member = self.parts.driver.raft().leader_member().filter(|member| member.id == leader.id);
        let metadata = member.map(|member| self.metadata_of(member.peer())).unwrap_or_default();
        Leader { metadata, ..leader }
    }

    /// The same error, which says of the leader what is known.
    pub(super) fn named(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::NotLeader { leader } => WriteError::NotLeader { leader: self.introduced(leader) },
            error => error,
        }
    }

    /// Tells the handles, and the log, of a new leader or role.
    pub(super) fn tell(&mut self) {
        let leader = self.parts.driver.leader().map(|leader| self.introduced(leader));
        let Told { leader: leaders, times_led, .. } = &self.parts.told;
        leaders.send_if_modified(|told| {
            let changed = *told != leader;
            told.clone_from(&leader);
            // Before whoever looks can see the news.
            times_led.fetch_add(u64::from(changed), Ordering::Release);
            changed
        });
        let office = self.parts.driver.office();
        self.parts.told.office.send_if_modified(|told| std::mem::replace(told, office) != office);
        let machine = self.parts.machine_version.load(Ordering::Relaxed);
        let driver = &self.parts.driver;
        self.parts.told.directory.send_if_modified(|told| directory::renew(told, driver, machine));
        let raft = self.parts.driver.raft();
        let role = (raft.role_name(), raft.term());
        if role != self.told {
            self.told = role;
            let leader = leader.map(|leader| leader.id);
            tracing::info!(node = %self.parts.config.id, "{}", alarms::role(role.0, role.1, leader));
        }
    }
}
