//! A byte stream to somebody: a TCP connection as it is, or one that is encrypted, or one in memory.
//!
//! The two halves of a plain one are the socket's own, and cost nothing; those of an encrypted one share its state. What is
//! above sees a reader and a writer.

use super::certificate::Shown;
use super::memory::{Direct, MemoryReader, MemoryStream, MemoryWriter};
use super::secure::Encrypted;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

/// A connection, and who is at its other end if that was shown by a certificate.
#[derive(Debug)]
pub(super) enum Socket {
    Plain(TcpStream),
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there never is one"))]
    Encrypted(Encrypted, Shown),
    Memory(MemoryStream),
}

/// What reads from it.
#[derive(Debug)]
pub(super) enum ReadHalf {
    Plain(OwnedReadHalf),
    Encrypted(tokio::io::ReadHalf<Encrypted>),
    Memory(MemoryReader),
}

/// What writes to it.
#[derive(Debug)]
pub(super) enum WriteHalf {
    Plain(OwnedWriteHalf),
    Encrypted(tokio::io::WriteHalf<Encrypted>),
    Memory(MemoryWriter),
}

impl WriteHalf {
    /// The way for whole messages, if there is one.
    pub(super) fn direct(&self) -> Option<Direct> {
        match self {
            WriteHalf::Memory(half) => Some(half.direct()),
            _ => None,
        }
    }
}

/// A connection that belongs to no runtime, on its way to another one.
#[derive(Debug)]
pub(super) enum Detached {
    Plain(std::net::TcpStream),
    Encrypted(Encrypted),
    Memory(MemoryStream),
}

/// Both halves.
pub(super) fn split(socket: Socket) -> (ReadHalf, WriteHalf, Option<Shown>) {
    match socket {
        Socket::Plain(stream) => {
            let (reader, writer) = stream.into_split();
            (ReadHalf::Plain(reader), WriteHalf::Plain(writer), None)
        }
        Socket::Encrypted(stream, name) => {
            let (reader, writer) = halves(stream);
            (reader, writer, Some(name))
        }
        Socket::Memory(MemoryStream { reader, writer }) => {
            (ReadHalf::Memory(reader), WriteHalf::Memory(writer), None)
        }
    }
}

fn halves(stream: Encrypted) -> (ReadHalf, WriteHalf) {
    let (reader, writer) = tokio::io::split(stream);
    (ReadHalf::Encrypted(reader), WriteHalf::Encrypted(writer))
}

/// The whole, free of the runtime that it was made on.
pub(super) fn detach(reader: ReadHalf, writer: WriteHalf) -> io::Result<Detached> {
    match (reader, writer) {
        (ReadHalf::Plain(reader), WriteHalf::Plain(writer)) => {
            let stream = reader.reunite(writer).map_err(io::Error::other)?;
            Ok(Detached::Plain(stream.into_std()?))
        }
        (ReadHalf::Encrypted(reader), WriteHalf::Encrypted(writer)) if reader.is_pair_of(&writer) => {
            let mut stream = reader.unsplit(writer);
            stream.detach()?;
            Ok(Detached::Encrypted(stream))
        }
        (ReadHalf::Memory(reader), WriteHalf::Memory(writer)) => {
            Ok(Detached::Memory(MemoryStream { reader, writer }))
        }
        _ => Err(io::Error::other("the halves of two connections")),
    }
}

/// Both halves, on the runtime that this is called in.
pub(super) fn attach(detached: Detached) -> io::Result<(ReadHalf, WriteHalf)> {
    match detached {
        Detached::Plain(stream) => {
            let (reader, writer) = TcpStream::from_std(stream)?.into_split();
            Ok((ReadHalf::Plain(reader), WriteHalf::Plain(writer)))
        }
        Detached::Encrypted(mut stream) => {
            stream.attach()?;
            Ok(halves(stream))
        }
        Detached::Memory(MemoryStream { reader, writer }) => {
            Ok((ReadHalf::Memory(reader), WriteHalf::Memory(writer)))
        }
    }
}

impl AsyncRead for ReadHalf {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            ReadHalf::Plain(half) => Pin::new(half).poll_read(context, buffer),
            ReadHalf::Encrypted(half) => Pin::new(half).poll_read(context, buffer),
            ReadHalf::Memory(half) => Pin::new(half).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for WriteHalf {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Plain(half) => Pin::new(half).poll_write(context, bytes),
            WriteHalf::Encrypted(half) => Pin::new(half).poll_write(context, bytes),
            WriteHalf::Memory(half) => Pin::new(half).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            WriteHalf::Plain(half) => Pin::new(half).poll_write_vectored(context, slices),
            WriteHalf::Encrypted(half) => Pin::new(half).poll_write_vectored(context, slices),
            WriteHalf::Memory(half) => Pin::new(half).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            WriteHalf::Plain(half) => half.is_write_vectored(),
            WriteHalf::Encrypted(half) => half.is_write_vectored(),
            WriteHalf::Memory(half) => half.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Plain(half) => Pin::new(half).poll_flush(context),
            WriteHalf::Encrypted(half) => Pin::new(half).poll_flush(context),
            WriteHalf::Memory(half) => Pin::new(half).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            WriteHalf::Plain(half) => Pin::new(half).poll_shutdown(context),
            WriteHalf::Encrypted(half) => Pin::new(half).poll_shutdown(context),
            WriteHalf::Memory(half) => Pin::new(half).poll_shutdown(context),
        }
    }
}
