//! The configuration file of `serve`: the long names of its flags, with values.
//!
//! What the file and the environment say is added to the command line as flags, where that does not have them: so all three are
//! read, checked and explained in one place. A flag comes first, then the environment, then the file.

use super::Cli;
use super::serve::Serve;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Args, CommandFactory, Parser, Subcommand};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use toml_edit::{Document, Item, Value};

/// What is never shown, and never taken from a variable of its own name by these rules.
const SECRETS: [&str; 1] = ["join-token"];

/// The flag that names the file.
const FILE: &str = "config";

/// Look at a configuration file.
#[derive(Subcommand)]
pub(super) enum Configuration {
    /// Say whether a server would start with it
    Check {
        /// The file
        file: PathBuf,
    },
    /// Show every setting, and where its value comes from
    Show {
        /// The file
        file: PathBuf,
    },
}

impl Configuration {
    pub(super) fn run(self) -> Result<(), String> {
        match self {
            Configuration::Check { file } => {
                checked(&file)?;
                println!("{}: a server can start with it", file.display());
            }
            Configuration::Show { file } => print!("{}", shown(&file)?),
        }
        Ok(())
    }
}

/// The words of a command line, with what the environment and the file add.
#[derive(Clone, Debug)]
pub(super) struct Words {
    given: Vec<OsString>,
    added: Vec<Setting>,
    file: Option<PathBuf>,
}

/// Where a setting comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Source {
    /// A variable of the environment.
    Variable(String),
    /// The file, and the line there.
    Line(usize),
}

/// One flag with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Setting {
    name: String,
    /// What stands for it on a command line; nothing for a switch that is off.
    word: Option<OsString>,
    source: Source,
}

impl Words {
    /// All of them, as one command line.
    pub(super) fn all(&self) -> Vec<OsString> {
        let added = self.added.iter().filter_map(|setting| setting.word.clone());
        self.given.iter().cloned().chain(added).collect()
    }

    /// Reads the file again. What tells of how the log is filtered is taken over; what else has changed is told of, and so is what is
    /// wrong. False if there is no file.
    pub(super) fn read_again(&self, follow: impl Fn(Option<&str>) -> Result<(), String>) -> bool {
        let Some(file) = &self.file else { return false };
        match self.taken_over(follow) {
            Ok(others) => {
                let file = file.display();
                tracing::info!("SIGHUP: {file} was read again");
                for name in others {
                    tracing::warn!("SIGHUP: {name} in {file} takes effect when the server is started again");
                }
            }
            Err(problem) => tracing::warn!("SIGHUP: nothing was taken over: {problem}"),
        }
        true
    }

    /// The settings that have changed and cannot be taken over.
    fn taken_over(&self, follow: impl Fn(Option<&str>) -> Result<(), String>) -> Result<Vec<String>, String> {
        let again = complete(self.given.clone())?;
        let cli = Cli::try_parse_from(again.all()).map_err(|error| super::one_line(&error))?;
        if let super::Command::Serve(serve) = cli.command {
            follow(serve.filter())?;
        }
        Ok(self.differs(&again).into_iter().filter(|name| name != "log").collect())
    }

    /// The settings that are others there.
    fn differs(&self, other: &Words) -> Vec<String> {
        let lacks = |one: &Words, setting: &Setting| {
            !one.added.iter().any(|known| known.name == setting.name && known.word == setting.word)
        };
        let mut names: Vec<_> = self.added.iter().filter(|setting| lacks(other, setting)).collect();
        names.extend(other.added.iter().filter(|setting| lacks(self, setting)));
        let mut names: Vec<_> = names.into_iter().map(|setting| setting.name.clone()).collect();
        names.sort();
        names.dedup();
        names
    }
}

/// Adds to a command line of `serve` what the environment and its configuration file say.
pub(super) fn complete(given: impl IntoIterator<Item = OsString>) -> Result<Words, String> {
    complete_with(given, |name| std::env::var_os(name))
}

