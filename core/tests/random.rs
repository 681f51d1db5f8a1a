//! Thousands of short lives of a cluster, each decided by a seed: messages get lost, repeated, reordered and
//! delayed across restarts, nodes lose power with unsynced writes, links break, clocks run apart, and false
//! rumours of dead leaders go round. The box judges every step (see `common`). At the end of each life
//! everything heals, and within a bound the cluster must work again.
//!
//! A failure names its seed; `run_one(seed)` then repeats the very same life.

mod common;
use common::*;
use coracle_core::*;
use proptest::prelude::*;

/// SplitMix64, so that a seed means the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`.
    fn roll(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// True once in `times`.
    fn once_in(&mut self, times: u64) -> bool {
        self.roll(times) == 0
    }

    fn pick(&mut self, from: &[u64]) -> u64 {
        from[self.roll(from.len() as u64) as usize]
    }
}

/// Says which seed failed.
struct Tell(u64);

impl Drop for Tell {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("this life has the seed {}", self.0);
        }
    }
}

/// Small windows, so that short lives reach their edges.
fn settings(dice: &mut Dice) -> Settings {
    Settings {
        message_entries: 1 + dice.roll(4),
        inflight_messages: 1 + dice.roll(3) as usize,
        inflight_bytes: 1 + dice.roll(8),
        ..Settings::default()
    }
}

fn up(c: &Cluster) -> Vec<u64> {
    c.ids().into_iter().filter(|id| c.is_up(*id)).collect()
}

/// Some vote, some learn, and some are gone.
fn any_members(all: &[u64], dice: &mut Dice) -> Membership {
    let (voters, others): (Vec<u64>, Vec<u64>) = all.iter().partition(|_| !dice.once_in(3));
    let learners: Vec<u64> = others.into_iter().filter(|_| dice.once_in(2)).collect();
    membership(&voters, &[], &learners)
}

/// A message arrives, or not, or twice.
fn deliver_one(c: &mut Cluster, dice: &mut Dice) {
    let waiting = c.waiting() as u64;
    if waiting == 0 {
        return;
    }
    // Mostly in order, and sometimes not.
    let nth = if dice.once_in(3) { dice.roll(waiting) } else { 0 };
    let mail = c.take_nth(nth as usize).unwrap();
    match dice.roll(12) {
        0 => {}
        1 => {
            c.put_back(mail.clone());
            c.hand(mail);
        }
        2 => c.put_back(mail),
        _ => {
            c.hand(mail);
        }
    }
}

/// One thing happens.
fn mischief(c: &mut Cluster, dice: &mut Dice) {
    let up = up(c);
    let all = c.ids();
    let some_up = (!up.is_empty()).then(|| dice.pick(&up));
    match (dice.roll(100), some_up) {
        (0..36, _) => deliver_one(c, dice),
        (36..54, Some(id)) => match dice.roll(4) {
            0 => c.persist_at_once(id),
            1 => c.persist(id),
            _ => c.persist_one(id),
        },
        (54..72, Some(id)) => {
            let ticks = if dice.once_in(8) { dice.roll(70) } else { dice.roll(7) };
            c.tick(id, 1 + ticks);
        }
        (72..80, Some(id)) => {
            let to = if dice.once_in(4) { id } else { c.leader().unwrap_or(id) };
            let count = 1 + dice.roll(3);
            c.propose(to, count);
        }
        (80..85, Some(id)) => {
            c.read(id);
        }
        (85, Some(id)) => c.campaign(id),
        (86..88, Some(id)) => {
            let to = if dice.once_in(8) { id } else { c.leader().unwrap_or(id) };
            let to_be = any_members(&all, dice);
            c.change(to, to_be);
        }
        (88..91, Some(id)) => {
            let rumoured = dice.pick(&all);
            c.step(id, Input::LeaderDown(NodeId(rumoured)));
        }
        (91..94, Some(id)) => {
            // Some of what was under way may have reached the disk.
            for _ in 0..dice.roll(3) {
                c.write_one(id);
            }
            c.crash(id);
        }
        (94..97, _) => {
            let down: Vec<u64> = all.iter().copied().filter(|id| !c.is_up(*id)).collect();
            if !down.is_empty() {
                let id = dice.pick(&down);
                c.restart(id);
            }
        }
        (97, _) => {
            let (near, far): (Vec<u64>, Vec<u64>) = all.iter().partition(|_| dice.once_in(2));
            c.partition(&[&near, &far]);
        }
        (98, _) => c.cut(dice.pick(&all), dice.pick(&all)),
        (99, _) => c.heal(),
        _ => {}
    }
}

