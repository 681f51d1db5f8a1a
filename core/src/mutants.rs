//! Rules that can be broken on purpose, so that a simulator can show that it would notice.
//!
//! A *mutant* is this very code with one rule broken. Which one is decided at run time, by name, for each
//! node on its own; the names stand where the rules do, in `rules.rs`. Without the feature `mutants` nothing can be
//! broken: every question is answered by a constant, and what it guards is gone from the program.

/// The rule that is broken, if any.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Broken {
    #[cfg(feature = "mutants")]
    name: Option<&'static str>,
}

impl Broken {
    /// The rule with this name is broken.
    #[cfg(feature = "mutants")]
    pub fn rule(name: Option<&'static str>) -> Broken {
        Broken { name }
    }

    /// Whether it is this one.
    #[inline(always)]
    pub fn is(self, name: &str) -> bool {
        #[cfg(feature = "mutants")]
        return self.name == Some(name);
        #[cfg(not(feature = "mutants"))]
        {
            let _ = name;
            false
        }
    }
}
