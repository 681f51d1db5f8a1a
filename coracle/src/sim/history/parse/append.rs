//! A key-value store, one event a line, each a map in Clojure's notation.
//!
//! `{:process P, :type :invoke, :f :get, :key "K", :value nil}`; the type is `:invoke`, `:ok`, `:fail` (it had
//! no effect) or `:info` (nobody knows), the function `:get`, `:put` or `:append`. The order of the entries
//! does not matter, and further ones are passed over. Keys and values are strings, or numbers and keywords,
//! which stand for their own text. Lines whose process is not a number are noise, as are empty ones and
//! comments (`;`); any other line is an error, since a line lost is a verdict lost.

use bytes::Bytes;

use super::super::kv::{Command, Input, Output};
use super::super::operation::History;
use super::{Event, ParseError, Recorder};

/// Whether a line is of this format.
pub(super) fn is_line(line: &str) -> bool {
    line.trim_start().starts_with('{') && line.contains(":process")
}

/// Reads the whole text.
pub(super) fn parse(text: &str) -> Result<History<Input, Output>, ParseError> {
    let mut recorder = Recorder::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with(';') {
            event(line, &mut recorder).map_err(|problem| ParseError { line: Some(number + 1), problem })?;
        }
    }
    Ok(recorder.history)
}

/// A word or string of the notation.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Nil,
    Text(String),
}

impl Token {
    fn text(&self) -> Option<&str> {
        match self {
            Token::Nil => None,
            Token::Text(text) => Some(text),
        }
    }
}

fn event(line: &str, recorder: &mut Recorder<Input, Output>) -> Result<(), String> {
    let entries = map(line)?;
    let entry = |name: &str| {
        let found = entries.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        found.ok_or_else(|| format!("there is no {name}"))
    };
    let Ok(process) = entry(":process")?.text().unwrap_or_default().parse() else { return Ok(()) };
    let kind = entry(":type")?.text().unwrap_or_default();
    let function = entry(":f")?.text().unwrap_or_default();
    let key = entry(":key")?.text().ok_or("the key is nil")?;
    let value = || Ok::<_, String>(entry(":value")?.text().map(|text| Bytes::from(text.to_owned())));
    let content = || value()?.ok_or_else(|| "the value is nil".to_string());

    let event = match (kind, function) {
        (":info" | ":fail", ":get") => Event::Refused(Input::new(key.to_owned(), Command::Get)),
        (":info", _) => Event::Unknown,
        _ => {
            let command = match function {
                ":get" => Command::Get,
                ":put" => Command::Put(content()?),
                ":append" => Command::Append(content()?),
                other => return Err(format!("{other:?} is no operation of a store")),
            };
            let get = command == Command::Get;
            let input = Input::new(key.to_owned(), command);
            match kind {
                ":invoke" => Event::Invoke(input),
                ":ok" if get => Event::Ok(input, Output::Value(Some(value()?.unwrap_or_default()))),
                ":ok" => Event::Ok(input, Output::Done),
                ":fail" => Event::Refused(input),
                other => return Err(format!("{other:?} is no type of event")),
            }
        }
    };
    recorder.record(process, event)
}

/// The entries of a map whose keys are words and whose values are words or strings.
fn map(line: &str) -> Result<Vec<(String, Token)>, String> {
    let inner = line.strip_prefix('{').and_then(|line| line.strip_suffix('}'));
    let mut rest = inner.ok_or("not a map in braces")?;
    let mut entries = Vec::new();
    while let Some((name, after)) = token(rest)? {
        let (value, after) = token(after)?.ok_or("an entry has no value")?;
        let Token::Text(name) = name else { return Err("an entry is called nil".to_string()) };
        entries.push((name, value));
        rest = after;
    }
    Ok(entries)
}

/// The next token and what follows it, or `None` at the end. Commas are blanks.
fn token(text: &str) -> Result<Option<(Token, &str)>, String> {
    let blank = |c: char| c.is_whitespace() || c == ',';
    let text = text.trim_start_matches(blank);
    if text.is_empty() {
        return Ok(None);
    }
    let Some(quoted) = text.strip_prefix('"') else {
        let (word, rest) = text.split_at(text.find(|c| blank(c) || c == '"').unwrap_or(text.len()));
        let token = if word == "nil" { Token::Nil } else { Token::Text(word.to_string()) };
        return Ok(Some((token, rest)));
    };
    let mut string = String::new();
    let mut characters = quoted.chars();
    while let Some(c) = characters.next() {
        match c {
            '"' => return Ok(Some((Token::Text(string), characters.as_str()))),
            '\\' => string.push(match characters.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some('t') => '\t',
                Some(c @ ('"' | '\\')) => c,
                _ => return Err("a backslash that escapes nothing known".to_string()),
            }),
            c => string.push(c),
        }
    }
    Err("a string without its end".to_string())
}
