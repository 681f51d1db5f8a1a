//! Messages of all kinds, drawn.

use super::*;

fn any_log_id() -> impl Strategy<Value = LogId> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, index)| LogId::new(term, index))
}

fn any_peer() -> impl Strategy<Value = Peer> {
    any::<[u64; 2]>().prop_map(|[id, life]| Peer { id: NodeId(id), incarnation: Incarnation(life) })
}

fn any_vote() -> impl Strategy<Value = Message> {
    let numbers = (any::<u64>(), any::<u64>());
    let handed = proptest::option::of((any_peer(), any::<u64>()));
    (numbers, any::<bool>(), any_log_id(), handed).prop_map(|((campaign, question), pre, last, handed)| {
        let handed_over = handed.map(|(by, term)| HandedOver { by, term: Term(term) });
        Message::RequestVote(RequestVote { campaign: Term(campaign), pre, question, last, handed_over })
    })
}

fn any_timeout_now() -> impl Strategy<Value = Message> {
    let ask = (any::<u64>(), any_log_id());
    ask.prop_map(|(term, last)| Message::TimeoutNow(TimeoutNow { term: Term(term), last }))
}

fn any_vote_reply() -> impl Strategy<Value = Message> {
    use Refusal::{Leader, Log, Rival, Term as Older, Voted};
    let refusal =
        proptest::sample::select(vec![None, Some(Older), Some(Voted), Some(Log), Some(Leader), Some(Rival)]);
    let leader = proptest::option::of(1u64..);
    (any::<[u64; 3]>(), any::<bool>(), refusal, leader).prop_map(
        |([campaign, question, term], pre, refusal, leader)| {
            let leader = leader.map(NodeId);
            Message::RequestVoteReply(RequestVoteReply {
                campaign: Term(campaign),
                pre,
                question,
                term: Term(term),
                refusal,
                leader,
            })
        },
    )
}

fn any_digest() -> impl Strategy<Value = Digest> {
    let digest = (any::<u64>(), any::<[u32; 2]>(), any::<[u8; 16]>());
    digest.prop_map(|(index, [format, version], bytes)| {
        let index = Index(index);
        Digest { index, format, version, bytes }
    })
}

fn any_append_reply() -> impl Strategy<Value = Message> {
    let conflict = proptest::option::of(any_log_id());
    let digest = proptest::option::of(any_digest());
    let stop = proptest::option::of((any_log_id(), any::<u64>()));
    let wants = proptest::option::of(any::<u64>());
    (any::<[u64; 7]>(), conflict, digest, (stop, wants)).prop_map(
        |(numbers, conflict, digest, (stop, wants))| {
            let [term, round, promised, matched, last, applied, disk_age] = numbers;
            Message::AppendEntriesReply(AppendEntriesReply {
                term: Term(term),
                round: Round(round),
                promised,
                matched: Index(matched),
                last: Index(last),
                conflict,
                applied: Index(applied),
                disk_age,
                digest,
                stop: stop.map(|(at, after)| MachineStop { at, after: Index(after) }),
                wants: wants.map(Index),
            })
        },
    )
}

fn any_read() -> impl Strategy<Value = Message> {
    let index = proptest::option::of(any::<u64>());
    (any::<bool>(), any::<[u64; 3]>(), index).prop_map(|(ask, [term, boot, sequence], index)| {
        let (term, boot, index) = (Term(term), Boot(boot), index.map(Index));
        if ask {
            Message::ReadIndex(ReadIndex { term, boot, sequence })
        } else {
            Message::ReadIndexReply(ReadIndexReply { term, boot, sequence, index })
        }
    })
}

