//! Whose a certificate is, and why a connection has none.

use coracle_core::{Broken, Mark, Membership, NodeId};
use std::collections::{BTreeMap, BTreeSet};
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

/// A certificate that was shown.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Shown {
    pub(crate) name: CertificateName,
    pub(crate) mark: Mark,
}

/// The newest certificates that members have shown.
#[derive(Debug, Default)]
pub(crate) struct Seen(BTreeMap<NodeId, Mark>);

impl Seen {
    /// A member has shown this one, on its disk.
    pub(crate) fn take(&mut self, id: NodeId, mark: Mark) {
        let newest = self.0.entry(id).or_insert(mark);
        if newest.issued < mark.issued {
            *newest = mark;
        }
    }

    /// The newest of this member.
    pub(crate) fn of(&self, id: NodeId) -> Option<Mark> {
        self.0.get(&id).copied()
    }

    /// These, and the node's own.
    pub(crate) fn with(&self, me: NodeId, own: Mark) -> BTreeMap<NodeId, Mark> {
        let mut all = self.0.clone();
        all.insert(me, own);
        all
    }

    /// Those of whoever is no member any more are forgotten.
    pub(crate) fn keep(&mut self, membership: &Membership) {
        self.0.retain(|id, _| membership.all().any(|member| member.id == *id));
    }
}

/// The certificates that the newest membership knows of.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Known {
    pub(crate) marks: BTreeMap<NodeId, Mark>,
    pub(crate) members: BTreeSet<NodeId>,
    /// The rule that is broken, in the simulator.
    pub(crate) broken: Broken,
}

impl Known {
    /// Whether a certificate is still somebody's. One that was issued later than the known one is that of a node that has
    /// renewed its own, or, under the name of one that was removed, of a new node: only the authority makes those. Of two
    /// that were issued in the same second, none is the older.
    #[cfg_attr(not(any(feature = "tls", feature = "sim")), allow(dead_code, reason = "nobody shows one"))]
    pub(crate) fn judge(&self, shown: &Shown) -> Result<(), String> {
        let Role::Node(id) = shown.name.role else { return Ok(()) };
        let Some(mark) = self.marks.get(&id) else { return Ok(()) };
        let what = if self.members.contains(&id) {
            if shown.mark.issued >= mark.issued || self.broken.is("older-certificate-believed") {
                return Ok(());
            }
            "was replaced by a newer one"
        } else {
            if shown.mark.issued > mark.issued || self.broken.is("removed-certificate-believed") {
                return Ok(());
            }
            "is that of a node that was removed"
        };
        Err(format!("the certificate of {} {what}: issue another", shown.name))
    }
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
    use coracle_core::{ClusterId, Incarnation, Member};

    /// Only the newest certificate of a member is one, and none of those that a removed node has had.
    #[test]
    fn old_certificates_and_those_of_removed_nodes_are_nobodys() {
        let shown = |id, issued, key| Shown {
            name: CertificateName { cluster: "east".to_owned(), role: Role::Node(NodeId(id)) },
            mark: Mark { issued, key: [key; 32] },
        };
        let known = Known {
            marks: [1, 3].map(|id| (NodeId(id), Mark { issued: 100, key: [1; 32] })).into(),
            members: [NodeId(1), NodeId(2)].into(),
            broken: Broken::default(),
        };
        let judge = |id, issued, key| known.judge(&shown(id, issued, key));
        assert_eq!((judge(1, 100, 1), judge(1, 100, 2), judge(1, 101, 2)), (Ok(()), Ok(()), Ok(())));
        assert!(judge(1, 99, 2).unwrap_err().contains("replaced by a newer one"));
        assert_eq!(judge(2, 1, 9), Ok(()), "its certificate is not known yet");
        for (issued, key) in [(100, 1), (100, 2), (99, 1)] {
            assert!(judge(3, issued, key).unwrap_err().contains("a node that was removed"));
        }
        assert_eq!(judge(3, 101, 2), Ok(()), "a new node under an old name");
        let client = CertificateName { cluster: "east".to_owned(), role: Role::Client("x".to_owned()) };
        assert_eq!(known.judge(&Shown { name: client, mark: Mark { issued: 1, key: [1; 32] } }), Ok(()));
    }

    /// Of each member the newest that it has shown counts, whatever comes in which order.
    #[test]
    fn the_newest_certificate_that_was_seen_of_a_member_counts() {
        let mark = |issued| Mark { issued, key: [issued as u8; 32] };
        let mut seen = Seen::default();
        for (id, issued) in [(1, 5), (1, 7), (1, 6), (2, 3)] {
            seen.take(NodeId(id), mark(issued));
        }
        assert_eq!((seen.of(NodeId(1)), seen.of(NodeId(3))), (Some(mark(7)), None));
        let with_own = [(NodeId(1), mark(7)), (NodeId(2), mark(3)), (NodeId(4), mark(1))];
        assert_eq!(seen.with(NodeId(4), mark(1)), with_own.into());
        let member = Member { id: NodeId(2), incarnation: Incarnation(7), address: String::new() };
        seen.keep(&Membership::of_voters(ClusterId(1), [member]));
        assert_eq!((seen.of(NodeId(1)), seen.of(NodeId(2))), (None, Some(mark(3))));
    }

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
