//! Who promises what to whom, and when a founder founds.

use super::*;
use Step::{Found, Pending, Promise as Give};

const A: u64 = 1;
const B: u64 = 2;
const C: u64 = 3;

fn peer(id: u64) -> Peer {
    Peer { id: NodeId(id), incarnation: coracle_core::Incarnation(100 + id) }
}

fn list(of: &[u64]) -> Membership {
    let member = |id: &u64| Member {
        id: NodeId(*id),
        incarnation: peer(*id).incarnation,
        address: format!("node-{id}:1"),
    };
    proposal(of.iter().map(member))
}

fn node(id: u64) -> Founding {
    Founding::new(peer(id), None, None, 1, Broken::default())
}

fn ask(step: Step, of: &[u64], round: u64) -> Ask {
    Ask::new(step, list(of), round)
}

/// Makes everything durable that was ordered. What else is wanted by then.
fn sync(node: &mut Founding) -> Wants {
    let mut all = node.take();
    for _ in 0..mem::take(&mut all.promises).len() {
        node.on_durable();
        let Wants { promises, asks, answers } = node.take();
        assert!(promises.is_empty(), "what is durable orders nothing new");
        all.asks.extend(asks);
        all.answers.extend(answers);
    }
    all
}

/// What a node says to a question, once it is durable.
fn told(node: &mut Founding, from: u64, ask: Ask) -> Answer {
    node.on_ask(7, peer(from), ask);
    match sync(node).answers.pop() {
        Some((7, answer)) => answer,
        other => panic!("{other:?}"),
    }
}

/// A founder that asks all of its list, its own promise durable.
fn attempt(of: &[u64]) -> (Founding, Vec<Question>) {
    let mut founder = node(of[0]);
    founder.on_ask(9, peer(of[of.len() - 1]), ask(Found, of, 0));
    let wants = sync(&mut founder);
    assert!(wants.answers.is_empty(), "{wants:?}");
    (founder, wants.asks)
}

fn refused(by: u64, objection: Objection) -> Answer {
    Answer::Refused(NodeId(by), objection)
}

#[test]
fn a_list_is_named_by_its_members_disks_and_addresses() {
    let one = list(&[A, B]);
    assert_eq!(one, list(&[B, A]), "in whatever order");
    let mut members: Vec<Member> = one.members.values().cloned().collect();
    members[1].address.push('0');
    assert_ne!(one.cluster, proposal(members.clone()).cluster);
    members[1] = Member { incarnation: peer(9).incarnation, ..one.members[&NodeId(B)].clone() };
    assert_ne!(one.cluster, proposal(members).cluster);
}

#[test]
fn a_promise_is_told_when_it_is_durable_and_not_before() {
    let mut node = node(B);
    node.on_ask(7, peer(A), ask(Give, &[A, B], 5));
    let Wants { promises, answers, .. } = node.take();
    assert_eq!(promises, [Some(Promise { list: list(&[A, B]), round: 5 })]);
    assert!(answers.is_empty());
    // Asked again meanwhile, it waits for the same.
    node.on_ask(8, peer(A), ask(Give, &[A, B], 5));
    assert!(node.take().answers.is_empty());
    node.on_durable();
    assert_eq!(node.take().answers, [(7, Answer::Promised), (8, Answer::Promised)]);
    assert_eq!(told(&mut node, A, ask(Give, &[A, B], 5)), Answer::Promised);
}

#[test]
fn a_founder_founds_when_all_have_promised_and_not_before() {
    let (mut founder, asks) = attempt(&[A, B, C]);
    let to: Vec<u64> = asks.iter().map(|question| question.to.id.0).collect();
    assert_eq!(to, [B, C]);
    assert_eq!(founder.ready(), None);
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    assert_eq!(founder.ready(), None, "a majority is not all");
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    assert_eq!(founder.ready(), None, "one is not another");
    founder.on_answer(&asks[1], Ok(Answer::Promised));
    assert_eq!(founder.ready(), Some(list(&[A, B, C])));
    assert_eq!(founder.ready(), None, "once");
    founder.belongs(list(&[A, B, C]).cluster);
    assert!(founder.take().answers.is_empty(), "its entry is not durable");
    founder.founded();
    assert_eq!(founder.take().answers, [(9, Answer::Founded)]);
    assert_eq!(told(&mut founder, B, ask(Found, &[A, B, C], 0)), Answer::Founded, "and again");
}

