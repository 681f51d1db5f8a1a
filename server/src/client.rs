//! A small blocking client, for the program's own commands and tests of whole processes.
//!
//! One request at a time, or a few at once; every wait has a limit. Users' programs have better clients.

use crate::resp::Replies;
use crate::secret::Secret;
use coracle::{BlockingStream, TlsDialer};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::OnceLock;
use std::time::Duration;

/// The deepest nesting of arrays in a reply: COMMAND has 3.
const MAX_DEPTH: usize = 8;

/// The longest line and the longest string of a reply, in bytes: our own server's longest value, and air.
const MAX_STRING: u64 = 16 << 20;

/// A reply.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Value {
    /// A short text, such as `OK`.
    Simple(String),
    /// An error; its first word is its kind.
    Error(String),
    /// A number.
    Number(i64),
    /// A string of any bytes.
    Bulk(Vec<u8>),
    /// No value.
    Null,
    /// Several.
    Array(Vec<Value>),
}

/// How long connecting may take: a host that is gone answers nothing, and there may be others to ask.
const CONNECT: Duration = Duration::from_secs(3);

/// What connections of this process are, if not plain.
static ENCRYPTED: OnceLock<Encryption> = OnceLock::new();

struct Encryption {
    /// A plain one is made to a server that takes no encrypted one.
    or_plain: bool,
    dialer: Box<dyn Fn() -> TlsDialer + Send + Sync>,
}

/// Has every connection that this process makes from now on be encrypted, by what this returns then. `or_plain`: a plain one is
/// made to a server that takes no encrypted one; never to one that failed verification. Only the first call counts.
pub fn encrypt(or_plain: bool, dialer: impl Fn() -> TlsDialer + Send + Sync + 'static) {
    let _ = ENCRYPTED.set(Encryption { or_plain, dialer: Box::new(dialer) });
}

/// As whom this process introduces itself on each connection, if it does.
static LOGIN: OnceLock<(String, Secret)> = OnceLock::new();

/// The join token that this process shows on each connection, if it has one.
static TOKEN: OnceLock<Secret> = OnceLock::new();

/// Has every connection that this process makes from now on be this user's. Only the first call counts.
pub fn log_in(user: &str, password: &Secret) {
    let _ = LOGIN.set((user.to_owned(), password.clone()));
}

/// Has every connection that this process makes from now on show this join token. Only the first call counts.
pub fn show_token(token: &Secret) {
    let _ = TOKEN.set(token.clone());
}

/// As whom this process introduces itself.
pub(crate) fn login() -> Option<&'static (String, Secret)> {
    LOGIN.get()
}

/// What makes its connections encrypted ones, if they are to be.
pub(crate) fn dialer() -> Option<TlsDialer> {
    ENCRYPTED.get().map(|encryption| (encryption.dialer)())
}

/// The words with which a command shows the join token to nodes that want it with each one: those that know no
/// `CORACLE TOKEN`.
pub(crate) fn token_words() -> Vec<&'static [u8]> {
    TOKEN.get().map_or_else(Vec::new, |token| vec![b"TOKEN", token.expose()])
}

/// A server answered, and does not take this process for whom it says that it is.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct NotKnown(pub(crate) String);

/// Whether trying again is in vain, since the server said who may come in.
pub(crate) fn is_not_known(error: &io::Error) -> bool {
    matches!(error.get_ref(), Some(inner) if inner.is::<NotKnown>())
}

/// What to say of a server that could not be asked.
pub(crate) fn unasked(to: &str, error: &io::Error) -> String {
    if is_not_known(error) { format!("{to}: {error}") } else { format!("{to} does not answer: {error}") }
}

/// The bytes to and from a server.
#[derive(Debug)]
enum Stream {
    Plain(TcpStream),
    Encrypted(BlockingStream),
}

impl Stream {
    fn to(address: &SocketAddr, limit: Duration) -> io::Result<Stream> {
        let stream = plain(address, limit)?;
        let Some(Encryption { or_plain, dialer }) = ENCRYPTED.get() else { return Ok(Stream::Plain(stream)) };
        match dialer().connect(stream) {
            Ok((stream, _)) => Ok(Stream::Encrypted(stream)),
            Err(error) if error.kind() == io::ErrorKind::InvalidData && *or_plain => {
                plain(address, limit).map(Stream::Plain)
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err(io::Error::other("it takes no encrypted connection"))
            }
            Err(error) => Err(error),
        }
    }
}

