//! The short way for a command that came whole, with nothing unusual about it: as nearly all do.
//!
//! Its arguments are copied once, into memory of just their size. Whatever else comes is left to the parser, wrong
//! input too.

use super::command::{Command, Ends, MAX_ARGUMENT, MAX_COMMAND};

/// How many arguments a command, and how many digits a number, has at most to be taken this way.
const USUAL: usize = 8;

/// Takes a command off the front of `input` if it is whole and usual.
pub(super) fn take(input: &mut &[u8]) -> Option<Command> {
    let (count, mut rest) = announced(input, b'*')?;
    let mut arguments = [&[][..]; USUAL];
    let arguments = arguments.get_mut(..count).filter(|arguments| !arguments.is_empty())?;
    for argument in arguments.iter_mut() {
        let (length, after) = announced(rest, b'$')?;
        (*argument, rest) = after.split_at_checked(length).filter(|_| length <= MAX_ARGUMENT)?;
        rest = rest.strip_prefix(b"\r\n")?;
    }
    let all = arguments.iter().map(|argument| argument.len()).sum();
    if all > MAX_COMMAND {
        return None;
    }
    let mut bytes = Vec::with_capacity(all);
    let mut ends = Ends::with_capacity(count);
    for argument in arguments {
        bytes.extend_from_slice(argument);
        ends.push(bytes.len() as u32);
    }
    *input = rest;
    Some(Command { bytes: bytes.into(), ends, excess: None })
}

/// A type, a number of a few digits and the end of the line at the front of `input`: the number, and what is after.
fn announced(input: &[u8], kind: u8) -> Option<(usize, &[u8])> {
    let (_, digits) = input.split_first().filter(|(first, _)| **first == kind)?;
    let mut number = 0;
    for (at, byte) in digits.iter().enumerate().take(USUAL) {
        match byte {
            b'0'..=b'9' => number = number * 10 + usize::from(byte - b'0'),
            b'\r' if at > 0 && digits.get(at + 1) == Some(&b'\n') => {
                return Some((number, &digits[at + 2..]));
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn what_is_not_whole_or_unusual_is_left_where_it_is() {
        let long = "x".repeat(MAX_ARGUMENT + 1);
        let over = format!("*1\r\n${}\r\n{long}\r\n", long.len());
        let many = format!("*9\r\n{}", "$1\r\nk\r\n".repeat(9));
        let others = [
            "",
            "*",
            "*1",
            "*1\r",
            "*1\r\n$1\r\nk",
            "*1\r\n$1\r\nk\r",
            "*2\r\n$1\r\nk\r\n",
            "*1\r\n$2\r\nk\r\n",
        ];
        let wrong = [
            "PING\r\n",
            "*0\r\n",
            "*\r\n",
            "*-1\r\n",
            "*1\n$1\nk\n",
            "*1\r\n$-1\r\n",
            "*1\r\n:1\r\n",
            "*1\r\n$1\r\nkk\r\n",
        ];
        for text in others.into_iter().chain(wrong).chain([&over[..], &many]) {
            let mut input = text.as_bytes();
            assert_eq!((take(&mut input), input), (None, text.as_bytes()));
        }
        let mut input = &b"*2\r\n$0\r\n\r\n$1\r\nk\r\n*1"[..];
        let command = take(&mut input).expect("a whole command");
        assert_eq!((command.len(), command.argument(0), command.argument(1)), (2, &b""[..], &b"k"[..]));
        assert_eq!(input, b"*1");
        let mut command = command;
        assert_eq!((command.take_last(), command.len()), (Bytes::from_static(b"k"), 0));
        assert_eq!(command.take_last(), Bytes::new());
    }
}