#[test]
fn its_own_promise_is_durable_before_a_founder_asks_others() {
    let mut founder = node(A);
    founder.on_ask(9, peer(A), ask(Found, &[A, B], 0));
    assert!(founder.take().asks.is_empty());
    founder.on_durable();
    assert_eq!(founder.take().asks.len(), 1);
    let (mut alone, asks) = attempt(&[A]);
    assert!(asks.is_empty());
    assert_eq!(alone.ready(), Some(list(&[A])));
}

#[test]
fn whoever_promised_itself_refuses_another_list_and_names_its_own() {
    let mut node = node(C);
    assert_eq!(told(&mut node, A, ask(Give, &[A, C], 1)), Answer::Promised);
    node.on_ask(7, peer(B), ask(Give, &[B, C], 1));
    let Wants { promises, asks, answers } = node.take();
    assert!(promises.is_empty());
    assert_eq!(answers, [(7, refused(C, Objection::Promised(list(&[A, C]))))]);
    // And it asks its founder whether that is still at it, once at a time.
    assert_eq!(asks.len(), 1);
    assert_eq!((asks[0].to.id, &asks[0].ask), (NodeId(A), &ask(Pending, &[A, C], 1)));
    node.on_ask(7, peer(B), ask(Give, &[B, C], 1));
    assert!(node.take().asks.is_empty());
    node.on_answer(&asks[0], Ok(Answer::Pending));
    node.on_ask(7, peer(B), ask(Give, &[B, C], 1));
    assert_eq!(node.take().asks.len(), 1);
    node.on_answer(&asks[0], Ok(Answer::GivenUp));
    assert_eq!(told(&mut node, B, ask(Give, &[B, C], 1)), Answer::Promised);
}

/// What the founder gave up then says nothing of what it does now.
#[test]
fn an_old_word_that_it_gave_up_frees_from_no_newer_promise() {
    let mut node = node(C);
    told(&mut node, A, ask(Give, &[A, C], 1));
    node.on_ask(7, peer(B), ask(Give, &[B, C], 1));
    let asks = node.take().asks;
    assert_eq!(told(&mut node, A, ask(Give, &[A, C], 2)), Answer::Promised);
    node.on_answer(&asks[0], Ok(Answer::GivenUp));
    assert!(node.take().promises.is_empty());
    assert_eq!(node.promise().map(|promise| promise.round), Some(2));
    let old = told(&mut node, A, ask(Give, &[A, C], 1));
    assert!(matches!(old, Answer::Refused(_, Objection::Other(_))), "{old:?}");
}

#[test]
fn a_founder_says_that_it_gave_up_only_without_an_attempt_and_durably() {
    let (mut founder, asks) = attempt(&[A, B]);
    assert_eq!(told(&mut founder, B, ask(Pending, &[A, B], 1)), Answer::Pending);
    let objection = refused(B, Objection::Promised(list(&[B, C])));
    founder.on_answer(&asks[0], Ok(objection.clone()));
    founder.on_ask(7, peer(B), ask(Pending, &[A, B], 1));
    let Wants { promises, answers, .. } = founder.take();
    assert_eq!((promises, answers), (vec![None], vec![(9, objection)]), "the one who wanted it is told why");
    founder.on_durable();
    assert_eq!(founder.take().answers, [(7, Answer::GivenUp)]);
    // What comes now is too late.
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    assert_eq!(founder.ready(), None);
    // The next attempt has a greater number.
    founder.on_ask(9, peer(A), ask(Found, &[A, B], 0));
    assert!(sync(&mut founder).asks[0].ask.round > asks[0].ask.round);
}

