//! What all connections together may hold of one thing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// So much may be held together.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: AtomicUsize,
}

impl Budget {
    /// One of which nothing is held.
    pub fn new(limit: usize) -> Arc<Budget> {
        Arc::new(Budget { limit, held: AtomicUsize::new(0) })
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
        let held = &self.budget.held;
        if now > self.held {
            let more = now - self.held;
            if held.fetch_add(more, Ordering::Relaxed).saturating_add(more) > self.budget.limit {
                held.fetch_sub(more, Ordering::Relaxed);
                return false;
            }
        } else {
            held.fetch_sub(self.held - now, Ordering::Relaxed);
        }
        self.held = now;
        true
    }

    /// Gives everything back.
    pub fn clear(&mut self) {
        self.budget.held.fetch_sub(self.held, Ordering::Relaxed);
        self.held = 0;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
