//! A command as it was understood, and why one may not be.

use bytes::{Buf, Bytes};
use smallvec::SmallVec;
use std::fmt;

/// The longest argument, in bytes: the longest value that the machine takes.
pub const MAX_ARGUMENT: usize = 8 << 20;

/// The most bytes of all arguments of a command together: the longest value with the longest key and whatever else. One MSET
/// becomes one entry of the log.
pub const MAX_COMMAND: usize = 10 << 20;

/// The most arguments of one command: its name and 32,768 keys, or 16,384 pairs. A command is carried out
/// in one go, so this bounds how long the keys are held up for everybody else.
pub const MAX_ARGUMENTS: usize = 1 + (32 << 10);

/// The longest inline command, in bytes, as in redis. People type these.
pub const MAX_INLINE: usize = 64 << 10;

/// Where arguments end. Those of most commands need no memory of their own for that.
pub(super) type Ends = SmallVec<[u32; 4]>;

/// A whole command: its arguments, the first being its name. There is always at least one, except where
/// the command was [too large](Command::excess).
#[derive(Clone, PartialEq, Eq)]
pub struct Command {
    pub(super) bytes: Bytes,
    /// Where each argument ends in `bytes`.
    pub(super) ends: Ends,
    /// Why nothing of it was kept.
    pub(super) excess: Option<Excess>,
}

/// Why a command was stepped over and not kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Excess {
    /// An argument is over [`MAX_ARGUMENT`].
    #[error("string exceeds maximum allowed size ({MAX_ARGUMENT} bytes)")]
    Argument,
    /// The arguments together are over [`MAX_COMMAND`].
    #[error("too big command: its arguments are over {MAX_COMMAND} bytes together; send several")]
    Command,
    /// There was no memory for it, which was said when it began: it has no reply.
    #[error("there was no memory for it")]
    Memory,
    /// There are more than [`MAX_ARGUMENTS`].
    #[error("too many arguments: at most {} in one command, its name included; send several", MAX_ARGUMENTS)]
    Count,
}

impl Command {
    /// Why the command was stepped over. It has no arguments then, not even its name.
    pub fn excess(&self) -> Option<Excess> {
        self.excess
    }

    /// How many arguments there are, the name included.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// An argument; 0 is the name. Empty where there is none.
    pub fn argument(&self, i: usize) -> &[u8] {
        &self.bytes[self.range(i)]
    }

    /// An argument as shared bytes.
    pub fn share(&self, i: usize) -> Bytes {
        self.bytes.slice(self.range(i))
    }

    /// The last argument, as all that is kept of the command: bytes that nobody shares are cheaper.
    pub fn take_last(&mut self) -> Bytes {
        let last = self.range(self.len().saturating_sub(1));
        self.ends.clear();
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.advance(last.start);
        bytes
    }

    /// Whether an argument is this word, in whatever case.
    pub fn is(&self, i: usize, word: &str) -> bool {
        self.argument(i).eq_ignore_ascii_case(word.as_bytes())
    }

    /// The bytes of all arguments together.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    fn range(&self, i: usize) -> std::ops::Range<usize> {
        let Some(&end) = self.ends.get(i) else { return 0..0 };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        start as usize..end as usize
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // These may carry a password or the join token.
        let secretive = ["auth", "hello", "coracle"].into_iter().any(|word| self.is(0, word));
        let shown = if secretive { 1 } else { self.len() };
        f.debug_list().entries((0..shown).map(|i| String::from_utf8_lossy(self.argument(i)))).finish()
    }
}

/// What is wrong with the stream. Nothing after it can be understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum ProtocolError {
    /// A line begins with a byte that begins neither an array nor a word; a nested array, for example.
    #[error("Protocol error: expected '{expected}', got '{}'", .got.escape_ascii())]
    Type {
        /// What may stand there.
        expected: &'static str,
        /// What does.
        got: u8,
    },
    /// The count of arguments is no number, or over what is stepped over.
    #[error("Protocol error: invalid multibulk length")]
    Count,
    /// The length of an argument is no number, or negative, or makes the command larger than what is stepped
    /// over.
    #[error("Protocol error: invalid bulk length")]
    Length,
    /// A line with a count goes on and on.
    #[error("Protocol error: too big mbulk count string")]
    CountLine,
    /// A line with a length goes on and on.
    #[error("Protocol error: too big bulk count string")]
    LengthLine,
    /// A line with an inline command is over [`MAX_INLINE`].
    #[error("Protocol error: too big inline request")]
    InlineLine,
    /// An inline command has a quote without its partner.
    #[error("Protocol error: unbalanced quotes in request")]
    Quotes,
    /// An argument is longer than announced.
    #[error("Protocol error: expected CRLF after a bulk string")]
    End,
    /// A browser was tricked into talking to this port.
    #[error("Protocol error: this port does not speak HTTP")]
    Http,
}