#[test]
fn a_founder_that_has_written_its_entry_never_says_that_it_gave_up() {
    let (mut founder, asks) = attempt(&[A, B]);
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    founder.ready().unwrap();
    assert_eq!(told(&mut founder, B, ask(Pending, &[A, B], 1)), Answer::Pending);
    founder.belongs(list(&[A, B]).cluster);
    founder.founded();
    assert_eq!(told(&mut founder, B, ask(Pending, &[A, B], 1)), Answer::Pending);
    let later = Founding::new(peer(A), Some(list(&[A, B]).cluster), None, 2, Broken::default());
    assert_eq!(told(&mut { later }, B, ask(Pending, &[A, B], 1)), Answer::Pending, "nor after a restart");
}

/// D5.3.1: no promise outlives the will of its founder, and a restart of the founder ends its attempts.
#[test]
fn after_a_restart_a_founder_has_given_up_and_numbers_its_attempts_higher() {
    let (founder, asks) = attempt(&[A, B]);
    let kept = founder.promise().cloned();
    let mut founder = Founding::new(peer(A), None, kept, 2, Broken::default());
    founder.on_ask(7, peer(B), ask(Pending, &[A, B], asks[0].ask.round));
    assert_eq!(founder.take().promises, [None], "durably");
    founder.on_durable();
    assert_eq!(founder.take().answers, [(7, Answer::GivenUp)]);
    founder.on_ask(9, peer(A), ask(Found, &[A, B], 0));
    assert!(sync(&mut founder).asks[0].ask.round > asks[0].ask.round);
}

#[test]
fn one_that_restarts_is_still_bound_and_the_same_list_succeeds() {
    let mut node = node(B);
    told(&mut node, A, ask(Give, &[A, B], 1));
    let kept = node.promise().map(|promise| Promise::from_kept(promise.to_kept()).unwrap());
    let mut node = Founding::new(peer(B), None, kept, 2, Broken::default());
    assert_eq!(
        told(&mut node, B, ask(Found, &[B, C], 0)),
        refused(B, Objection::Promised(list(&[A, B]))),
        "it founds no other list itself"
    );
    assert_eq!(told(&mut node, A, ask(Give, &[A, B], 1 << 33)), Answer::Promised);
}

#[test]
fn a_founder_with_two_lists_founds_one_at_a_time() {
    let (mut founder, asks) = attempt(&[A, B]);
    let other = told(&mut founder, C, ask(Found, &[A, C], 0));
    assert_eq!(other, refused(A, Objection::Promised(list(&[A, B]))));
    founder.on_answer(&asks[0], Ok(refused(B, Objection::Other("no".to_owned()))));
    sync(&mut founder);
    founder.on_ask(9, peer(C), ask(Found, &[A, C], 0));
    assert_eq!(sync(&mut founder).asks[0].to.id, NodeId(C));
}

#[test]
fn all_who_want_the_same_list_founded_hear_of_it() {
    let (mut founder, asks) = attempt(&[A, B]);
    founder.on_ask(10, peer(B), ask(Found, &[A, B], 0));
    assert!(founder.take().asks.is_empty(), "one attempt serves both");
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    founder.ready().unwrap();
    founder.belongs(list(&[A, B]).cluster);
    founder.founded();
    assert_eq!(founder.take().answers, [(9, Answer::Founded), (10, Answer::Founded)]);
}