fn complete_with(
    given: impl IntoIterator<Item = OsString>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<Words, String> {
    let mut words = Words { given: given.into_iter().collect(), added: Vec::new(), file: None };
    if words.given.get(1).is_none_or(|word| word != "serve") {
        return Ok(words);
    }
    let flags = flags();
    let says = |name: &str| words.given.iter().skip(2).any(|word| is_flag(word, name));
    let mut added = Vec::new();
    for flag in flags.iter().filter(|flag| !says(name(flag)) && !SECRETS.contains(&name(flag))) {
        let of = format!("CORACLE_{}", name(flag).to_uppercase().replace('-', "_"));
        if let Some(value) = variable(&of).filter(|value| !value.is_empty()) {
            let word = match flag.get_action() {
                ArgAction::SetTrue => switch(flag, &value).map_err(|problem| format!("{of}: {problem}"))?,
                _ => Some(joined(flag, &value)),
            };
            added.push(Setting { name: name(flag).to_owned(), word, source: Source::Variable(of) });
        }
    }
    let file = match words.given.iter().position(|word| is_flag(word, FILE)) {
        Some(at) => value_of(&words.given, at),
        None => added.iter().find(|setting| setting.name == FILE).and_then(|setting| {
            setting.word.as_ref()?.to_str()?.split_once('=').map(|(_, file)| PathBuf::from(file))
        }),
    };
    if let Some(file) = file {
        let settings = read(&file, &flags)?;
        let new =
            |setting: &Setting| !says(&setting.name) && !added.iter().any(|known| known.name == setting.name);
        let new: Vec<_> = settings.into_iter().filter(new).collect();
        added.extend(new);
        words.file = Some(file);
    }
    words.added = added;
    Ok(words)
}

/// The flags of `serve` that have names.
fn flags() -> Vec<Arg> {
    let command = Serve::augment_args(clap::Command::new("serve"));
    command.get_arguments().filter(|flag| flag.get_long().is_some()).cloned().collect()
}

fn name(flag: &Arg) -> &str {
    flag.get_long().unwrap_or_default()
}

/// Whether a word names this flag, with its value or without.
fn is_flag(word: &OsString, name: &str) -> bool {
    let word = word.to_string_lossy();
    let Some(rest) = word.strip_prefix("--").and_then(|rest| rest.strip_prefix(name)) else { return false };
    rest.is_empty() || rest.starts_with('=')
}

/// The value of the flag that stands there. Where none follows, that is told when the whole is read.
fn value_of(words: &[OsString], at: usize) -> Option<PathBuf> {
    match words[at].to_string_lossy().split_once('=') {
        Some((_, value)) => Some(value.into()),
        None => words.get(at + 1).map(PathBuf::from),
    }
}

fn joined(flag: &Arg, value: &OsString) -> OsString {
    let mut word = OsString::from(format!("--{}=", name(flag)));
    word.push(value);
    word
}

/// A switch is on, off, or neither.
fn switch(flag: &Arg, value: &OsString) -> Result<Option<OsString>, String> {
    match value.to_str() {
        Some("true" | "1") => Ok(Some(format!("--{}", name(flag)).into())),
        Some("false" | "0") => Ok(None),
        _ => Err("write true or false".to_owned()),
    }
}

/// The settings of a file.
fn read(file: &Path, flags: &[Arg]) -> Result<Vec<Setting>, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
    let wrong = |at: usize, problem: &str| format!("{}, line {}: {problem}", file.display(), line(at));
    let document: Document<String> = text.parse().map_err(|error: toml_edit::TomlError| {
        wrong(error.span().map_or(0, |span| span.start), &error.message().replace('\n', " "))
    })?;
    let mut settings = Vec::new();
    for (key, item) in document.iter() {
        let spot = document.get_key_value(key).and_then(|(key, _)| key.span()).map_or(0, |span| span.start);
        let Some(flag) = flags.iter().find(|flag| name(flag) == key && key != FILE) else {
            return Err(wrong(spot, &format!("there is no setting '{key}'{}", nearest(key, flags))));
        };
        let word = word(flag, item).map_err(|problem| wrong(spot, &format!("{key}: {problem}")))?;
        settings.push(Setting { name: key.to_owned(), word, source: Source::Line(line(spot)) });
    }
    Ok(settings)
}

