//! How a connection ends of which nothing comes: the last frame is written, and read.

use super::handshake::Stream;
use super::notices::Whose;
use super::shared::Shared;
use crate::wire::{Close, CloseReason, WireError};
use std::sync::atomic::Ordering;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Ends a connection on which something else than a Hello arrived.
pub(super) async fn reject<R, W>(
    shared: &Shared,
    stream: Stream<R, W>,
    whose: Whose,
    remote: &str,
    error: &WireError,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    shared.counters.refused.fetch_add(1, Ordering::Relaxed);
    shared.notices.warn(whose, remote, "garbage", &format_args!("refused a connection: {error}"));
    let close = Close { reason: CloseReason::Protocol, text: error.to_string() };
    finish(shared, stream, &close.encode()).await;
}

/// Writes the last frame, and waits a moment for the other side to have read it.
pub(super) async fn finish<R, W>(shared: &Shared, mut stream: Stream<R, W>, last: &bytes::Bytes)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let _ = timeout(shared.config.close_timeout, async {
        if stream.send(last).await.is_ok() && stream.writer.shutdown().await.is_ok() {
            stream.reader.drain().await;
        }
    })
    .await;
}
