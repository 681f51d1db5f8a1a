//! A store's files, as somebody sees them who knows nothing of them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// How often a copy is begun again, because a file went away meanwhile.
const ATTEMPTS: u32 = 20;

/// Removes a directory, if it is there.
pub(super) fn remove(dir: &Path) {
    // What is left over costs space below a directory that is the caller's.
    let _ = fs::remove_dir_all(dir);
}

/// Copies a directory that may be in use: a store may make and remove files of its own accord.
pub(super) fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for _ in 0..ATTEMPTS {
        remove(to);
        match copy_all(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => return result,
        }
    }
    Err(io::Error::other("its files come and go too fast to copy them"))
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for item in fs::read_dir(from)? {
        let item = item?;
        let target = to.join(item.file_name());
        if item.file_type()?.is_dir() {
            copy_all(&item.path(), &target)?;
        } else {
            fs::copy(item.path(), target)?;
        }
    }
    Ok(())
}

/// All files below a directory, sorted.
pub(super) fn list(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for item in fs::read_dir(dir)? {
        let item = item?;
        if item.file_type()?.is_dir() {
            files.extend(list(&item.path())?);
        } else {
            files.push(item.path());
        }
    }
    files.sort();
    Ok(files)
}

/// Flips one bit of each place where the bytes lie in the file. Returns how many there were.
pub(super) fn flip(file: &Path, bytes: &[u8]) -> io::Result<usize> {
    let mut contents = fs::read(file)?;
    let mut places = Vec::new();
    let mut at = 0;
    while let Some(found) = find(&contents[at..], bytes) {
        places.push(at + found);
        at += found + bytes.len();
    }
    for place in &places {
        contents[place + bytes.len() / 2] ^= 0x10;
    }
    if !places.is_empty() {
        fs::write(file, contents)?;
    }
    Ok(places.len())
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let at = from + haystack[from..].iter().position(|byte| *byte == needle[0])?;
        if haystack[at..].starts_with(needle) {
            return Some(at);
        }
        from = at + 1;
    }
}
