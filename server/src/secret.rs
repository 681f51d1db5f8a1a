//! What nobody but its owner is to see: a password, a join token.
//!
//! It shows itself in no message, is compared in a time that tells nothing, and is overwritten in memory when it is done
//! with. Secrets come from files and the environment: the words of a command line can be seen by everybody on the computer.

use std::convert::Infallible;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::str::FromStr;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The longest secret that is read from a file, in bytes: a wrong file is told, and not read to its end.
const MAX_SECRET: u64 = 4096;

/// A secret.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// The secret with these bytes.
    pub fn new(bytes: &[u8]) -> Secret {
        Secret(Zeroizing::new(bytes.to_vec()))
    }

    /// What it is, for whoever has to compute with it or to send it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// What a file holds, without the end of its line.
    pub fn from_file(path: &Path) -> Result<Secret, String> {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = File::open(path).and_then(|file| file.take(MAX_SECRET + 1).read_to_end(&mut bytes));
        read.map_err(|error| format!("{}: {error}", path.display()))?;
        let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line.len() as u64 {
            0 => Err(format!("{}: there is no secret in it", path.display())),
            1..=MAX_SECRET => Ok(Secret::new(line)),
            _ => Err(format!("{}: it is over {MAX_SECRET} bytes, which no secret is", path.display())),
        }
    }

    /// What a variable of the environment holds, if it is there and not empty.
    pub fn from_environment(name: &str) -> Option<Secret> {
        use std::os::unix::ffi::OsStringExt;
        let value = Zeroizing::new(std::env::var_os(name)?.into_vec());
        (!value.is_empty()).then_some(Secret(value))
    }
}

impl FromStr for Secret {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Secret, Infallible> {
        Ok(Secret::new(text.as_bytes()))
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Secret) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(hidden)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_secret_is_a_line_of_a_file_and_shows_itself_to_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let read = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            Secret::from_file(&path)
        };
        for bytes in [&b"open sesame"[..], b"open sesame\n", b"open sesame\r\n"] {
            assert_eq!(read(bytes), Ok(Secret::new(b"open sesame")));
        }
        assert_ne!(read(b"open sesame \n").unwrap(), Secret::new(b"open sesame"));
        assert!(read(b"\n").unwrap_err().contains("no secret"));
        assert!(read(&[b'x'; 5000]).unwrap_err().contains("over 4096 bytes"));
        assert!(Secret::from_file(&dir.path().join("none")).unwrap_err().contains("none"));
        assert_eq!(format!("{:?}", Some(Secret::new(b"sesame"))), "Some((hidden))");
    }
}
