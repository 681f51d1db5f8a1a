//! Figure 2 of the Raft paper ("In Search of an Understandable Consensus Algorithm (Extended Version)"), rule by rule.
//!
//! Each test is named after a rule and does what the rule says, nothing more. Read this beside the figure: it is the
//! shortest way into the core. The corners, and what went wrong elsewhere, are in the other files.

#[path = "../common/mod.rs"]
mod common;

mod all_servers;
mod append_entries;
mod candidates;
mod followers;
mod leaders;
mod request_vote;
mod state;

use common::*;
use coracle_core::*;

/// AppendEntries as in the figure, for a follower whose log may be anything.
fn append_entries(term: u64, prev: LogId, last: u64, leader_commit: u64) -> AppendEntries {
    AppendEntries {
        term: Term(term),
        prev,
        last: Index(last),
        commit: Index(leader_commit),
        round: Round(1),
        lease: 0,
        persisted: Index(0),
        disk_age: 0,
        time: 0,
        agreed: None,
    }
}

fn request_vote(term: u64, last: LogId) -> Message {
    Message::RequestVote(RequestVote {
        campaign: Term(term),
        pre: false,
        question: 0,
        last,
        handed_over: None,
    })
}

/// The newest answer that has left for `to`.
fn answer(c: &Cluster, from: u64, to: u64) -> Message {
    c.mail(from, to).pop().expect("an answer")
}

fn vote_granted(c: &Cluster, from: u64, to: u64) -> bool {
    match answer(c, from, to) {
        Message::RequestVoteReply(reply) => reply.refusal.is_none(),
        other => panic!("not a vote: {other:?}"),
    }
}

/// A's campaign, up to the moment at which its requests for real votes wait on the links.
fn candidate_a(c: &mut Cluster) {
    c.silence(60);
    c.campaign(A);
    c.run_pre_vote(A, B);
    c.persist(A);
}
