//! What a campaign says and what opposes it, made by hand.

use super::*;

/// A request for the vote of that term, by whoever has this newest entry.
pub(crate) fn vote(campaign: u64, term: u64, index: u64) -> Message {
    let last = LogId::new(term, index);
    Message::RequestVote(RequestVote {
        campaign: Term(campaign),
        pre: false,
        question: 0,
        last,
        handed_over: None,
    })
}

/// The vote of that term.
pub(crate) fn grant(campaign: u64) -> Message {
    let term = Term(campaign);
    Message::RequestVoteReply(RequestVoteReply {
        campaign: term,
        pre: false,
        question: 0,
        term,
        refusal: None,
        leader: None,
    })
}

/// The answer to a request for a vote that a step sends.
pub(crate) fn vote_reply(out: &Output) -> RequestVoteReply {
    let mut sent = out.envelopes();
    sent.find_map(|envelope| match envelope.message {
        Message::RequestVoteReply(reply) => Some(reply),
        _ => None,
    })
    .expect("an answer")
}

/// Whether it asks for a vote, and not whether it would be worth asking.
pub(crate) fn is_vote(message: &Message) -> bool {
    matches!(message, Message::RequestVote(vote) if !vote.pre)
}

/// Ends a pre-vote: `id` campaigns for real, and its requests wait on the links to `others`.
pub(crate) fn start_campaign(c: &mut Cluster, id: u64, helper: u64) {
    c.silence(60);
    c.campaign(id);
    c.run_pre_vote(id, helper);
    c.persist(id);
}

/// The heartbeat that A would send as the leader.
pub(crate) fn heartbeat_of(c: &Cluster) -> AppendEntries {
    AppendEntries {
        term: Term(c.term(A)),
        prev: LogId::new(1, 1),
        last: Index(1),
        commit: Index(0),
        round: Round(1),
        lease: 0,
        persisted: Index(1),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
}
