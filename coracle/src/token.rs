//! What the nodes of a cluster have in common, so that a newcomer can show that it belongs there.

use bytes::Bytes;
use std::fmt;

/// The longest, in bytes.
pub(crate) const MAX_TOKEN: usize = 256;

/// A secret that all nodes of a cluster know: [`Config::join_token`](crate::Config::join_token). What compares two takes as
/// long for any of the same length, and nothing shows what it is.
#[derive(Clone)]
pub struct JoinToken(Bytes);

impl JoinToken {
    /// The secret in these bytes: 1 to 256 of them.
    pub fn new(secret: impl Into<Bytes>) -> JoinToken {
        JoinToken(secret.into())
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether these bytes are the secret.
    pub(crate) fn is(&self, shown: &[u8]) -> bool {
        let differ = self.0.iter().zip(shown).fold(0, |differ, (a, b)| differ | (a ^ b));
        self.0.len() == shown.len() && differ == 0
    }
}

impl PartialEq for JoinToken {
    fn eq(&self, other: &JoinToken) -> bool {
        self.is(&other.0)
    }
}

impl Eq for JoinToken {}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JoinToken(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_equal_to_itself_alone_and_shows_nothing() {
        let token = JoinToken::new("open sesame");
        assert_eq!(token, JoinToken::new("open sesame"));
        for other in ["", "open sesam", "open sesame!", "Open sesame"] {
            assert!(!token.is(other.as_bytes()), "{other}");
        }
        assert_eq!(format!("{token:?}"), "JoinToken(..)");
    }
}