fn plain(address: &SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(address, limit.min(CONNECT))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    Ok(stream)
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.read(buffer),
            Stream::Encrypted(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(stream) => stream.write(bytes),
            Stream::Encrypted(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(stream) => stream.flush(),
            Stream::Encrypted(stream) => stream.flush(),
        }
    }
}

/// A connection to a server.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<Stream>,
}

impl Client {
    /// Connects. The limit holds for each wait of later requests, and for connecting if it is not longer than what that takes
    /// where somebody is there.
    pub fn connect(address: &str, limit: Duration) -> io::Result<Client> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in address.to_socket_addrs()? {
            match Stream::to(&address, limit) {
                Ok(stream) => return Client { stream: BufReader::new(stream) }.introduced(),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Says whose connection it is, if this process is anybody's.
    fn introduced(mut self) -> io::Result<Client> {
        if let Some(token) = TOKEN.get() {
            // Where it is the wrong one, or none is known, what is asked for is refused, and says so.
            self.ask(&[b"CORACLE", b"TOKEN", token.expose()])?;
        }
        if let Some((user, password)) = LOGIN.get()
            && let Value::Error(error) = self.ask(&[b"AUTH", user.as_bytes(), password.expose()])?
        {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, NotKnown(error)));
        }
        Ok(self)
    }

    /// Sends one command and waits for its reply.
    pub fn ask(&mut self, command: &[&[u8]]) -> io::Result<Value> {
        self.send(&[command])?;
        self.receive()
    }

    /// Sends commands without waiting.
    pub fn send(&mut self, commands: &[&[&[u8]]]) -> io::Result<()> {
        let mut request = Replies::default();
        for command in commands {
            // A command has the form of an array of strings, as some replies have.
            request.array(command.len());
            command.iter().for_each(|argument| request.bulk(argument));
        }
        self.stream.get_mut().write_all(&request.bytes)?;
        self.stream.get_mut().flush()
    }

    /// Waits for the next reply.
    pub fn receive(&mut self) -> io::Result<Value> {
        self.value(0)
    }

    fn value(&mut self, depth: usize) -> io::Result<Value> {
        if depth > MAX_DEPTH {
            return Err(malformed("arrays are nested too deep"));
        }
        let line = self.line()?;
        let (kind, text) = line.split_at_checked(1).ok_or_else(|| malformed("an empty line"))?;
        let number = || text.parse::<i64>().map_err(|_| malformed("not a number"));
        Ok(match kind {
            "+" => Value::Simple(text.to_owned()),
            "-" => Value::Error(text.to_owned()),
            ":" => Value::Number(number()?),
            "_" => Value::Null,
            "$" => match u64::try_from(number()?) {
                Ok(length) => Value::Bulk(self.bulk(length)?),
                Err(_) => Value::Null,
            },
            "*" => match u64::try_from(number()?) {
                Ok(items) => {
                    Value::Array((0..items).map(|_| self.value(depth + 1)).collect::<Result<_, _>>()?)
                }
                Err(_) => Value::Null,
            },
            _ => return Err(malformed("a reply of a kind that is not known")),
        })
    }

    fn bulk(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > MAX_STRING {
            return Err(malformed("a string is too long"));
        }
        let mut bytes = Vec::new();
        self.stream.by_ref().take(length + 2).read_to_end(&mut bytes)?;
        match bytes.len() as u64 == length + 2 && bytes.ends_with(b"\r\n") {
            true => bytes.truncate(length as usize),
            false => return Err(io::ErrorKind::UnexpectedEof.into()),
        }
        Ok(bytes)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.stream.by_ref().take(MAX_STRING).read_until(b'\n', &mut line)?;
        if line.pop() != Some(b'\n') {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_err(|_| malformed("a line that is no text"))
    }
}

fn malformed(problem: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the server answered wrongly: {problem}"))
}