/// Whatever the membership has become: as an operator would, it is changed until all nodes vote.
fn bring_all_back(c: &mut Cluster) {
    let all = c.ids();
    let wanted = membership(&all, &[], &[]);
    for _ in 0..100 {
        c.pass(c.settings.election_max / 2);
        let Some(leader) = c.leader() else { continue };
        let (raft, committed) = (c.raft(leader), c.raft(leader).committed_membership());
        if raft.membership() == &wanted && committed.0 == raft.membership_id() {
            return;
        }
        let strangers: Vec<u64> =
            all.iter().copied().filter(|id| !raft.membership().contains(peer(*id))).collect();
        let voters: Vec<u64> = raft.membership().voters.iter().map(|id| id.0).collect();
        let learners: Vec<u64> = all.iter().copied().filter(|id| !voters.contains(id)).collect();
        // First they learn.
        let next = if strangers.is_empty() { wanted.clone() } else { membership(&voters, &[], &learners) };
        c.change(leader, next);
    }
    panic!("L4: no change comes to an end\n{}", c.describe());
}

/// Everything is repaired, and the cluster works again within its bounds (L1 to L5).
fn recovery(c: &mut Cluster, dice: &mut Dice) {
    c.heal();
    if dice.once_in(2) {
        c.lose_all();
    }
    for id in c.ids() {
        if !c.is_up(id) {
            c.restart(id);
        }
    }
    c.latency = dice.roll(3);
    let ten_timeouts = 10 * c.settings.election_max;
    assert!(
        c.pass_until(ten_timeouts, |c| c.leader().is_some()).is_some(),
        "L1: no leader\n{}",
        c.describe()
    );
    bring_all_back(c);
    let led = c.pass_until(ten_timeouts, |c| {
        c.leader().is_some_and(|leader| c.ids().iter().all(|id| c.leader_of(*id) == Some(leader)))
    });
    assert!(led.is_some(), "L1: no leader\n{}", c.describe());
    // It may have been about to step down when all healed; from now on there is no reason to.
    c.pass(c.settings.election_max);
    let led = c.pass_until(ten_timeouts, |c| {
        c.leader().is_some_and(|leader| c.ids().iter().all(|id| c.leader_of(*id) == Some(leader)))
    });
    assert!(led.is_some(), "L1: no leader\n{}", c.describe());
    let leader = c.leader().unwrap();
    let term = c.term(leader);
    c.propose(leader, 2);
    for id in c.ids() {
        c.read(id);
    }
    let done = c.pass_until(ten_timeouts, |c| {
        let last = c.last(leader);
        c.unanswered_reads() == 0
            && c.ids().iter().all(|id| c.commit(*id) == last && c.last(*id) == last)
            && c.raft(leader).status().peers.iter().all(|peer| peer.matched.0 == last)
    });
    assert!(done.is_some(), "L2, L3, L4 or L5\n{}", c.describe());
    c.assert_converged();
    assert_eq!((c.leader(), c.term(leader)), (Some(leader), term), "L6: a healthy leader is not deposed");
}

fn run_one(seed: u64) -> Cluster {
    let _tell = Tell(seed);
    let mut dice = Dice(seed);
    let size = if dice.once_in(2) { 3 } else { 5 };
    let settings = settings(&mut dice);
    let mut c = Cluster::build(settings, seed, &Cluster::voters(size), &vec!["1"; size as usize]);
    if dice.once_in(3) {
        c.sending = Sending::Connected;
    }
    for _ in 0..dice.roll(400) {
        mischief(&mut c, &mut dice);
    }
    recovery(&mut c, &mut dice);
    c
}

#[test]
fn tr_1_whatever_the_network_and_the_power_do_no_rule_breaks_and_all_recover() {
    for seed in 0..3_000 {
        run_one(seed);
    }
}

#[test]
fn the_same_seed_is_the_same_life() {
    for seed in 0..20 {
        let (one, other) = (run_one(seed), run_one(seed));
        for id in one.ids() {
            assert_eq!(one.raft(id), other.raft(id), "S24: seed {seed}");
        }
    }
}

/// A night of the same, for those who have one: `cargo test -p coracle-core --test random -- --ignored`.
#[test]
#[ignore = "takes minutes"]
fn many_more_lives() {
    for seed in 1_000_000..1_200_000 {
        run_one(seed);
    }
}

/// Numbers as a broken or hostile peer picks them: small ones that nearly fit, and the edges.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 0..12u64,
        1 => Just(u64::MAX),
        1 => Just(u64::MAX - 1),
        1 => Just(u64::MAX / 2),
        1 => Just(u64::MAX / 2 - 1),
        1 => any::<u64>(),
    ]
}

