//! What stands in the place of [`secure`](self) in a build without the feature `tls`: nothing is encrypted.

use super::certificate::{CertificateName, Insecure, Known, Shown};
use coracle_core::Mark;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// A certificate and whom it believes: there is none in a build without the feature `tls`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Tls {}

impl Tls {
    /// Whose certificate it is.
    pub fn name(&self) -> CertificateName {
        match *self {}
    }

    /// When the first of the certificates is not valid any more.
    pub fn expires(&self) -> SystemTime {
        match *self {}
    }

    pub(crate) fn mark(&self) -> Mark {
        match *self {}
    }

    pub(super) fn set_known(&self, _: Known) {
        match *self {}
    }

    pub(super) fn judge(&self, _: &Shown) -> Result<(), String> {
        match *self {}
    }

    pub(crate) fn is_required(&self) -> bool {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "as with the feature")]
    pub(super) async fn accept(&self, _: TcpStream) -> Result<(Encrypted, Shown), Insecure> {
        match *self {}
    }

    #[allow(clippy::unused_async, reason = "as with the feature")]
    pub(super) async fn connect(&self, _: TcpStream) -> Result<(Encrypted, Shown), Insecure> {
        match *self {}
    }
}

/// What an error of a connection means.
pub(super) fn problem(error: io::Error) -> Insecure {
    Insecure::Plain(error)
}

/// An encrypted connection: there never is one.
#[derive(Debug)]
pub(super) struct Encrypted(#[allow(dead_code, reason = "never made")] Tls);

fn unsupported() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

impl Encrypted {
    pub(super) fn detach(&mut self) -> io::Result<()> {
        Err(unsupported())
    }

    pub(super) fn attach(&mut self) -> io::Result<()> {
        Err(unsupported())
    }
}

impl AsyncRead for Encrypted {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(unsupported()))
    }
}

impl AsyncWrite for Encrypted {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(unsupported()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(unsupported()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(unsupported()))
    }
}
