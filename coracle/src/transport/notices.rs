//! What an operator is told of those who come to the peers' port.
//!
//! Each kind of trouble is limited for itself ([`quiet`](super::quiet)), and what members do apart from what strangers do: so
//! however many strangers come, and from however many addresses, what a member does is told. Who claims to be a member is
//! told of as one, where nobody has to show who it is; of one member there is one line for each kind.

use super::quiet::Quiet;
use coracle_core::NodeId;
use std::fmt;

/// Who it is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Whose {
    /// Somebody of that name.
    Member(NodeId),
    /// Somebody else.
    Stranger,
}

/// What was told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    members: Quiet,
    strangers: Quiet,
    member_alarms: Quiet,
    stranger_alarms: Quiet,
}

impl Notices {
    /// Warns of one that comes from there, unless that was said a while ago.
    pub(super) fn warn(&self, whose: Whose, remote: &str, reason: &str, text: &dyn fmt::Display) {
        match whose {
            Whose::Stranger => self.strangers.warn(remote, reason, text),
            // By its name: whoever takes it has one line, however many addresses.
            Whose::Member(id) => {
                self.members.warn(&format!("node {id}"), reason, &format_args!("{text} (from {remote})"));
            }
        }
    }

    /// Whether this alarm is to be said.
    pub(super) fn admit_alarm(&self, whose: Whose, remote: &str, reason: &str) -> bool {
        let quiet = match whose {
            Whose::Member(_) => &self.member_alarms,
            Whose::Stranger => &self.stranger_alarms,
        };
        quiet.admit(remote, reason).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alarms_of_strangers_never_mute_those_of_members() {
        let notices = Notices::default();
        for stranger in 0..10_000 {
            notices.admit_alarm(Whose::Stranger, &stranger.to_string(), "Copy");
        }
        assert!(!notices.admit_alarm(Whose::Stranger, "another", "Copy"));
        assert!(notices.admit_alarm(Whose::Member(NodeId(2)), "2 7", "Copy"));
        assert!(!notices.admit_alarm(Whose::Member(NodeId(2)), "2 7", "Copy"), "once");
    }
}
