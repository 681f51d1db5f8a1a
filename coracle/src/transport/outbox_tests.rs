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

/// Bulk is never in front of a heartbeat or an append, takes no room from them, and still gets its turn.
#[tokio::test]
async fn pieces_of_snapshots_leave_one_by_one_after_all_else() {
    let outbox = Outbox::new(10, 100, None);
    assert!(outbox.push_piece(frame(50)) && outbox.push_piece(frame(51)));
    assert!(!outbox.push_piece(frame(52)), "no more wait");
    assert!(outbox.push(frame(4)) && outbox.push(frame(6)) && !outbox.push(frame(1)));
    let lengths = |taken: Option<std::collections::VecDeque<Bytes>>| -> Vec<usize> {
        taken.unwrap().iter().map(Bytes::len).collect()
    };
    assert_eq!(lengths(outbox.take().await), [4, 6, 50]);
    assert!(!outbox.push(frame(1)), "what was taken still counts, the piece or not");
    assert_eq!(lengths(outbox.take().await), [51]);
    assert!(outbox.push_piece(frame(53)));
    outbox.close(Bytes::from_static(b"last"));
    assert_eq!(lengths(outbox.take().await), [4], "nothing comes after the last frame");
    assert!(outbox.take().await.is_none() && !outbox.push_piece(frame(1)));
}