#[test]
fn who_gives_no_answer_is_asked_again_until_the_attempt_ends() {
    let (mut founder, asks) = attempt(&[A, B]);
    founder.on_answer(&asks[0], Err("nothing listens there".to_owned()));
    let mut again = 0;
    for tick in 1..ATTEMPT {
        founder.on_tick();
        for question in founder.take().asks {
            again += 1;
            assert_eq!(question, asks[0]);
            founder.on_answer(&question, Err(format!("nothing listens there in tick {tick}")));
        }
    }
    assert!(again >= ATTEMPT / PAUSE - 2, "{again}");
    founder.on_tick();
    let Wants { promises, answers, .. } = founder.take();
    assert_eq!(promises, [None], "it is free for another");
    let [(9, Answer::Refused(NodeId(B), Objection::Other(why)))] = &answers[..] else {
        panic!("{answers:?}")
    };
    assert!(why.contains("nothing listens there"), "{why}");
}

/// D5.3.1, D5.3.4: meeting a member of a cluster ends it all.
#[test]
fn a_node_that_joins_a_cluster_promises_and_founds_nothing_any_more() {
    let (mut founder, asks) = attempt(&[A, B]);
    let other = list(&[C]).cluster;
    founder.belongs(other);
    assert_eq!(founder.take().answers, [(9, refused(A, Objection::Cluster(other)))]);
    founder.on_answer(&asks[0], Ok(Answer::Promised));
    assert_eq!(founder.ready(), None);
    for question in [ask(Found, &[A, B], 0), ask(Give, &[A, B], 9)] {
        assert_eq!(told(&mut founder, A, question), refused(A, Objection::Cluster(other)));
    }
    assert_eq!(told(&mut founder, B, ask(Pending, &[A, B], 1)), Answer::GivenUp);
    // Who waits for the disk is answered too.
    let mut node = node(B);
    node.on_ask(7, peer(A), ask(Give, &[A, B], 1));
    node.take();
    node.belongs(other);
    assert_eq!(node.take().answers, [(7, refused(B, Objection::Cluster(other)))]);
    node.on_durable();
    assert!(node.take().answers.is_empty());
}

/// Nothing that a peer says is believed without a look: each of these is refused, and changes nothing.
#[test]
fn a_question_that_makes_no_sense_is_refused() {
    let mut renamed = ask(Give, &[A, B], 1);
    renamed.list.cluster = ClusterId(7);
    let mut joint = ask(Give, &[A, B], 1);
    joint.list.outgoing = list(&[C]).members;
    let mut another_disk = ask(Give, &[A, B], 1);
    let members = another_disk.list.members.values().cloned().map(|mut member| {
        member.incarnation.0 += 500;
        member
    });
    another_disk.list = proposal(members);
    let long = |id: &u64| Member { address: "x".repeat(1_000), ..list(&[*id]).members[&NodeId(*id)].clone() };
    let too_long = Ask { list: proposal((1..=80).collect::<Vec<_>>().iter().map(long)), ..joint.clone() };
    for (from, question) in [
        (A, renamed),
        (A, joint),
        (A, another_disk),
        (A, too_long),
        (A, ask(Give, &[A, C], 1)),
        (C, ask(Give, &[A, B], 1)),
        (A, ask(Found, &[A, B], 0)),
        (A, ask(Pending, &[A, B], 0)),
        (A, ask(Give, &[], 1)),
    ] {
        let mut node = node(B);
        node.on_ask(7, peer(from), question.clone());
        let Wants { promises, asks, answers } = node.take();
        assert!(promises.is_empty() && asks.is_empty(), "{question:?}");
        assert!(matches!(answers[..], [(7, Answer::Refused(_, Objection::Other(_)))]), "{answers:?}");
    }
}

#[test]
fn only_so_many_wait() {
    let mut node = node(B);
    for name in 0..MAX_WAITING as u64 + 1 {
        node.on_ask(name, peer(A), ask(Give, &[A, B], 1));
    }
    assert_eq!(node.take().answers.len(), 1);
    let (mut founder, _) = attempt(&[A, B]);
    for name in 0..MAX_WAITING as u64 {
        founder.on_ask(name, peer(B), ask(Found, &[A, B], 0));
    }
    assert_eq!(founder.take().answers.len(), 1);
}