fn log_id() -> impl Strategy<Value = LogId> {
    (number(), number()).prop_map(|(term, index)| LogId::new(term, index))
}

/// Members, a member in another life, and strangers.
fn sender() -> impl Strategy<Value = Peer> {
    prop_oneof![
        8 => (1..=3u64).prop_map(peer),
        1 => (0..9u64, number()).prop_map(|(id, i)| Peer { id: NodeId(id), incarnation: Incarnation(i) }),
    ]
}

fn any_membership() -> impl Strategy<Value = Membership> {
    let set = || proptest::collection::btree_set(0..6u64, 0..4);
    (set(), set(), set(), any::<bool>()).prop_map(|(voters, outgoing, learners, whole)| {
        let list = |set: std::collections::BTreeSet<u64>| set.into_iter().collect::<Vec<_>>();
        let mut membership = membership(&list(voters), &list(outgoing), &list(learners));
        if !whole {
            membership.members.pop_first();
        }
        membership
    })
}

/// AppendEntries from one who lies about everything, or who at least counts right.
fn any_append() -> impl Strategy<Value = (AppendEntries, Carried)> {
    let runs = proptest::collection::vec((number(), number()).prop_map(|(f, t)| Run::new(f, t)), 0..4);
    let terms = proptest::collection::vec(0..4u64, 0..4);
    let memberships = proptest::collection::vec((0..12u64, any_membership()), 0..2);
    let fields = (number(), log_id(), number(), runs, number(), number(), number());
    (fields, terms, memberships, any::<bool>()).prop_map(|(fields, terms, memberships, counts)| {
        let (term, prev, last, runs, commit, round, rest) = fields;
        let mut append = AppendEntries {
            term: Term(term),
            prev,
            last: Index(last),
            commit: Index(commit),
            round: Round(round),
            lease: 0,
            persisted: Index(rest),
            disk_age: rest,
            time: 0,
            agreed: None,
        };
        let memberships = memberships.into_iter().map(|(at, m)| (Index(at), m)).collect();
        let mut carried = Carried { runs, memberships };
        if counts {
            let mut newest = prev.term.0;
            carried.runs.clear();
            append.last = prev.index;
            for more in terms {
                append.last = append.last.next();
                if more > 0 || carried.runs.is_empty() {
                    newest = newest.saturating_add(more);
                    carried.runs.push(Run { first: append.last, term: Term(newest) });
                }
            }
            carried.memberships.retain(|(at, _)| *at > prev.index && *at <= append.last);
        }
        (append, carried)
    })
}

fn any_message() -> impl Strategy<Value = (Message, Carried)> {
    let vote = (number(), any::<bool>(), log_id()).prop_map(|(campaign, pre, last)| {
        Message::RequestVote(RequestVote {
            campaign: Term(campaign),
            pre,
            question: 0,
            last,
            handed_over: None,
        })
    });
    let granted = (number(), any::<bool>(), number(), any::<bool>());
    let vote_reply = granted.prop_map(|(campaign, pre, term, granted)| {
        let refusal = (!granted).then_some(Refusal::Log);
        let leader = Some(NodeId(term));
        Message::RequestVoteReply(RequestVoteReply {
            campaign: Term(campaign),
            pre,
            question: 0,
            term: Term(term),
            refusal,
            leader,
        })
    });
    let fields = (number(), number(), number(), number(), proptest::option::of(log_id()), number());
    let append_reply = fields.prop_map(|(term, round, matched, last, conflict, rest)| {
        Message::AppendEntriesReply(AppendEntriesReply {
            term: Term(term),
            round: Round(round),
            promised: 0,
            matched: Index(matched),
            last: Index(last),
            conflict,
            applied: Index(rest),
            disk_age: rest,
            digest: None,
            stop: None,
            wants: None,
        })
    });
    let ask = (number(), number(), number()).prop_map(|(term, boot, sequence)| {
        Message::ReadIndex(ReadIndex { term: Term(term), boot: Boot(boot), sequence })
    });
    let answer = (number(), number(), number(), proptest::option::of(number())).prop_map(|fields| {
        let (term, boot, sequence, index) = fields;
        let (term, boot, index) = (Term(term), Boot(boot), index.map(Index));
        Message::ReadIndexReply(ReadIndexReply { term, boot, sequence, index })
    });
    let plain = prop_oneof![1 => vote, 1 => vote_reply, 2 => append_reply, 1 => ask, 1 => answer];
    prop_oneof![
        6 => plain.prop_map(|message| (message, Carried::default())),
        3 => any_append().prop_map(|(append, carried)| (Message::AppendEntries(append), carried)),
    ]
}

