//! `coracle log`, and the files that it looks at.

use super::CORACLE;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

pub(crate) fn log(words: &[&str], dir: &Path) -> Output {
    Command::new(CORACLE).arg("log").args(words).arg(dir).stdin(Stdio::null()).output().unwrap()
}

/// What `verify` says: exit code and text.
pub(crate) fn verify(dir: &Path) -> (i32, String) {
    said(&log(&["verify"], dir))
}

pub(crate) fn said(output: &Output) -> (i32, String) {
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), text.into_owned())
}

/// The lines of `dump --json`, and its exit code.
pub(crate) fn dump(dir: &Path) -> (i32, Vec<Value>) {
    let output = log(&["dump", "--json"], dir);
    (output.status.code().unwrap(), lines(&output))
}

pub(crate) fn lines(output: &Output) -> Vec<Value> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

pub(crate) fn of<'a>(lines: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    lines.iter().filter(move |line| line["type"] == kind)
}

/// Every byte of a directory, and of those in it.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for item in fs::read_dir(dir).unwrap() {
        let (path, name) = (item.as_ref().unwrap().path(), item.unwrap().file_name().into_string().unwrap());
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(file, bytes)| (format!("{name}/{file}"), bytes)));
        } else {
            all.insert(name, fs::read(path).unwrap());
        }
    }
    all
}

pub(crate) fn flip(dir: &Path, name: &str, at: usize, bit: u32) {
    let mut bytes = fs::read(dir.join(name)).unwrap();
    bytes[at] ^= 1 << bit;
    fs::write(dir.join(name), bytes).unwrap();
}
