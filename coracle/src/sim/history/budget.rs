//! How much work a check may do.

/// How much work a check may do, over all parts of a history. It counts work, not time, so that the same
/// history gets the same verdict on every machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// Calls of [`Model::step`](super::Model::step) and comparisons of configurations. The default, 50 million, is a few seconds.
    pub steps: u64,
    /// Configurations remembered at a time. The default, 2 million, is some 100 to 200 MB.
    pub configurations: u32,
}

impl Default for Budget {
    fn default() -> Self {
        Budget { steps: 50_000_000, configurations: 2_000_000 }
    }
}

impl Budget {
    /// Takes `steps` off, or says that they are not there.
    pub(super) fn charge(&mut self, steps: u64) -> Option<()> {
        self.steps = self.steps.checked_sub(steps)?;
        Some(())
    }
}
