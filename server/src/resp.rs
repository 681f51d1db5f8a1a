//! The language of Redis clients: commands in, replies out.
//!
//! A command comes as an array of bulk strings (`*2\r\n$3\r\nGET\r\n$1\r\nk\r\n`), or *inline*: as words on
//! a line, for people with netcat. [`Parser`] takes bytes as they arrive, in whatever pieces, and keeps
//! only the command that is not whole yet: first the line that is not whole, then one flat buffer with all
//! arguments so far. [`Replies`] writes replies, in the RESP2 or RESP3 that the client chose by HELLO.
//!
//! The other end may be anything. No length is believed before its bytes are there, everything has a
//! limit, and what is wrong is a [`ProtocolError`], after which the rest of the stream means nothing: the
//! connection answers it and ends. A command that is only too large is understood well enough to step over
//! it: its bytes are thrown away as they come, it is refused by name ([`Excess`]), and the stream goes on.

mod command;
mod inline;
mod parser;
mod replies;
mod whole;

pub use self::command::{
    Command, Excess, MAX_ARGUMENT, MAX_ARGUMENTS, MAX_COMMAND, MAX_INLINE, ProtocolError,
};
pub use self::parser::Parser;
pub use self::replies::{Protocol, Replies};
