//! Why a forwarded write failed, as a number and a text.
//!
//! The one rule: a number that this version does not know is read as "outcome unknown", never as "certainly
//! not done". Texts are cut to [`MAX_TEXT`](super::convert::MAX_TEXT) so that they always fit into a meta.

use super::convert::{cut, from_log_id, to_log_id};
use super::proto;
use crate::error::{Busy, Cause, Leader, SessionError, StopReason, WriteError, in_full};
use coracle_core::NodeId;

mod code {
    pub(super) const NOT_LEADER: u32 = 1;
    pub(super) const NO_LEADER: u32 = 2;
    pub(super) const NOT_CONFIGURED: u32 = 3;
    pub(super) const BUSY: u32 = 4;
    pub(super) const INVALID: u32 = 5;
    pub(super) const STOPPED: u32 = 6;
    pub(super) const BUSY_DISK: u32 = 7;
    pub(super) const BUSY_QUORUM: u32 = 8;
    pub(super) const BUSY_MACHINE: u32 = 9;
    pub(super) const BUSY_SPACE: u32 = 10;
    pub(super) const SESSION_GAP: u32 = 11;
    pub(super) const SESSION_FULL: u32 = 12;
    pub(super) const SESSION_UNSUPPORTED: u32 = 13;
    pub(super) const NOT_YET: u32 = 14;
    pub(super) const TIMEOUT: u32 = 16;
    pub(super) const LEADERSHIP_LOST: u32 = 17;
    pub(super) const DISCONNECTED: u32 = 18;
    pub(super) const STOPPED_MEANWHILE: u32 = 19;
    pub(super) const REPLY_LOST: u32 = 20;
    pub(super) const SESSION_EXPIRED: u32 = 21;
    pub(super) const SESSION_FORGOTTEN: u32 = 22;
    pub(super) const EXPIRED_MEANWHILE: u32 = 23;

    pub(super) const STOP_REQUESTED: u32 = 1;
    pub(super) const STOP_STORAGE: u32 = 2;
    pub(super) const STOP_PANICKED: u32 = 3;
    pub(super) const STOP_APPLY: u32 = 4;
    pub(super) const STOP_INVARIANT: u32 = 5;
}

pub(super) fn from_error(error: &WriteError) -> proto::Failure {
    let plain = |code| proto::Failure { code, ..Default::default() };
    match error {
        WriteError::NotLeader { leader } => {
            proto::Failure { leader: leader.id.0, text: cut(&leader.address), ..plain(code::NOT_LEADER) }
        }
        WriteError::NoLeader => plain(code::NO_LEADER),
        WriteError::NotConfigured => plain(code::NOT_CONFIGURED),
        WriteError::Busy(Busy::Requests) => plain(code::BUSY),
        WriteError::Busy(Busy::Disk) => plain(code::BUSY_DISK),
        WriteError::Busy(Busy::Quorum) => plain(code::BUSY_QUORUM),
        WriteError::Busy(Busy::Machine) => plain(code::BUSY_MACHINE),
        WriteError::Busy(Busy::Space) => plain(code::BUSY_SPACE),
        WriteError::Invalid(text) => proto::Failure { text: cut(text), ..plain(code::INVALID) },
        WriteError::NotYet { needs, all_have } => {
            let (needs, all_have) = (u32::from(*needs), u32::from(*all_have));
            proto::Failure { needs, all_have, ..plain(code::NOT_YET) }
        }
        WriteError::Stopped(reason) => {
            proto::Failure { stop: Some(from_stop(reason)), ..plain(code::STOPPED) }
        }
        WriteError::Session(why) => plain(match why {
            SessionError::Expired => code::SESSION_EXPIRED,
            SessionError::Gap => code::SESSION_GAP,
            SessionError::Forgotten => code::SESSION_FORGOTTEN,
            SessionError::Full => code::SESSION_FULL,
            SessionError::Unsupported => code::SESSION_UNSUPPORTED,
        }),
        WriteError::Unknown(Cause::SessionExpired) => plain(code::EXPIRED_MEANWHILE),
        WriteError::Unknown(Cause::Timeout) => plain(code::TIMEOUT),
        WriteError::Unknown(Cause::LeadershipLost) => plain(code::LEADERSHIP_LOST),
        WriteError::Unknown(Cause::Disconnected) => plain(code::DISCONNECTED),
        WriteError::Unknown(Cause::ReplyLost) => plain(code::REPLY_LOST),
        WriteError::Unknown(Cause::Stopped(reason)) => {
            proto::Failure { stop: Some(from_stop(reason)), ..plain(code::STOPPED_MEANWHILE) }
        }
    }
}