/// The setting that was meant, perhaps.
fn nearest(key: &str, flags: &[Arg]) -> String {
    let like = key.replace('_', "-");
    let meant =
        flags.iter().map(name).find(|name| *name == like || name.starts_with(&like) && !like.is_empty());
    meant.map_or(String::new(), |name| format!("; is '{name}' meant?"))
}

/// What stands for a value on a command line.
fn word(flag: &Arg, item: &Item) -> Result<Option<OsString>, String> {
    let Some(value) = item.as_value() else { return Err("write a value, and no table".to_owned()) };
    if matches!(flag.get_action(), ArgAction::SetTrue) {
        return match value.as_bool() {
            Some(on) => Ok(on.then(|| format!("--{}", name(flag)).into())),
            None => Err("write true or false".to_owned()),
        };
    }
    let text = match value {
        Value::Array(items) if flag.get_value_delimiter().is_some() => {
            items.iter().map(plain).collect::<Result<Vec<_>, _>>()?.join(",")
        }
        one => plain(one)?,
    };
    Ok(Some(joined(flag, &text.into())))
}

fn plain(value: &Value) -> Result<String, String> {
    match value {
        Value::String(text) => Ok(text.value().clone()),
        Value::Integer(number) => Ok(number.value().to_string()),
        _ => Err("write a text in quotes, or a whole number".to_owned()),
    }
}

/// The command line that a server with this file alone has.
fn of_file(file: &Path) -> Result<Words, String> {
    complete([OsString::from("coracle"), "serve".into(), "--config".into(), file.into()])
}

/// Whether a server can start with it.
fn checked(file: &Path) -> Result<(), String> {
    let wrong = |problem: String| format!("{}: {problem}", file.display());
    let words = of_file(file)?;
    let cli = Cli::try_parse_from(words.all()).map_err(|error| wrong(super::one_line(&error)))?;
    match cli.command {
        super::Command::Serve(serve) => serve.options().map(drop).map_err(wrong),
        _ => Ok(()),
    }
}

