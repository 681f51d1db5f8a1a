//! What all connections together may hold of one thing, and what a part of them may within that.
//!
//! Where no more is there, the one of those who hold it gives way that has been waited for the longest: of a part's own where
//! only that part is full, so that nobody's greed costs others their connections.

use crate::waits::Slow;
use std::iter;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much may be held together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
    /// Who holds some of it and is waited for.
    slow: Arc<Slow>,
    /// The budget that this one is a part of: what is held here is held there too.
    whole: Option<Arc<Budget>>,
}

impl Budget {
    /// One of which nothing is held.
    pub fn new(limit: usize) -> Arc<Budget> {
        Budget::of(limit, None)
    }

    /// A part of another one, of which nothing is held here.
    pub fn within(whole: &Arc<Budget>, limit: usize) -> Arc<Budget> {
        Budget::of(limit, Some(whole.clone()))
    }

    fn of(limit: usize, whole: Option<Arc<Budget>>) -> Arc<Budget> {
        Arc::new(Budget { limit, held: AtomicUsize::new(0), slow: Arc::default(), whole })
    }

    /// How much may be held together.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// How much is held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// A share that holds nothing.
    pub fn share(self: &Arc<Budget>) -> Share {
        Share { budget: self.clone(), held: 0 }
    }

    fn take(&self, more: usize) -> bool {
        let own = self.held.fetch_add(more, Ordering::Relaxed).saturating_add(more) <= self.limit;
        if !own {
            self.slow.make_room();
        }
        let fits = own && self.whole.as_ref().is_none_or(|whole| whole.take(more));
        if !fits {
            self.held.fetch_sub(more, Ordering::Relaxed);
        }
        fits
    }

    /// It and those that it is a part of.
    fn all(&self) -> impl Iterator<Item = &Budget> {
        iter::successors(Some(self), |budget| budget.whole.as_deref())
    }

    fn give_back(&self, less: usize) {
        self.held.fetch_sub(less, Ordering::Relaxed);
        if let Some(whole) = &self.whole {
            whole.give_back(less);
        }
    }
}

/// What one connection holds of a budget. It is given back when the share is dropped.
#[derive(Debug)]
pub struct Share {
    budget: Arc<Budget>,
    held: usize,
}

