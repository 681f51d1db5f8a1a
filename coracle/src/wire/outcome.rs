//! Why a forwarded write, or a client's read, failed, as a number and a text.
//!
//! The one rule: a number that this version does not know is read as "outcome unknown", never as "certainly
//! not done". Texts are cut to [`MAX_TEXT`](super::convert::MAX_TEXT) so that they always fit into a meta.

use super::convert::{cut, from_log_id, to_log_id};
use super::proto;
use crate::error::{Busy, Cause, Leader, ReadError, SessionError, StopReason, WriteError, in_full};
use coracle_core::{LogId, NodeId};

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
    pub(super) const LAGGING: u32 = 24;
    pub(super) const DIVERGED: u32 = 25;
    pub(super) const PANICKED: u32 = 26;
    pub(super) const MACHINE_STOPPED: u32 = 27;
    pub(super) const MACHINE_STOPPED_MEANWHILE: u32 = 28;

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
        WriteError::NoLeader | WriteError::Unreachable(_) => plain(code::NO_LEADER),
        WriteError::NotConfigured => plain(code::NOT_CONFIGURED),
        WriteError::Busy(why) => plain(from_busy(*why)),
        WriteError::Invalid(text) => proto::Failure { text: cut(text), ..plain(code::INVALID) },
        WriteError::MachineStopped(at) => machine_stopped(code::MACHINE_STOPPED, *at),
        WriteError::Unknown(Cause::MachineStopped(at)) => {
            machine_stopped(code::MACHINE_STOPPED_MEANWHILE, *at)
        }
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
    if let Some(why) = to_busy(failure.code) {
        return WriteError::Busy(why);
    }
    let at = to_log_id(failure.stop.as_ref().and_then(|stop| stop.id));
    let stop = to_stop(failure.stop.unwrap_or_default());
    match failure.code {
        code::MACHINE_STOPPED => WriteError::MachineStopped(at),
        code::MACHINE_STOPPED_MEANWHILE => WriteError::Unknown(Cause::MachineStopped(at)),
        code::NOT_LEADER => {
            WriteError::NotLeader { leader: Leader::new(NodeId(failure.leader), failure.text) }
        }
        code::NO_LEADER => WriteError::NoLeader,
        code::NOT_CONFIGURED => WriteError::NotConfigured,
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

fn from_busy(why: Busy) -> u32 {
    match why {
        Busy::Requests => code::BUSY,
        Busy::Disk => code::BUSY_DISK,
        Busy::Quorum => code::BUSY_QUORUM,
        Busy::Machine => code::BUSY_MACHINE,
        Busy::Space => code::BUSY_SPACE,
    }
}

fn to_busy(code: u32) -> Option<Busy> {
    let all = [Busy::Requests, Busy::Disk, Busy::Quorum, Busy::Machine, Busy::Space];
    all.into_iter().find(|why| from_busy(*why) == code)
}

/// Why a client's read has no answer.
pub(super) fn from_read_error(error: &ReadError) -> proto::Failure {
    let plain = |code| proto::Failure { code, ..Default::default() };
    match error {
        ReadError::NoLeader => plain(code::NO_LEADER),
        ReadError::NotConfigured => plain(code::NOT_CONFIGURED),
        ReadError::Busy(why) => plain(from_busy(*why)),
        ReadError::Timeout | ReadError::Unreachable(_) => plain(code::TIMEOUT),
        ReadError::Lagging => plain(code::LAGGING),
        ReadError::Diverged => plain(code::DIVERGED),
        ReadError::MachineStopped(at) => machine_stopped(code::MACHINE_STOPPED, *at),
        ReadError::Panicked(text) => proto::Failure { text: cut(text), ..plain(code::PANICKED) },
        ReadError::Invalid(text) => proto::Failure { text: cut(text), ..plain(code::INVALID) },
        ReadError::Stopped(reason) => {
            proto::Failure { stop: Some(from_stop(reason)), ..plain(code::STOPPED) }
        }
    }
}

/// The same on the other side. Whatever a newer version says: a read can always be tried again.
pub(super) fn to_read_error(failure: proto::Failure) -> ReadError {
    if let Some(why) = to_busy(failure.code) {
        return ReadError::Busy(why);
    }
    match failure.code {
        code::NO_LEADER => ReadError::NoLeader,
        code::NOT_CONFIGURED => ReadError::NotConfigured,
        code::LAGGING => ReadError::Lagging,
        code::DIVERGED => ReadError::Diverged,
        code::MACHINE_STOPPED => ReadError::MachineStopped(to_log_id(failure.stop.and_then(|stop| stop.id))),
        code::PANICKED => ReadError::Panicked(failure.text),
        code::INVALID => ReadError::Invalid(failure.text),
        code::STOPPED => ReadError::Stopped(to_stop(failure.stop.unwrap_or_default())),
        _ => ReadError::Timeout,
    }
}

/// The machine has stopped before this entry.
fn machine_stopped(code: u32, at: LogId) -> proto::Failure {
    let stop = proto::Stop { id: Some(from_log_id(at)), ..Default::default() };
    proto::Failure { code, stop: Some(stop), ..Default::default() }
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
