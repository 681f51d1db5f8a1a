//! Whose a certificate is, and why a connection has none.

use coracle_core::NodeId;
use std::fmt;
use std::io;

/// What the names begin with.
pub(super) const SCHEME: &str = "coracle://";

/// The longest word in a name, in bytes.
const WORD: usize = 64;

/// Whose a certificate is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CertificateName {
    /// The cluster, by the word that its operator chose.
    pub cluster: String,
    /// Who in it.
    pub role: Role,
}

/// Who somebody is in a cluster.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Role {
    /// A node of this name.
    Node(NodeId),
    /// A client of this name.
    Client(String),
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.role {
            Role::Node(id) => write!(f, "{SCHEME}{}/node/{id}", self.cluster),
            Role::Client(name) => write!(f, "{SCHEME}{}/client/{name}", self.cluster),
        }
    }
}

impl CertificateName {
    /// Reads one: `coracle://CLUSTER/node/ID` or `coracle://CLUSTER/client/NAME`. Words are of letters, digits, `-`, `_` and
    /// `.`, at most 64 of them.
    pub fn parse(text: &str) -> Option<CertificateName> {
        let mut words = text.strip_prefix(SCHEME)?.split('/');
        let (cluster, kind, who) = (words.next()?, words.next()?, words.next()?);
        if words.next().is_some() || !is_word(cluster) || !is_word(who) {
            return None;
        }
        let role = match kind {
            "node" => Role::Node(node(who)?),
            "client" => Role::Client(who.to_owned()),
            _ => return None,
        };
        Some(CertificateName { cluster: cluster.to_owned(), role })
    }
}

/// Why a connection is not an encrypted one with somebody known.
#[derive(Debug, thiserror::Error)]
pub(super) enum Insecure {
    /// It was cut, or the other end does not speak TLS.
    #[error("it was cut, or the other end does not speak TLS: {0}")]
    Plain(io::Error),
    /// One of the two does not believe the other.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody is asked who he is"))]
    #[error("{0}")]
    Refused(String),
}

impl From<Insecure> for io::Error {
    fn from(error: Insecure) -> io::Error {
        match error {
            Insecure::Plain(error) => error,
            Insecure::Refused(text) => io::Error::new(io::ErrorKind::PermissionDenied, text),
        }
    }
}

/// A number as it is printed, so that no two names are one node's.
fn node(word: &str) -> Option<NodeId> {
    let id: u64 = word.parse().ok()?;
    (id > 0 && id.to_string() == word).then_some(NodeId(id))
}

fn is_word(word: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=WORD).contains(&word.len()) && word.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_as_it_is_written_and_in_no_other_way() {
        for text in [
            "coracle://east/node/3",
            "coracle://a.b-c_d/client/backup",
            "coracle://x/node/18446744073709551615",
        ] {
            assert_eq!(CertificateName::parse(text).map(|name| name.to_string()).as_deref(), Some(text));
        }
        let long = format!("coracle://{}/node/3", "x".repeat(65));
        for text in [
            "",
            "coracle://",
            "coracle://east",
            "coracle://east/node",
            "coracle://east/node/",
            "coracle:///node/3",
            "coracle://east/node/3/",
            "coracle://east/node/0",
            "coracle://east/node/03",
            "coracle://east/node/+3",
            "coracle://east/node/18446744073709551616",
            "coracle://east/Node/3",
            "coracle://east/admin/3",
            "coracle://ea st/node/3",
            "coracle://east\0/node/3",
            "Coracle://east/node/3",
            "http://east/node/3",
            &long,
        ] {
            assert_eq!(CertificateName::parse(text), None, "{text:?}");
        }
    }
}
