//! The [inbox](super::inbox), one step at a time.

use super::inbox::{Limits, Receiver, Refused, Sender};
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

/// None: it is not ready.
fn poll_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// One in which so many wait at most.
fn bounded(questions: usize) -> (Sender<i32>, Receiver<i32>) {
    super::inbox::bounded(Limits { questions, bytes: usize::MAX }, |_| 1)
}

/// Asks, and waits for nothing.
fn push(sender: &Sender<i32>, question: i32) {
    let _ = poll_once(sender.send(question));
}

#[tokio::test]
async fn all_that_are_ready_to_ask_go_over_with_one_ring() {
    let (sender, receiver) = bounded(10);
    let sender = Arc::new(sender);
    for number in 0..5 {
        let sender = sender.clone();
        tokio::spawn(async move { sender.send(number).await });
    }
    receiver.rung().await;
    assert_eq!(receiver.take(10), [0, 1, 2, 3, 4]);
    assert!(poll_once(receiver.rung()).is_none(), "nobody rang again");
}

#[tokio::test]
async fn the_first_one_lets_others_join_before_it_rings() {
    let (sender, receiver) = bounded(10);
    let mut first = pin!(sender.send(1));
    assert!(first.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    assert!(poll_once(receiver.rung()).is_none(), "it has not rung yet");
    sender.send(2).await.unwrap();
    first.await.unwrap();
    receiver.rung().await;
    assert_eq!(receiver.take(10), [1, 2]);
}

#[tokio::test]
async fn after_one_that_nobody_joined_the_next_does_not_wait() {
    let (sender, receiver) = bounded(10);
    sender.send(1).await.unwrap();
    assert_eq!(receiver.take(10), [1]);
    assert_eq!(poll_once(sender.send(2)), Some(Ok(())), "it rings at once");
    // This one comes too late to need it.
    sender.send(3).await.unwrap();
    receiver.rung().await;
    assert_eq!(receiver.take(10), [2, 3]);
    assert_eq!(poll_once(sender.send(4)), None, "it lets others join again");
}

#[tokio::test]
async fn a_first_one_that_is_dropped_rings_for_those_after_it() {
    let (sender, receiver) = bounded(10);
    assert!(poll_once(sender.send(1)).is_none(), "it lets others run first");
    receiver.rung().await;
    sender.send(2).await.unwrap();
    assert_eq!(receiver.take(10), [1, 2]);
}

#[tokio::test]
async fn what_is_over_a_turn_comes_in_the_next() {
    let (sender, receiver) = bounded(3);
    for number in 0..3 {
        push(&sender, number);
    }
    assert_eq!(sender.send(3).await, Err(Refused::Full));
    sender.send_always(3).await.unwrap();
    assert_eq!(receiver.take(2), [0, 1]);
    receiver.rung().await;
    assert_eq!(receiver.take(2), [2, 3]);
    assert!(poll_once(receiver.rung()).is_none());
}

#[tokio::test]
async fn whoever_asks_hears_that_consensus_has_ended() {
    let (sender, receiver) = bounded(3);
    push(&sender, 1);
    assert_eq!(receiver.close(), [1]);
    assert_eq!(sender.send(2).await, Err(Refused::Closed));
}

/// Few questions can hold much: their bytes are bounded as well, but for a single one.
#[tokio::test]
async fn what_waits_is_bounded_in_bytes() {
    let weigh = |question: &i32| *question as usize;
    let (sender, receiver) = super::inbox::bounded(Limits { questions: 10, bytes: 100 }, weigh);
    for number in [60, 40, 0] {
        push(&sender, number);
    }
    assert_eq!(sender.send(1).await, Err(Refused::Full));
    sender.send_always(50).await.unwrap();
    assert_eq!(receiver.take(1), [60]);
    assert_eq!(sender.send(11).await, Err(Refused::Full), "90 are left");
    push(&sender, 10);
    assert_eq!(receiver.take(10), [40, 0, 50, 10]);
    push(&sender, 1000);
    assert_eq!(receiver.take(10), [1000], "one may be larger than all");
    push(&sender, 100);
    assert_eq!(receiver.take(10), [100], "what was taken weighs nothing");
}
