//! Turns a stream of bytes into commands.

use super::command::{Command, Excess, MAX_ARGUMENT, MAX_ARGUMENTS, MAX_COMMAND, MAX_INLINE, ProtocolError};
use super::{inline, whole};
use bytes::Bytes;
use std::borrow::Cow;

/// The most arguments that may be announced, the same number as redis has. What has more is not stepped
/// over.
const MAX_ANNOUNCED: usize = 1 << 20;

/// The most bytes of one command that are stepped over: redis's own limit for one value.
const MAX_SKIPPED: usize = 512 << 20;

/// The longest line that announces a count or a length, in bytes: 20 digits, a type and an end, and air.
const MAX_NUMBER_LINE: usize = 32;

/// How many bytes of a command are little.
const LITTLE: usize = 64 << 10;

/// Turns a stream of bytes into commands. See the [module](super).
#[derive(Default, Debug)]
pub struct Parser {
    expect: Expect,
    /// The line that is not whole yet.
    line: Vec<u8>,
    /// The arguments that came so far, and of the one that is not whole, what came of it.
    bytes: Vec<u8>,
    ends: Vec<u32>,
    /// How many more arguments were announced.
    missing: usize,
    /// Why the command is stepped over.
    excess: Option<Excess>,
    /// How many bytes its arguments have announced so far, kept or not.
    announced: usize,
}

/// What comes next in the stream.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
enum Expect {
    /// A new command.
    #[default]
    Command,
    /// `$`, the length of an argument, and the end of the line.
    Length,
    /// So many more bytes of an argument.
    Argument(usize),
    /// The end of line after an argument, of which so many bytes came.
    End(u8),
}

/// What came of a look at the input.
enum Step {
    /// Some of it was taken.
    Done,
    /// A command is whole.
    Whole(Command),
    /// There is too little of it.
    Short,
}

impl Parser {
    /// A parser at the start of a stream.
    pub fn new() -> Parser {
        Parser::default()
    }

