//! What is to be written, before it has its place in the log: a command, alone or in a session, or a session's beginning
//! or end. One encoding each, as an entry and as what is forwarded to a leader.

use crate::entry::Kind;
use bytes::{Buf, Bytes};

/// A place in a session: which command of which lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Numbered {
    /// The session: the index of the entry that opened it.
    pub session: u64,
    /// The lane in it.
    pub lane: u32,
    /// The command's number in that lane, from 0, without gaps.
    pub number: u64,
    /// The answers to all smaller numbers than this have come.
    pub acknowledged: u64,
}

/// What is to be written.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Proposal {
    /// A command, encoded: applied as often as it is in the log.
    Command(Bytes),
    /// A command of a session, applied once; or nothing, in the place of one that was given up.
    Numbered(Numbered, Option<Bytes>),
    /// A new session that ends when it was not heard for so many milliseconds.
    Open(u64),
    /// The end of a session.
    Close(u64),
}

/// The bytes before a command in a [`Kind::Numbered`] entry.
const PREFIX: usize = 16;

impl Proposal {
    /// The kind of its entry.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Proposal::Command(_) => Kind::Command,
            Proposal::Numbered(..) => Kind::Numbered,
            Proposal::Open(_) | Proposal::Close(_) => Kind::Session,
        }
    }

    /// The bytes of its entry's payload.
    pub(crate) fn len(&self) -> usize {
        self.prefix().1 + self.command().map_or(0, Bytes::len)
    }

    /// The user's command in it.
    pub(crate) fn command(&self) -> Option<&Bytes> {
        match self {
            Proposal::Command(command) => Some(command),
            Proposal::Numbered(_, command) => command.as_ref(),
            Proposal::Open(_) | Proposal::Close(_) => None,
        }
    }

    /// The same with the command as somebody else encoded it.
    pub(crate) fn with_command(self, command: Bytes) -> Proposal {
        match self {
            Proposal::Command(_) => Proposal::Command(command),
            Proposal::Numbered(place, Some(_)) => Proposal::Numbered(place, Some(command)),
            other => other,
        }
    }

    /// The session and the number in its entry's header.
    pub(crate) fn stamp(&self) -> (u64, u64) {
        match self {
            Proposal::Numbered(place, _) => (place.session, place.number),
            Proposal::Close(session) => (*session, 0),
            Proposal::Command(_) | Proposal::Open(_) => (0, 0),
        }
    }

    /// What stands before the command in its entry, and how many bytes of that there are.
    pub(crate) fn prefix(&self) -> ([u8; PREFIX], usize) {
        let mut bytes = [0; PREFIX];
        let length = match self {
            Proposal::Command(_) => 0,
            Proposal::Numbered(Numbered { lane, acknowledged, .. }, command) => {
                bytes[0] = u8::from(command.is_some());
                bytes[4..8].copy_from_slice(&lane.to_le_bytes());
                bytes[8..].copy_from_slice(&acknowledged.to_le_bytes());
                PREFIX
            }
            Proposal::Open(lifetime) => {
                bytes[..8].copy_from_slice(&lifetime.to_le_bytes());
                8
            }
            Proposal::Close(_) => 0,
        };
        (bytes, length)
    }

    /// What an entry of this kind says, by the session and the number in its header and its payload. None: it makes no
    /// sense, or is nothing that anybody proposes.
    pub fn read(kind: Kind, session: u64, number: u64, payload: &Bytes) -> Option<Proposal> {
        let mut from = payload.clone();
        match kind {
            Kind::Command => Some(Proposal::Command(from)),
            Kind::Session if session == 0 => {
                let lifetime = from.try_get_u64_le().ok()?;
                from.is_empty().then_some(Proposal::Open(lifetime))
            }
            Kind::Session => from.is_empty().then_some(Proposal::Close(session)),
            Kind::Numbered => {
                let what = from.try_get_u32_le().ok()?;
                let (lane, acknowledged) = (from.try_get_u32_le().ok()?, from.try_get_u64_le().ok()?);
                let command = match what {
                    0 if from.is_empty() => None,
                    1 => Some(from),
                    _ => return None,
                };
                Some(Proposal::Numbered(Numbered { session, lane, number, acknowledged }, command))
            }
            Kind::Noop | Kind::Membership | Kind::Timer | Kind::Ruling => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_proposed_can_be_read_in_its_entry() {
        let place = Numbered { session: 7, lane: 3, number: 9, acknowledged: 8 };
        let command = Bytes::from_static(b"command");
        let all = [
            Proposal::Command(command.clone()),
            Proposal::Command(Bytes::new()),
            Proposal::Numbered(place, Some(command)),
            Proposal::Numbered(place, Some(Bytes::new())),
            Proposal::Numbered(place, None),
            Proposal::Open(60_000),
            Proposal::Close(7),
        ];
        for proposal in all {
            let ((prefix, length), (session, number)) = (proposal.prefix(), proposal.stamp());
            let mut payload = prefix[..length].to_vec();
            payload.extend(proposal.command().into_iter().flatten());
            assert_eq!(payload.len(), proposal.len());
            let payload = Bytes::from(payload);
            assert_eq!(Proposal::read(proposal.kind(), session, number, &payload).as_ref(), Some(&proposal));
            if proposal.kind() != Kind::Command {
                let mut longer = payload.to_vec();
                longer.extend([0; 9]);
                longer[0] = longer[0].max(2);
                assert_eq!(Proposal::read(proposal.kind(), session, number, &longer.into()), None);
            }
        }
    }
}
