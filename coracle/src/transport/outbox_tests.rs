//! The [outbox](super::outbox), one step at a time.

use super::outbox::Outbox;
use crate::wire::Frame;
use bytes::Bytes;

fn frame(length: usize) -> Frame {
    Frame { head: Bytes::from(vec![0; length]), bulk: Vec::new() }
}

#[tokio::test]
async fn what_was_taken_counts_until_the_writer_comes_back() {
    let outbox = Outbox::new(10, 100, None);
    assert!(outbox.push(frame(6)));
    assert!(!outbox.push(frame(5)));
    assert_eq!(outbox.take().await.unwrap().len(), 1);
    assert!(!outbox.push(frame(5)), "still being written");
    assert!(outbox.push(frame(4)));
    assert_eq!(outbox.take().await.unwrap().len(), 1);
    assert!(outbox.push(frame(5)));
}

#[tokio::test]
async fn messages_are_counted_too_and_one_of_any_size_fits_into_an_empty_outbox() {
    let outbox = Outbox::new(10, 2, None);
    assert!(outbox.push(frame(50)));
    assert!(!outbox.push(frame(1)));
    outbox.take().await.unwrap();
    let outbox = Outbox::new(10, 2, None);
    assert!(outbox.push(frame(1)) && outbox.push(frame(1)) && !outbox.push(frame(1)));
}

#[tokio::test]
async fn nothing_comes_after_the_last_frame() {
    let outbox = Outbox::new(10, 2, Some(Bytes::from_static(b"first")));
    assert!(outbox.push(frame(1)));
    outbox.close(Bytes::from_static(b"last"));
    outbox.close(Bytes::from_static(b"again"));
    assert!(!outbox.push(frame(1)));
    let taken = outbox.take().await.unwrap();
    assert_eq!((taken.len(), &taken[2][..]), (3, &b"last"[..]));
    assert!(outbox.take().await.is_none());
}
