//! Commands on one line, as a person types them.

use super::command::{Command, Ends, ProtocolError};

/// What an inline command may begin with: a word, a quote, space, or nothing.
pub(super) fn starts(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte.is_ascii_whitespace() || matches!(byte, b'"' | b'\'')
}

/// Splits an inline command into words. `"…"` holds escapes, `'…'` only `\'`; a closing quote must be
/// followed by a space.
pub(super) fn words(line: &[u8]) -> Result<Option<Command>, ProtocolError> {
    let (mut bytes, mut ends) = (Vec::new(), Ends::new());
    let mut rest = line.trim_ascii_start();
    while let Some(&first) = rest.first() {
        if matches!(first, b'"' | b'\'') {
            rest = quoted(&rest[1..], first, &mut bytes)?;
            if rest.first().is_some_and(|byte| !byte.is_ascii_whitespace()) {
                return Err(ProtocolError::Quotes);
            }
        } else {
            let end = rest.iter().position(u8::is_ascii_whitespace).unwrap_or(rest.len());
            bytes.extend_from_slice(&rest[..end]);
            rest = &rest[end..];
        }
        ends.push(bytes.len() as u32);
        rest = rest.trim_ascii_start();
    }
    if ends.is_empty() {
        return Ok(None);
    }
    let command = Command { bytes: bytes.into(), ends, excess: None };
    if command.is(0, "post") || command.is(0, "host:") {
        return Err(ProtocolError::Http);
    }
    Ok(Some(command))
}

/// Appends what stands before the closing quote to `out`, and returns what stands after it.
fn quoted<'a>(mut rest: &'a [u8], quote: u8, out: &mut Vec<u8>) -> Result<&'a [u8], ProtocolError> {
    loop {
        match rest {
            [] => return Err(ProtocolError::Quotes),
            [byte, after @ ..] if *byte == quote => return Ok(after),
            [b'\\', b'x', high, low, after @ ..]
                if quote == b'"' && high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: &u8| char::from(*byte).to_digit(16).expect("checked above") as u8;
                out.push(digit(high) << 4 | digit(low));
                rest = after;
            }
            [b'\\', escaped, after @ ..] if quote == b'"' => {
                out.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = after;
            }
            [b'\\', b'\'', after @ ..] => {
                out.push(b'\'');
                rest = after;
            }
            [byte, after @ ..] => {
                out.push(*byte);
                rest = after;
            }
        }
    }
}
