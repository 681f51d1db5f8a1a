//! The conversation of nodes that have no cluster in common yet: a handshake, one question, one answer.

use super::{Inbound, Newcomer};

use super::dial::{DialError, dial};
use super::farewell::{finish, reject};
use super::handshake::{ReadError, Stream};
use super::pipe::FREE;
use super::shared::Shared;
use crate::error::in_full;
use crate::wire::{Answer, Ask, Facts, Hello, Incoming, MAX_LIST, Step, WireError, frame_limit};
use bytes::Bytes;
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
pub(super) async fn serve<R, W>(shared: &Shared, mut stream: Stream<R, W>, facts: &Facts, welcome: &Bytes)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let (from, has_cluster) = (facts.from, facts.cluster.is_some());
    // What a large question takes of what strangers may have, until it is answered.
    let mut _share = None;
    let question = timeout(shared.config.handshake_timeout, async {
        stream.send(welcome).await?;
        stream.established(frame_limit(MAX_LIST));
        loop {
            if let Some((incoming, _)) = stream.reader.buffered()? {
                return Ok(incoming);
            }
            if _share.is_none() && stream.reader.begun() > FREE {
                _share = shared.unfinished(stream.reader.begun() - FREE).await;
            }
            stream.reader.fill().await?;
        }
    });
    let error = match question.await {
        Ok(Ok(Incoming::FoundingAsk(ask))) => {
            let (answer, answered) = oneshot::channel();
            let told = match ask {
                Ask { step: Step::Join, list, token, .. } => {
                    let authenticated = stream.certificate.is_some();
                    let newcomer = Box::new(Newcomer { from, list, token, authenticated, has_cluster });
                    Inbound::Newcomer { newcomer, answer }
                }
                ask => Inbound::Founding { from, ask: Box::new(ask), answer },
            };
            shared.tell(told).await;
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
    reject(shared, stream, shared.whose(from.id), &format!("node {}", from.id), &error).await;
}