    /// Takes bytes from the front of `input` until a command is whole or nothing is left. After an error
    /// the parser is not to be used again.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Command>, ProtocolError> {
        if !self.started()
            && let Some(command) = whole::take(input)
        {
            return Ok(Some(command));
        }
        while let Some(&first) = self.line.first().or(input.first()) {
            let step = match self.expect {
                Expect::Command if first == b'*' => self.count(input)?,
                Expect::Command => self.inline(first, input)?,
                Expect::Length => self.length(first, input)?,
                Expect::Argument(left) => self.argument(left, input),
                Expect::End(came) => self.end(came, first, input)?,
            };
            match step {
                Step::Done => {}
                Step::Whole(command) => return Ok(Some(command)),
                Step::Short => break,
            }
        }
        Ok(None)
    }

    /// The first line of a command: how many arguments it has.
    fn count(&mut self, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        let Some(line) = self.line(input, MAX_NUMBER_LINE, ProtocolError::CountLine)? else {
            return Ok(Step::Short);
        };
        let count = digits(&line[1..]).ok_or(ProtocolError::Count)?;
        if count > MAX_ANNOUNCED as i64 {
            return Err(ProtocolError::Count);
        }
        // As in redis, an empty array is no command at all.
        if count > 0 {
            self.announced = 0;
            self.excess = (count > MAX_ARGUMENTS as i64).then_some(Excess::Count);
            self.missing = count as usize;
            self.expect = Expect::Length;
        }
        Ok(Step::Done)
    }

    /// A command on one line, as a person types it.
    fn inline(&mut self, first: u8, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        if !inline::starts(first) {
            return Err(ProtocolError::Type { expected: "*", got: first });
        }
        let Some(line) = self.line(input, MAX_INLINE, ProtocolError::InlineLine)? else {
            return Ok(Step::Short);
        };
        Ok(inline::words(&line)?.map_or(Step::Done, Step::Whole))
    }

    /// The line before an argument: its length.
    fn length(&mut self, first: u8, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        if first != b'$' {
            return Err(ProtocolError::Type { expected: "$", got: first });
        }
        let Some(line) = self.line(input, MAX_NUMBER_LINE, ProtocolError::LengthLine)? else {
            return Ok(Step::Short);
        };
        let length = digits(&line[1..]).ok_or(ProtocolError::Length)?;
        if !(0..=(MAX_SKIPPED - self.announced) as i64).contains(&length) {
            return Err(ProtocolError::Length);
        }
        self.announced += length as usize;
        let excess = if length > MAX_ARGUMENT as i64 {
            Some(Excess::Argument)
        } else if self.announced > MAX_COMMAND {
            Some(Excess::Command)
        } else {
            None
        };
        if self.excess.is_none() && excess.is_some() {
            self.excess = excess;
            self.bytes = Vec::new();
            self.ends = Vec::new();
        }
        self.expect = if length == 0 { Expect::End(0) } else { Expect::Argument(length as usize) };
        Ok(Step::Done)
    }

    /// Bytes of an argument, of which so many are left.
    fn argument(&mut self, left: usize, input: &mut &[u8]) -> Step {
        let (now, later) = input.split_at(left.min(input.len()));
        if self.excess.is_none() {
            let Parser { bytes, .. } = self;
            if bytes.capacity() - bytes.len() < now.len() {
                // It doubles; one of megabytes takes little more than was announced.
                let all = bytes.capacity();
                let least = if all < LITTLE { all } else { all / 8 };
                bytes.reserve_exact(left.clamp(least, all).max(now.len()));
            }
            bytes.extend_from_slice(now);
        }
        *input = later;
        self.expect = if now.len() == left { Expect::End(0) } else { Expect::Argument(left - now.len()) };
        Step::Done
    }

    /// The end of line after an argument, of which so many bytes came.
    fn end(&mut self, came: u8, first: u8, input: &mut &[u8]) -> Result<Step, ProtocolError> {
        if first != b"\r\n"[usize::from(came)] {
            return Err(ProtocolError::End);
        }
        *input = &input[1..];
        if came == 0 {
            self.expect = Expect::End(1);
            return Ok(Step::Done);
        }
        if self.excess.is_none() {
            self.ends.push(self.bytes.len() as u32);
        }
        self.missing -= 1;
        self.expect = Expect::Length;
        if self.missing > 0 {
            return Ok(Step::Done);
        }
        self.expect = Expect::Command;
        let bytes = Bytes::from(std::mem::take(&mut self.bytes));
        let (ends, excess) = (std::mem::take(&mut self.ends), self.excess.take());
        Ok(Step::Whole(Command { bytes, ends: ends.into(), excess }))
    }

    /// Keeps nothing of the command in progress, and of what comes of it. False if its length is not known, since it is
    /// one of a single line: that cannot be stepped over.
    #[must_use]
    pub fn step_over(&mut self) -> bool {
        let known = self.expect != Expect::Command;
        if known {
            (self.bytes, self.ends) = (Vec::new(), Vec::new());
            self.excess = Some(Excess::Memory);
        }
        known
    }

    /// Whether a command has begun and is not whole.
    pub fn started(&self) -> bool {
        self.expect != Expect::Command || !self.line.is_empty()
    }

    /// The memory that the command in progress holds, in bytes.
    pub fn held(&self) -> usize {
        self.line.capacity() + self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// The next line, without its end, if all of it is there.
    fn line<'a>(
        &mut self,
        input: &mut &'a [u8],
        limit: usize,
        over: ProtocolError,
    ) -> Result<Option<Cow<'a, [u8]>>, ProtocolError> {
        let end = input.iter().take(limit).position(|&byte| byte == b'\n');
        let (part, rest) = input.split_at(end.unwrap_or(input.len()));
        if self.line.len() + part.len() > limit {
            return Err(over);
        }
        if end.is_none() {
            self.line.extend_from_slice(part);
            *input = rest;
            return Ok(None);
        }
        *input = &rest[1..];
        let mut line = if self.line.is_empty() {
            Cow::Borrowed(part)
        } else {
            let mut whole = std::mem::take(&mut self.line);
            whole.extend_from_slice(part);
            Cow::Owned(whole)
        };
        if line.last() == Some(&b'\r') {
            match &mut line {
                Cow::Borrowed(line) => *line = &line[..line.len() - 1],
                Cow::Owned(line) => drop(line.pop()),
            }
        }
        Ok(Some(line))
    }
}