impl Share {
    /// What is held now.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Notes what is held now. False if that is more than there is: then this share holds what it held.
    #[must_use]
    pub fn set(&mut self, now: usize) -> bool {
        if now > self.held {
            if !self.budget.take(now - self.held) {
                return false;
            }
        } else if now < self.held {
            self.budget.give_back(self.held - now);
        }
        self.held = now;
        true
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.budget.give_back(self.held);
        self.held = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

/// What one connection holds of the budget of its address, and of that of its user as well, once it has one.
#[derive(Debug)]
pub struct Shares {
    address: Share,
    user: Option<Share>,
}

impl Shares {
    /// Those of somebody who is no user yet, and holds nothing.
    pub fn new(address: &Arc<Budget>) -> Shares {
        Shares { address: address.share(), user: None }
    }

    /// From now on what is held is this user's. Where that is more than the user may hold, it counts when it is set next.
    pub fn of_user(&mut self, user: Option<&Arc<Budget>>) {
        let held = self.held();
        self.user = user.map(|budget| {
            let mut share = budget.share();
            let _ = share.set(held);
            share
        });
    }

    /// What is held now.
    pub fn held(&self) -> usize {
        self.address.held()
    }

    /// Notes what is held now. False if that is more than there is, of either: then no more is held than before, and somebody
    /// gives way.
    #[must_use]
    pub fn set(&mut self, now: usize) -> bool {
        let before = self.held();
        if !self.address.set(now) {
            return false;
        }
        if let Some(user) = &mut self.user
            && !user.set(now)
        {
            // Less is always there.
            let _ = self.address.set(before.min(now));
            return false;
        }
        true
    }

    /// The lists of those who give way where no more is there of what this one holds; none while it holds nothing.
    pub fn lists(&self) -> Vec<Arc<Slow>> {
        let held =
            [Some(&self.address), self.user.as_ref()].into_iter().flatten().filter(|share| share.held > 0);
        held.flat_map(|share| share.budget.all()).map(|budget| budget.slow.clone()).collect()
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.address.clear();
        if let Some(user) = &mut self.user {
            user.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::waits::{Over, Wait};
    use std::time::Duration;
    use tokio::time::timeout;

    #[test]
    fn shares_never_pass_the_budget_and_give_back_what_they_hold() {
        let budget = Budget::new(10);
        let (mut one, mut other) = (budget.share(), budget.share());
        assert!(one.set(6) && other.set(4));
        assert!(!other.set(5), "there are 10");
        assert_eq!(budget.held(), 10);
        assert!(one.set(5) && other.set(5));
        drop(one);
        assert_eq!(budget.held(), 5);
        assert!(!other.set(usize::MAX));
        other.clear();
        assert_eq!((budget.held(), budget.limit()), (0, 10));
    }

    #[test]
    fn what_a_user_may_not_hold_is_not_taken_from_its_address_either() {
        let (address, user) = (Budget::new(10), Budget::new(6));
        let mut shares = Shares::new(&address);
        assert!(shares.set(8), "nobody has said who it is");
        shares.of_user(Some(&user));
        assert!(!shares.set(7), "the user may hold 6");
        assert!(shares.set(5) && !shares.set(9));
        assert_eq!((shares.held(), address.held(), user.held()), (5, 5, 5));
        shares.of_user(None);
        assert_eq!((address.held(), user.held()), (5, 0));
        shares.of_user(Some(&user));
        assert_eq!((address.held(), user.held()), (5, 5), "it counts at once");
        shares.clear();
        assert_eq!((address.held(), user.held()), (0, 0));
    }

    #[test]
    fn a_part_never_takes_more_than_its_own_and_leaves_the_rest_to_others() {
        let whole = Budget::new(10);
        let (part, other) = (Budget::within(&whole, 6), Budget::within(&whole, 6));
        let (mut one, mut two) = (part.share(), other.share());
        assert!(one.set(6) && !one.set(7), "its part is 6");
        assert!(two.set(4) && !two.set(5), "the whole is 10");
        assert_eq!((part.held(), other.held(), whole.held()), (6, 4, 10));
        drop(one);
        assert!(two.set(6));
        assert_eq!((part.held(), other.held(), whole.held()), (0, 6, 6));
    }

    /// Where a part is full, its own slow clients give way, however long others have been waited for; where all is full,
    /// anybody.
    #[tokio::test(start_paused = true)]
    async fn nobodys_greed_costs_others_their_connections() {
        const LIMIT: Duration = Duration::from_secs(60);
        let whole = Budget::new(10);
        let [greedy, other] = [7, 7].map(|limit| Budget::within(&whole, limit));
        let user = Budget::new(2);
        let [mut honest, mut slow, mut more] = [&other, &greedy, &greedy].map(Shares::new);
        assert!(honest.set(2) && slow.set(4));
        more.of_user(Some(&user));
        let waits = async |wait: &mut Wait, shares: &Shares| {
            timeout(Duration::from_secs(2), wait.over(LIMIT, || shares.lists())).await.ok()
        };
        let [mut first, mut second] = [Wait::default(), Wait::default()];
        assert_eq!(waits(&mut first, &honest).await, None);
        assert_eq!(waits(&mut second, &slow).await, None);

        assert!(!more.set(3), "of its user");
        assert_eq!((waits(&mut first, &honest).await, waits(&mut second, &slow).await), (None, None));
        more.of_user(None);
        assert!(!more.set(4), "of its address");
        assert_eq!(waits(&mut first, &honest).await, None);
        assert_eq!(waits(&mut second, &slow).await, Some(Over::GaveWay));

        assert!(more.set(3));
        let mut newcomer = Shares::new(&other);
        assert!(!newcomer.set(2), "of all");
        assert_eq!(waits(&mut first, &honest).await, Some(Over::GaveWay), "for the longest");
    }
}
