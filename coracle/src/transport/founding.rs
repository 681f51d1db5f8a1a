//! The conversation before there is a cluster: a handshake, one question, one answer.

use super::Inbound;

use super::dial::{DialError, dial};
use super::farewell::{finish, reject};
use super::handshake::{ReadError, Stream};
use super::shared::Shared;
use crate::error::in_full;
use crate::wire::{Answer, Ask, Hello, Incoming, MAX_LIST, WireError, frame_limit};
use bytes::Bytes;
use coracle_core::Peer;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long an answer may take: twice as long as an attempt to found a cluster, which is what the longest waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks whoever is at an address.
pub(super) async fn ask(
    shared: &Shared,
    address: &str,
    hello: &Hello,
    ask: &Ask,
) -> Result<Answer, DialError> {
    let (mut stream, _) = dial(shared, address, hello).await?;
    stream.established(frame_limit(MAX_LIST));
    let answer = timeout(PATIENCE, async {
        stream.send(&ask.encode().to_bytes()).await?;
        stream.reader.receive().await
    });
    match answer.await {
        Err(_) => Err(DialError::HandshakeTimeout(PATIENCE)),
        Ok(Ok(Incoming::FoundingAnswer(answer))) => Ok(answer),
        Ok(Ok(Incoming::Close(close))) => Err(DialError::Cut(close.text)),
        Ok(Ok(_)) => Err(DialError::Protocol(WireError::Invalid("no answer to a question"))),
        Ok(Err(ReadError::Wire(error))) => Err(DialError::Protocol(error)),
        Ok(Err(error)) => Err(DialError::Cut(in_full(&error))),
    }
}

/// Serves one who may ask: hands the question to the node, and returns its answer. Meanwhile the
/// connection counts as a handshake, so there are few of them, and the oldest give way.
pub(super) async fn serve<R, W>(shared: &Shared, mut stream: Stream<R, W>, from: Peer, welcome: &Bytes)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let question = timeout(shared.config.handshake_timeout, async {
        stream.send(welcome).await?;
        stream.established(frame_limit(MAX_LIST));
        stream.reader.receive().await
    });
    let error = match question.await {
        Ok(Ok(Incoming::FoundingAsk(ask))) => {
            let (answer, answered) = oneshot::channel();
            shared.tell(Inbound::Founding { from, ask: Box::new(ask), answer }).await;
            // Whoever gets none asks again.
            if let Ok(Ok(answer)) = timeout(PATIENCE, answered).await {
                finish(shared, stream, &answer.encode().to_bytes()).await;
            }
            return;
        }
        Ok(Ok(_)) => WireError::Invalid("no question about a founding"),
        Ok(Err(ReadError::Wire(error))) => error,
        Ok(Err(ReadError::Io(_) | ReadError::End)) | Err(_) => return,
    };
    reject(shared, stream, &format!("node {}", from.id), &error).await;
}