/// A number of at most 18 digits, so that it always fits.
fn digits(text: &[u8]) -> Option<i64> {
    let (sign, digits) = match text {
        [b'-', digits @ ..] => (-1, digits),
        digits => (1, digits),
    };
    if digits.is_empty() || digits.len() > 18 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    Some(sign * digits.iter().fold(0, |number, digit| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use super::super::replies::Replies;
    use super::*;
    use proptest::prelude::*;

    /// All commands of a stream that comes in these pieces, and the error that ends it.
    fn parse(pieces: &[&[u8]]) -> (Vec<Command>, Option<ProtocolError>) {
        let (mut parser, mut commands) = (Parser::new(), Vec::new());
        for piece in pieces {
            let mut input = *piece;
            loop {
                match parser.next(&mut input) {
                    Ok(Some(command)) => commands.push(command),
                    Ok(None) => break,
                    Err(error) => return (commands, Some(error)),
                }
            }
            assert!(input.is_empty());
        }
        (commands, None)
    }

    fn words(stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
        let (commands, error) = parse(&[stream]);
        assert_eq!(error, None);
        commands.iter().map(|c| (0..c.len()).map(|i| c.argument(i).to_vec()).collect()).collect()
    }

    fn error(stream: &[u8]) -> String {
        parse(&[stream]).1.expect("an error").to_string()
    }

    fn encode(arguments: &[Vec<u8>]) -> Vec<u8> {
        let mut replies = Replies::default();
        replies.array(arguments.len());
        arguments.iter().for_each(|argument| replies.bulk(argument));
        replies.bytes
    }

    #[test]
    fn arrays_and_inline_commands_are_understood() {
        assert_eq!(words(b"*2\r\n$3\r\nGET\r\n$2\r\n\r\n\r\n"), [[b"GET".to_vec(), b"\r\n".to_vec()]]);
        assert_eq!(words(b"\r\n  \n*0\r\n*-1\r\nPING\n"), [[b"PING".to_vec()]], "nothing is not a command");
        assert_eq!(
            words(b"  SET \"a b\\x00\\n\\\"\" 'it\\'s \\n' \"\"\r\n"),
            [[b"SET".to_vec(), b"a b\0\n\"".to_vec(), b"it's \\n".to_vec(), b"".to_vec()]]
        );
    }

    #[test]
    fn malformed_streams_end_with_an_error() {
        assert_eq!(error(b"*1\r\n*1\r\n$4\r\nPING\r\n"), "Protocol error: expected '$', got '*'");
        assert_eq!(error(b"*1\r\n:1\r\n"), "Protocol error: expected '$', got ':'");
        assert_eq!(error(b"$4\r\nPING\r\n"), "Protocol error: expected '*', got '$'");
        assert_eq!(error(b"\x16\x03\x01"), "Protocol error: expected '*', got '\\x16'");
        assert_eq!(error(b"*x\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*9223372036854775808\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1048577\r\n"), "Protocol error: invalid multibulk length");
        assert_eq!(error(b"*1\r\n$-1\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$536870913\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(b"*1\r\n$99999999999999999999\r\n"), "Protocol error: invalid bulk length");
        assert_eq!(error(&[b'*'; 100]), "Protocol error: too big mbulk count string");
        assert_eq!(
            error(b"*1\r\n$0000000000000000000000000000000000001\r\n"),
            "Protocol error: too big bulk count string"
        );
        assert_eq!(error(&[b'x'; MAX_INLINE + 1]), "Protocol error: too big inline request");
        assert_eq!(error(b"*1\r\n$4\r\nPINGPONG"), "Protocol error: expected CRLF after a bulk string");
        assert_eq!(error(b"GET \"k\n"), "Protocol error: unbalanced quotes in request");
        assert_eq!(error(b"GET \"k\"x\n"), "Protocol error: unbalanced quotes in request");
        assert_eq!(error(b"POST / HTTP/1.1\r\n"), "Protocol error: this port does not speak HTTP");
    }

    #[test]
    fn the_arguments_of_a_command_together_have_a_limit() {
        let whole = vec![b'x'; MAX_ARGUMENT];
        let fits = MAX_COMMAND / MAX_ARGUMENT;
        assert_eq!(parse(&[&encode(&vec![whole.clone(); fits])]).0.len(), 1);
        let over = [encode(&vec![whole; fits + 1]), b"PING\n".to_vec()].concat();
        let (commands, error) = parse(&[&over]);
        assert_eq!((commands[0].excess(), commands[1].excess(), error), (Some(Excess::Command), None, None));
    }

    #[test]
    fn what_is_too_large_is_stepped_over_and_never_held() {
        let mut parser = Parser::new();
        let mut feed = |bytes: &[u8]| {
            let mut input = bytes;
            let command = parser.next(&mut input).unwrap();
            assert!(parser.held() < 256, "{} bytes", parser.held());
            command
        };
        let long = MAX_ARGUMENT + 1;
        assert_eq!(feed(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${long}\r\n").as_bytes()), None);
        for chunk in vec![b'x'; long].chunks(1000) {
            assert_eq!(feed(chunk), None);
        }
        let command = feed(b"\r\n").expect("the end of it");
        assert_eq!((command.excess(), command.len(), command.bytes()), (Some(Excess::Argument), 0, 0));
        assert_eq!(feed(format!("*{}\r\n", MAX_ARGUMENTS + 1).as_bytes()), None);
        for _ in 0..MAX_ARGUMENTS {
            assert_eq!(feed(b"$1\r\nk\r\n"), None);
        }
        assert_eq!(feed(b"$1\r\nk\r\n").expect("the end of it").excess(), Some(Excess::Count));
        assert_eq!(feed(b"PING\r\n").expect("the next command").argument(0), b"PING");
    }

    #[test]
    fn as_many_arguments_as_are_allowed_are_taken() {
        let (commands, error) = parse(&[&encode(&vec![b"k".to_vec(); MAX_ARGUMENTS])]);
        assert_eq!((commands[0].excess(), commands[0].len(), error), (None, MAX_ARGUMENTS, None));
    }

    #[test]
    fn what_has_no_room_is_stepped_over_wherever_that_turns_out() {
        let stream = encode(&[b"SET".to_vec(), b"k".to_vec(), vec![b'x'; 1000]]);
        for cut in 5..stream.len() {
            let mut parser = Parser::new();
            assert_eq!(parser.next(&mut &stream[..cut]), Ok(None));
            assert!(parser.step_over() && parser.held() < 64, "cut at {cut}");
            let rest = [&stream[cut..], b"PING\n"].concat();
            let mut input = &rest[..];
            assert_eq!(parser.next(&mut input).unwrap().unwrap().excess(), Some(Excess::Memory), "{cut}");
            assert_eq!(parser.next(&mut input).unwrap().unwrap().argument(0), b"PING");
        }
        let mut parser = Parser::new();
        assert_eq!(parser.next(&mut &b"PIN"[..]), Ok(None));
        assert!(!parser.step_over(), "nobody knows where it ends");
    }

    #[test]
    fn what_a_long_argument_takes_is_little_more_than_it_has() {
        for length in [100_000, (4 << 20) + 400_000, MAX_ARGUMENT - 3, MAX_ARGUMENT] {
            let mut parser = Parser::new();
            let head = format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${length}\r\n");
            assert_eq!(parser.next(&mut head.as_bytes()), Ok(None));
            let mut came = head.len();
            for chunk in vec![b'x'; length].chunks(64 << 10) {
                assert_eq!(parser.next(&mut &chunk[..]), Ok(None));
                came += chunk.len();
                assert!(parser.held() <= 2 * came.max(64 << 10), "{} of {came}", parser.held());
                assert!(parser.held() <= length + length / 8 + 100, "{} of {length}", parser.held());
            }
        }
    }

    /// However many there are: what was there before is copied a few times at most.
    #[test]
    fn short_arguments_make_it_grow_seldom() {
        let mut parser = Parser::new();
        let (mut capacity, mut grown) = (0, 0);
        assert_eq!(parser.next(&mut &b"*30000\r\n"[..]), Ok(None));
        for _ in 0..29_999 {
            assert_eq!(parser.next(&mut &b"$3\r\nabc\r\n"[..]), Ok(None));
            grown += usize::from(parser.bytes.capacity() != capacity);
            capacity = parser.bytes.capacity();
        }
        assert!(grown < 40, "{grown} times");
    }

    #[test]
    fn claimed_lengths_reserve_nothing() {
        let mut parser = Parser::new();
        let mut input = &b"*1048576\r\n$1048576\r\n"[..];
        assert_eq!(parser.next(&mut input), Ok(None));
        assert!(parser.started());
        assert!(parser.held() < 256, "{} bytes", parser.held());
    }

    /// Bytes that are likely to get far into the parser.
    fn noise() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            Just(b"*2\r\n".to_vec()),
            Just(b"$3\r\n".to_vec()),
            Just(b"abc\r\n".to_vec()),
            Just(b"*1048576\r\n".to_vec()),
            Just(b"$1048576\r\n".to_vec()),
            Just(b"\"".to_vec()),
            Just(b"\\x4".to_vec()),
            Just(b"\r\n".to_vec()),
            prop::collection::vec(any::<u8>(), 0..20),
        ];
        prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
    }

    fn commands() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let argument = prop::collection::vec(any::<u8>(), 0..30);
        prop::collection::vec(prop::collection::vec(argument, 1..5), 1..5)
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_held_stays_in_proportion(noise in noise(), cut in 1usize..50) {
            let mut parser = Parser::new();
            'stream: for mut piece in noise.chunks(cut) {
                loop {
                    match parser.next(&mut piece) {
                        Ok(Some(_)) => {}
                        Ok(None) => break,
                        Err(_) => break 'stream,
                    }
                }
                // A vector's capacity is at most twice its length, or its small first size; an argument
                // of no bytes costs 6 bytes of input and 4 of memory.
                prop_assert!(parser.held() <= 4 * noise.len() + 64);
            }
        }

        #[test]
        fn every_cut_of_a_stream_parses_the_same(commands in commands()) {
            let mut stream: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
            stream.extend_from_slice(b"set \"a\\x00b\" 'c'\r\nPING\n");
            let whole = parse(&[&stream]);
            prop_assert_eq!(whole.0.len(), commands.len() + 2);
            for (command, expected) in whole.0.iter().zip(&commands) {
                let got: Vec<_> = (0..command.len()).map(|i| command.argument(i).to_vec()).collect();
                prop_assert_eq!(&got, expected);
            }
            for cut in 1..stream.len() {
                let (front, back) = stream.split_at(cut);
                prop_assert_eq!(&parse(&[front, back]), &whole);
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(&parse(&bytes), &whole);
        }

        #[test]
        fn an_error_does_not_depend_on_the_cut(noise in noise()) {
            let bytes: Vec<&[u8]> = noise.chunks(1).collect();
            prop_assert_eq!(parse(&bytes), parse(&[&noise]));
        }
    }
}