/// Every setting with its value, and where that comes from.
fn shown(file: &Path) -> Result<String, String> {
    let words = of_file(file)?;
    let matches = Cli::command()
        .try_get_matches_from(words.all())
        .map_err(|error| format!("{}: {}", file.display(), super::one_line(&error)))?;
    let Some(("serve", matches)) = matches.subcommand() else { return Ok(String::new()) };
    let mut text = String::new();
    for flag in flags().iter().filter(|flag| !flag.is_hide_set() && name(flag) != FILE) {
        let id = flag.get_id().as_str();
        let raw = matches.get_raw(id).map(|values| {
            values.map(|value| value.to_string_lossy().into_owned()).collect::<Vec<_>>().join(",")
        });
        let value = match raw {
            _ if SECRETS.contains(&name(flag)) && matches.contains_id(id) => "\"(hidden)\"".to_owned(),
            Some(value) if matches!(flag.get_action(), ArgAction::SetTrue) => value,
            Some(value) => toml_edit::value(value).to_string(),
            None => String::new(),
        };
        let source = words.added.iter().find(|setting| setting.name == name(flag));
        let from = match source.map(|setting| &setting.source) {
            Some(Source::Variable(of)) => of.clone(),
            Some(Source::Line(line)) => format!("line {line}"),
            None if matches.value_source(id) == Some(ValueSource::EnvVariable) => {
                "the environment".to_owned()
            }
            None => "default".to_owned(),
        };
        let set =
            if value.is_empty() { format!("# {}", name(flag)) } else { format!("{} = {value}", name(flag)) };
        text += &format!("{set:<48} # {from}\n");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    fn words(line: &str, text: &str, variables: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let file = file(text);
        let line = format!("coracle serve {line} --config {}", file.path().display());
        let variable = |name: &str| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
        };
        let words = complete_with(line.split_whitespace().map(OsString::from), variable)?;
        let added = words.all().into_iter().skip(words.given.len());
        Ok(added.map(|word| word.into_string().unwrap()).collect())
    }

    #[test]
    fn a_flag_comes_before_the_environment_and_that_before_the_file() {
        let text = "id = 1\ntimeout = \"3s\"\nheartbeat = \"20ms\"\njoin = [\"a:1\", \"b:2\"]\nrejoin = true\n\
                    library-clients = false # no\n";
        assert_eq!(
            words("--timeout 1s", text, &[("CORACLE_HEARTBEAT", "30ms")]).unwrap(),
            ["--heartbeat=30ms", "--id=1", "--join=a:1,b:2", "--rejoin"]
        );
        assert_eq!(
            words(
                "--timeout=1s --id=2",
                "",
                &[("CORACLE_REJOIN", "false"), ("CORACLE_LIBRARY_CLIENTS", "true")]
            )
            .unwrap(),
            ["--library-clients"]
        );
        assert!(
            words("", "", &[("CORACLE_REJOIN", "perhaps")])
                .unwrap_err()
                .starts_with("CORACLE_REJOIN: write true")
        );
        // A secret is read where secrets are, and stands in no command line.
        assert!(words("", "", &[("CORACLE_JOIN_TOKEN", "secret")]).unwrap().is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_by_its_line() {
        for (text, line, told) in [
            ("id = 1\nnonsense = 2\n", 2, "there is no setting 'nonsense'"),
            ("data_dir = \"d\"", 1, "is 'data-dir' meant?"),
            ("\n\nid = ", 3, ""),
            ("id = 1\nid = 2", 2, "duplicate"),
            ("id = 1.5", 1, "a whole number"),
            ("rejoin = \"yes\"", 1, "true or false"),
            ("[serve]\nid = 1", 1, "there is no setting 'serve'"),
            ("id = [1]", 1, "a text in quotes"),
            ("config = \"other\"", 1, "there is no setting 'config'"),
        ] {
            let problem = words("", text, &[]).unwrap_err();
            assert!(
                problem.contains(&format!(", line {line}: ")) && problem.contains(told),
                "{text:?}: {problem}"
            );
        }
        assert!(words("--id 1", "id = 2", &[]).unwrap().is_empty());
    }

    #[test]
    fn a_file_is_checked_as_a_server_would_and_shown_with_its_sources() {
        let right = file("id = 3\npeer-addr = \"a:1\"\nclient-addr = \"b:2\"\nstore = \"memory\"\n");
        checked(right.path()).unwrap();
        let text = shown(right.path()).unwrap();
        let line =
            |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_default().to_owned();
        assert!(line("id = ").ends_with("# line 1"), "{text}");
        assert!(line("store = \"memory\"").ends_with("# line 4"), "{text}");
        assert!(line("timeout = \"2s\"").ends_with("# default"), "{text}");
        assert!(line("# data-dir").ends_with("# default"), "{text}");
        assert!(!text.contains("parent-pipe"), "{text}");
        for wrong in ["id = 3", "id = 3\npeer-addr = \"a:1\"\nclient-addr = \"b:2\"\ntimeout = \"soon\"\n"] {
            let problem = checked(file(wrong).path()).unwrap_err();
            assert!(!problem.contains('\n'), "{problem}");
        }
    }

    #[test]
    fn what_has_changed_in_the_file_is_known() {
        let file = file("id = 3\ntimeout = \"2s\"\nlog = \"warn\"\n");
        let before = of_file(file.path()).unwrap();
        std::fs::write(file.path(), "id = 3\ntimeout = \"3s\"\nheartbeat = \"20ms\"\n").unwrap();
        assert_eq!(before.differs(&of_file(file.path()).unwrap()), ["heartbeat", "log", "timeout"]);
        assert!(before.differs(&before).is_empty());
    }
}