pub(super) fn to_error(failure: proto::Failure) -> WriteError {
    let stop = to_stop(failure.stop.unwrap_or_default());
    match failure.code {
        code::NOT_LEADER => {
            WriteError::NotLeader { leader: Leader::new(NodeId(failure.leader), failure.text) }
        }
        code::NO_LEADER => WriteError::NoLeader,
        code::NOT_CONFIGURED => WriteError::NotConfigured,
        code::BUSY => WriteError::Busy(Busy::Requests),
        code::BUSY_DISK => WriteError::Busy(Busy::Disk),
        code::BUSY_QUORUM => WriteError::Busy(Busy::Quorum),
        code::BUSY_MACHINE => WriteError::Busy(Busy::Machine),
        code::BUSY_SPACE => WriteError::Busy(Busy::Space),
        code::INVALID => WriteError::Invalid(failure.text),
        code::NOT_YET => {
            let version = |number| u16::try_from(number).unwrap_or(u16::MAX);
            WriteError::NotYet { needs: version(failure.needs), all_have: version(failure.all_have) }
        }
        code::STOPPED => WriteError::Stopped(stop),
        code::SESSION_EXPIRED => WriteError::Session(SessionError::Expired),
        code::SESSION_GAP => WriteError::Session(SessionError::Gap),
        code::SESSION_FORGOTTEN => WriteError::Session(SessionError::Forgotten),
        code::SESSION_FULL => WriteError::Session(SessionError::Full),
        code::SESSION_UNSUPPORTED => WriteError::Session(SessionError::Unsupported),
        code::EXPIRED_MEANWHILE => WriteError::Unknown(Cause::SessionExpired),
        code::TIMEOUT => WriteError::Unknown(Cause::Timeout),
        code::LEADERSHIP_LOST => WriteError::Unknown(Cause::LeadershipLost),
        code::REPLY_LOST => WriteError::Unknown(Cause::ReplyLost),
        code::STOPPED_MEANWHILE => WriteError::Unknown(Cause::Stopped(stop)),
        // `Disconnected` itself, and whatever a newer version says.
        _ => WriteError::Unknown(Cause::Disconnected),
    }
}

fn from_stop(reason: &StopReason) -> proto::Stop {
    let plain = |code, text: &str| proto::Stop { code, text: cut(text), ..Default::default() };
    match reason {
        StopReason::Requested => plain(code::STOP_REQUESTED, ""),
        StopReason::Storage(error) => plain(code::STOP_STORAGE, &in_full(&**error)),
        StopReason::Panicked { at, message } => {
            proto::Stop { at: cut(at), ..plain(code::STOP_PANICKED, message) }
        }
        StopReason::Apply { id, problem } => {
            proto::Stop { id: Some(from_log_id(*id)), ..plain(code::STOP_APPLY, problem) }
        }
        StopReason::Invariant(text) => plain(code::STOP_INVARIANT, text),
    }
}

fn to_stop(stop: proto::Stop) -> StopReason {
    match stop.code {
        code::STOP_STORAGE => StopReason::remote_storage(stop.text),
        code::STOP_PANICKED => StopReason::Panicked { at: stop.at, message: stop.text },
        code::STOP_APPLY => StopReason::Apply { id: to_log_id(stop.id), problem: stop.text },
        code::STOP_INVARIANT => StopReason::Invariant(stop.text),
        _ => StopReason::Requested,
    }
}