fn any_append() -> impl Strategy<Value = PeerMessage> {
    let payload = proptest::collection::vec(any::<u8>(), 0..50);
    let entries = proptest::collection::vec((0u64..2, any::<bool>(), payload), 0..8);
    (1u64..1 << 40, 1u64..1 << 40, entries).prop_map(|(term, index, list)| {
        let prev = LogId::new(term, index);
        let mut last = prev;
        let mut entries = Vec::new();
        for (rise, configures, payload) in list {
            last = LogId::new(last.term.0 + rise, last.index.0 + 1);
            entries.push(if configures {
                entry(last.term.0, last.index.0, Kind::Membership, &encode_membership(&membership()))
            } else {
                entry(last.term.0, last.index.0, Kind::Command, &payload)
            });
        }
        append(prev, last.term.0, entries)
    })
}

const SESSION: [SessionError; 5] = [
    SessionError::Expired,
    SessionError::Gap,
    SessionError::Forgotten,
    SessionError::Full,
    SessionError::Unsupported,
];
const BUSY: [Busy; 5] = [Busy::Requests, Busy::Disk, Busy::Quorum, Busy::Machine, Busy::Space];

fn any_error() -> impl Strategy<Value = WriteError> {
    let stop = (0..5, any_log_id(), ".{0,20}", ".{0,20}").prop_map(|(which, id, text, at)| match which {
        0 => StopReason::Requested,
        1 => StopReason::Storage(Arc::new(StoreError::Remote(text))),
        2 => StopReason::Panicked { at, message: text },
        3 => StopReason::Apply { id, problem: text },
        _ => StopReason::Invariant(text),
    });
    (0..15, 1u64.., ".{0,20}", stop).prop_map(|(which, id, text, stop)| match which {
        0 => WriteError::NotLeader { leader: Leader::new(NodeId(id), text) },
        1 => WriteError::NoLeader,
        2 => WriteError::NotConfigured,
        3 => WriteError::Busy(BUSY[(id % 5) as usize]),
        4 => WriteError::Invalid(text),
        5 => WriteError::Stopped(stop),
        6 => WriteError::Unknown(Cause::Timeout),
        7 => WriteError::Unknown(Cause::LeadershipLost),
        8 => WriteError::Unknown(Cause::Disconnected),
        9 => WriteError::Unknown(Cause::ReplyLost),
        10 => WriteError::Unknown(Cause::SessionExpired),
        11 => WriteError::Session(SESSION[(id % 5) as usize]),
        12 => WriteError::MachineStopped(LogId::new(id, 7)),
        13 => WriteError::Unknown(Cause::MachineStopped(LogId::new(7, id))),
        _ => WriteError::Unknown(Cause::Stopped(stop)),
    })
}

fn any_forward() -> impl Strategy<Value = PeerMessage> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..100).prop_map(Bytes::from);
    let outcome = prop_oneof![bytes().prop_map(Ok), any_error().prop_map(Err)];
    let reply = (any::<u64>(), outcome).prop_map(|(id, outcome)| ForwardReply { id, outcome });
    let proposal =
        (0..5u8, any::<[u64; 3]>(), any::<u32>(), bytes()).prop_map(|(what, numbers, lane, command)| {
            let [session, number, acknowledged] = numbers;
            let place = Numbered { session, lane, number, acknowledged };
            match what {
                0 => Proposal::Command(command),
                1 => Proposal::Numbered(place, Some(command)),
                2 => Proposal::Numbered(place, None),
                3 => Proposal::Open(number),
                _ => Proposal::Close(session.max(1)),
            }
        });
    let ask = (any::<[u64; 3]>(), proposal).prop_map(|([id, time_left, term], proposal)| {
        PeerMessage::Forward(Forward { id, time_left, term: Term(term), proposal })
    });
    prop_oneof![ask, reply.prop_map(PeerMessage::ForwardReply)]
}

pub(super) fn any_message() -> impl Strategy<Value = PeerMessage> {
    let plain = prop_oneof![any_vote(), any_timeout_now(), any_vote_reply(), any_append_reply(), any_read()];
    let plain = (any_peer(), any_peer(), any_log_id(), plain).prop_map(|(from, to, membership, message)| {
        PeerMessage::Raft { envelope: Envelope { from, to, membership, message }, entries: Vec::new() }
    });
    prop_oneof![plain, any_append(), any_forward()]
}
