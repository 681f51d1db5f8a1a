//! The users as the machine of this node has them, for the connections: they look a user up without asking the machine.
//!
//! The machine publishes a new table with each change of the users, and whenever it was restored. A connection looks at one
//! number per command, and takes the lock only where that has changed. Where there never was a user, the number is 0.

use crate::users::Users;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The handle. Clones share what is published.
#[derive(Clone, Default, Debug)]
pub struct Roster(Arc<Inner>);

#[derive(Default, Debug)]
struct Inner {
    /// How many tables were published.
    edition: AtomicU64,
    users: Mutex<Arc<Users>>,
    /// Whether the machine was seen to have all that was committed when the node had started: until then, that it has no
    /// users says nothing.
    complete: AtomicBool,
}

impl Roster {
    /// Which table is the newest; 0 while there was none with anything in it.
    pub fn edition(&self) -> u64 {
        self.0.edition.load(Ordering::Acquire)
    }

    /// The newest table.
    pub fn users(&self) -> Arc<Users> {
        self.0.users.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Makes this table the newest.
    pub(crate) fn publish(&self, users: &Arc<Users>) {
        if self.edition() == 0 && users.version() == 0 {
            return;
        }
        let mut published = self.0.users.lock().unwrap_or_else(PoisonError::into_inner);
        *published = users.clone();
        self.0.edition.fetch_add(1, Ordering::Release);
    }

    /// Whether [`now_complete`](Roster::now_complete) was called.
    pub fn is_complete(&self) -> bool {
        self.0.complete.load(Ordering::Acquire)
    }

    /// Notes that the machine has come, since the start of its node, as far as the cluster had.
    pub fn now_complete(&self) {
        self.0.complete.store(true, Ordering::Release);
    }
}