/// What else happens to a node meanwhile.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant, reason = "most of them are messages")]
enum Event {
    Word(Peer, LogId, (Message, Carried)),
    Ticks(u64),
    Persisted,
    Propose,
    Read,
    Sent,
    Unsent,
    LeaderDown(u64),
    Campaign,
    /// Those whom it asked for a vote grant it.
    Grant,
}

fn any_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => (sender(), log_id(), any_message()).prop_map(|(from, at, word)| Event::Word(from, at, word)),
        2 => (1..70u64).prop_map(Event::Ticks),
        3 => Just(Event::Persisted),
        1 => Just(Event::Propose),
        1 => Just(Event::Read),
        1 => Just(Event::Sent),
        1 => Just(Event::Unsent),
        1 => (1..4u64).prop_map(Event::LeaderDown),
        1 => Just(Event::Campaign),
        3 => Just(Event::Grant),
    ]
}

/// A node in one of its roles, in a cluster of three.
fn in_role(role: u64) -> Raft {
    let log = if role == 0 { "-" } else { "1 1 2" };
    let mut c = Cluster::with_logs(&[log, "1 1 2", "1 1 2"]);
    match role {
        1 => c.elect(A),
        2 => c.campaign(A),
        3 => {
            c.campaign(A);
            c.run_pre_vote(A, B);
        }
        4 => c.elect(B),
        _ => {}
    }
    c.raft(A).clone()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    /// Debug assertions are on, so this also says that no rule of the node's own breaks.
    #[test]
    fn nothing_that_a_peer_can_send_makes_a_node_panic(
        role in 0..5u64,
        events in proptest::collection::vec(any_event(), 1..40),
    ) {
        let mut node = in_role(role);
        let mut now = Tick(1_000_000);
        let mut open = Vec::new();
        let mut asked = Vec::new();
        let mut durable = node.term();
        for event in events {
            let inputs = match event {
                Event::Word(from, membership, (message, carried)) => {
                    vec![Input::Receive(Envelope { from, to: peer(A), membership, message }, carried)]
                }
                Event::Ticks(ticks) => vec![Input::Tick; ticks as usize],
                Event::Persisted => vec![Input::Persisted(node.newest_write())],
                Event::Propose => vec![Input::Propose { ticket: Ticket(1), count: 2 }],
                Event::Read => vec![Input::Read { ticket: Ticket(2) }],
                Event::Sent | Event::Unsent => match open.pop() {
                    Some(Replicate { to, append: AppendEntries { term, prev, .. }, last, .. }) => {
                        match event {
                            Event::Sent => vec![Input::Sent { to, term, prev, last, bytes: 1 }],
                            _ => vec![Input::Unsent { to, term, prev }],
                        }
                    }
                    None => vec![],
                },
                Event::LeaderDown(id) => vec![Input::LeaderDown(NodeId(id))],
                Event::Campaign => vec![Input::Campaign],
                Event::Grant => {
                    let grant = |(from, vote): (Peer, RequestVote)| {
                        let RequestVote { campaign, pre, question, .. } = vote;
                        let term = if pre { Term(1) } else { campaign };
                        let reply = RequestVoteReply { campaign, pre, question, term, refusal: None, leader: None };
                        let (to, message) = (peer(A), Message::RequestVoteReply(reply));
                        Input::Receive(Envelope { from, to, membership: LogId::ZERO, message }, Carried::default())
                    };
                    std::mem::take(&mut asked).into_iter().map(grant).collect()
                }
            };
            for input in inputs {
                now = now.after(1);
                let (term, vote) = (node.term(), node.status().vote);
                let persisted = matches!(input, Input::Persisted(_));
                let out = node.step(now, input);
                prop_assert_eq!(node.check(), Ok(()));
                prop_assert!(node.term() >= term, "S9");
                if node.term() == term && vote.is_some() {
                    prop_assert_eq!(node.status().vote, vote, "S10: whatever they say");
                }
                if persisted {
                    durable = term;
                }
                for envelope in &out.send {
                    prop_assert!(envelope.message.term() <= durable, "S11: {envelope:?}");
                }
                for envelope in out.envelopes() {
                    if let Message::RequestVote(vote) = envelope.message {
                        asked.push((envelope.to, vote));
                    }
                }
                open.extend(out.replicate);
            }
        }
    }
}
