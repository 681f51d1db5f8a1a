//! Replies, written in the dialect that the client chose.

/// The two dialects of replies.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Protocol {
    /// What a connection starts with.
    #[default]
    Resp2,
    /// What HELLO 3 asks for: it has maps and a null of its own.
    Resp3,
}

/// Replies on their way out, encoded.
#[derive(Default, Debug)]
pub struct Replies {
    /// The bytes to send.
    pub bytes: Vec<u8>,
    /// How to encode from here on.
    pub protocol: Protocol,
}

impl Replies {
    /// A short text without line ends, such as `OK`.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text);
    }

    /// An error. The first word is its kind. Line ends become spaces.
    pub fn error(&mut self, text: &str) {
        self.line(b'-', text);
    }

    /// A number.
    pub fn number(&mut self, number: i64) {
        self.line(b':', &number.to_string());
    }

    /// A string of any bytes.
    pub fn bulk(&mut self, string: &[u8]) {
        self.pieces(&[string]);
    }

    /// A text for people. RESP2 knows no such kind.
    pub fn verbatim(&mut self, text: &str) {
        match self.protocol {
            Protocol::Resp2 => self.bulk(text.as_bytes()),
            Protocol::Resp3 => {
                self.line(b'=', &(text.len() + 4).to_string());
                self.bytes.extend_from_slice(b"txt:");
                self.bytes.extend_from_slice(text.as_bytes());
                self.bytes.extend_from_slice(b"\r\n");
            }
        }
    }

    /// A string that stands in several pieces.
    pub fn pieces<P: AsRef<[u8]>>(&mut self, pieces: &[P]) {
        let length: usize = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        self.line(b'$', &length.to_string());
        // So that what it takes is what it says, and not up to twice as much.
        self.bytes.reserve_exact(length + 2);
        pieces.iter().for_each(|piece| self.bytes.extend_from_slice(piece.as_ref()));
        self.bytes.extend_from_slice(b"\r\n");
    }

    /// No value.
    pub fn null(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"$-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// No array.
    pub fn no_array(&mut self) {
        self.bytes.extend_from_slice(match self.protocol {
            Protocol::Resp2 => b"*-1\r\n",
            Protocol::Resp3 => b"_\r\n",
        });
    }

    /// A string, or none.
    pub fn value(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.bulk(value),
            None => self.null(),
        }
    }

    /// The head of an array: so many replies follow as its items.
    pub fn array(&mut self, items: usize) {
        self.line(b'*', &items.to_string());
    }

    /// The head of a map: so many pairs of replies follow. RESP2 has no maps and gets a flat array.
    pub fn map(&mut self, pairs: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(pairs * 2),
            Protocol::Resp3 => self.line(b'%', &pairs.to_string()),
        }
    }

    /// The head of a set: so many replies follow as its items. RESP2 has none and gets an array.
    pub fn set(&mut self, items: usize) {
        match self.protocol {
            Protocol::Resp2 => self.array(items),
            Protocol::Resp3 => self.line(b'~', &items.to_string()),
        }
    }

    fn line(&mut self, kind: u8, text: &str) {
        self.bytes.push(kind);
        self.bytes.extend(text.bytes().map(|byte| if matches!(byte, b'\r' | b'\n') { b' ' } else { byte }));
        self.bytes.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_differ_between_the_dialects() {
        let mut replies = Replies::default();
        for protocol in [Protocol::Resp2, Protocol::Resp3] {
            replies.protocol = protocol;
            replies.null();
            replies.map(1);
            replies.simple("k");
            replies.number(-1);
            replies.error("ERR a\r\nb");
            replies.bulk(b"\r\n");
            replies.verbatim("v");
            replies.set(0);
        }
        assert_eq!(
            String::from_utf8(replies.bytes).unwrap(),
            "$-1\r\n*2\r\n+k\r\n:-1\r\n-ERR a  b\r\n$2\r\n\r\n\r\n$1\r\nv\r\n*0\r\n_\r\n%1\r\n+k\r\n:-1\r\n-ERR a  b\r\n$2\r\n\r\n\r\n=5\r\ntxt:v\r\n~0\r\n"
        );
    }
}
