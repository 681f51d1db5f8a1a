//! The rules of the house, held against its sources: what `docs/architecture.md` says of who may use whom, and how long
//! a function and a file may be. A rule that is broken is named with its file, its line and the way out.
//!
//! It reads the text of every source of the workspace and understands as much of it as it needs: comments and strings
//! are blanked, `use` and other paths are followed to the file that they lead to, re-exports included. What only tests
//! use is no part of a module.

mod house_support;
#[path = "house_support/ids.rs"]
mod ids;

use house_support::{Crate, Edge, Source, is_part, read_workspace};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write;

/// The most lines of a function.
const FUNCTION: usize = 70;

/// The most lines of a file.
const FILE: usize = 700;

/// The crates that have an inside: modules that use each other.
const CRATES: [&str; 3] = ["core", "coracle", "server"];

/// Who is below whom, as `docs/architecture.md` draws it: each uses only what is before it in the row, and what is not in
/// the row.
const ROWS: &[(&str, &[&[&str]])] = &[
    (
        "core",
        &[
            &["types", "mutants", "rng", "config"],
            &["membership"],
            &["message", "status"],
            &["output", "rules"],
            &["log", "disk", "progress", "read", "display"],
            &["shared"],
            &["follower", "candidate", "leader"],
            &["raft"],
        ],
    ),
    (
        "coracle",
        &[
            &["entry"],
            &["storage", "wire"],
            &["transport", "replica"],
            &["driver"],
            &["runtime"],
            &["open"],
            &["node"],
            &["bootstrap"],
            &["sim"],
        ],
    ),
    ("coracle", &[&["state_machine"], &["replicated"], &["applier"], &["machine"], &["runtime"]]),
];

/// These never use each other, in either direction.
const APART: &[(&str, &[&str])] =
    &[("core", &["follower", "candidate", "leader"]), ("coracle", &["storage", "wire"])];

/// The simulator turns `Driver`, `Applier` and `WriteQueue` itself, as the threads of production do, and so never reaches
/// these.
const NOT_SIMULATED: &[&str] = &["runtime", "machine", "node", "transport::tcp", "writer"];

/// The halves of one thing that lie beside each other. Each of the first ones holds what the driver does about one matter,
/// as methods of `Driver`, together with that matter's own types, which others use too: inside of the driver, those would
/// have to reach into it. And what the driver hands out (`work`) names what `founding` and `snapshots` want, as it names
/// all that anybody wants, while these two name `Waits`, so that there is one list of those who wait. Crate, half, and the
/// one that it may use, and whose methods it may hold.
const PARTS: &[(&str, &str, &str)] = &[
    ("coracle", "carrying", "driver"),
    ("coracle", "changing", "driver"),
    ("coracle", "fencing", "driver"),
    ("coracle", "mending", "driver"),
    ("coracle", "firing", "driver"),
    ("coracle", "forwarding", "driver"),
    ("coracle", "handover", "driver"),
    ("coracle", "founding", "driver"),
    ("coracle", "skipping", "driver"),
    ("coracle", "snapshots", "driver"),
    ("coracle", "founding", "work"),
    ("coracle", "snapshots", "work"),
];

/// Who must not name what, and what to do instead.
struct Ban {
    /// The files, by the beginnings of their paths.
    files: &'static [&'static str],
    /// Those among them that may.
    except: &'static [&'static str],
    words: &'static [&'static str],
    instead: &'static str,
}

const BANS: &[Ban] = &[
    Ban {
        files: &["coracle/src/sim/"],
        // Another process has another clock, and that is what is wanted of it. Runs beside each other are each their own.
        except: &["coracle/src/sim/kit/again.rs", "coracle/src/sim/cores.rs"],
        words: &["tokio", "std::thread", "Instant", "SystemTime", "getrandom"],
        instead: "a run of the simulator is a function of its seed: take the time and the chance of the `World`",
    },
    Ban {
        files: &["coracle/src/sim/"],
        except: &["coracle/src/sim/history/"],
        words: &["HashMap", "HashSet"],
        instead: "a run of the simulator is a function of its seed: take a map that has an order",
    },
    Ban {
        files: &["coracle/src/"],
        except: &[
            "coracle/src/bootstrap.rs",
            "coracle/src/client/",
            "coracle/src/launch.rs",
            "coracle/src/members.rs",
            "coracle/src/clock.rs",
            "coracle/src/machine.rs",
            "coracle/src/open.rs",
            "coracle/src/runtime.rs",
            "coracle/src/timings.rs",
            "coracle/src/sim/kit/again.rs",
            "coracle/src/transport/",
            "coracle/src/writer.rs",
        ],
        words: &["Instant::now", "SystemTime", "tokio::spawn"],
        instead: "have the time handed in: only the loops of production read clocks and spawn",
    },
    Ban {
        files: &["core/src/"],
        except: &[],
        words: &["std", "unreachable!", "f32", "f64"],
        instead: "the core is `no_std`, counts in whole numbers, and says with a type what cannot happen",
    },
    Ban {
        files: &["coracle/src/", "server/src/", "stores/"],
        except: &["coracle/src/wire/"],
        words: &["prost"],
        instead: "only `wire/` knows the bytes of a message: ask it to encode or decode",
    },
    Ban {
        files: &["server/src/", "stores/"],
        except: &[],
        words: &["coracle_core"],
        instead: "use the library's public API, `coracle::`",
    },
];

/// Words that are always wrong, in code and in prose.
const WORDS: &[(&str, &str)] = &[
    ("dbg!", "take it out"),
    ("todo!", "finish it, or leave it out"),
    ("unimplemented!", "finish it, or leave it out"),
    ("TODO", "do it, or open an issue"),
    ("FIXME", "fix it, or open an issue"),
    ("XXX", "say what is meant"),
    ("HACK", "say what it does and why it has to"),
    ("(design,", "cite the rule, as D5.1.9"),
    ("utilize", "say use"),
    ("leverage", "say use"),
    ("whitelist", "say what is allowed"),
    ("blacklist", "say what is refused"),
];

#[test]
fn nothing_is_used_in_a_circle() {
    let sources = read_workspace();
    let mut wrong = String::new();
    for name in CRATES {
        let part =
            |edge: &Edge| PARTS.iter().any(|part| (part.0, part.1, part.2) == (name, &edge.from, &edge.to));
        let inside = Crate::of(name, &sources);
        let all = inside.edges().into_iter().chain(inside.calls_of_methods_elsewhere());
        let edges: Vec<Edge> = all.filter(|edge| !part(edge)).collect();
        for circle in circles(&edges) {
            let _ = writeln!(wrong, "these use each other in a circle:");
            for edge in circle {
                let _ = writeln!(wrong, "  {edge}");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}Move what both need into a module of its own, below them, or to the one that owns it."
    );
}

#[test]
fn nobody_uses_what_is_above() {
    let sources = read_workspace();
    let room = |module: &str| module.split("::").next().unwrap_or_default().to_owned();
    let mut wrong = String::new();
    for (name, row) in ROWS {
        let place = |room: &str| row.iter().position(|rooms| rooms.contains(&room));
        for edge in Crate::of(name, &sources).edges() {
            let (from, to) = (place(&room(&edge.from)), place(&room(&edge.to)));
            if from.is_some_and(|from| to.is_some_and(|to| to > from)) {
                let _ = writeln!(wrong, "{edge}, which is above it");
            }
        }
    }
    for edge in Crate::of("coracle", &sources).edges() {
        let real = NOT_SIMULATED.iter().any(|module| is_part(&edge.to, module));
        if real && is_part(&edge.from, "sim") {
            let _ = writeln!(wrong, "{edge}, which runs in production only: the simulator has its own loops");
        }
    }
    for (name, apart) in APART {
        for edge in Crate::of(name, &sources).edges() {
            let (from, to) = (room(&edge.from), room(&edge.to));
            if from != to && apart.contains(&&*from) && apart.contains(&&*to) {
                let _ = writeln!(wrong, "{edge}, and these two never use each other");
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{wrong}docs/architecture.md says who may use whom: move what is needed down, or have it handed in."
    );
}

#[test]
fn nobody_names_what_is_not_theirs() {
    let mut wrong = String::new();
    for source in read_workspace() {
        let mine = |ban: &&Ban| {
            let begins = |paths: &[&str]| paths.iter().any(|path| source.path.starts_with(path));
            begins(ban.files) && !begins(ban.except)
        };
        for ban in BANS.iter().filter(mine) {
            for (number, line) in source.shipped.lines().enumerate() {
                for word in ban.words.iter().filter(|word| names(line, word)) {
                    let _ = writeln!(wrong, "{}:{}: `{word}`: {}", source.path, number + 1, ban.instead);
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn what_is_imported_is_named() {
    let mut wrong = String::new();
    for source in read_workspace() {
        for (number, line) in source.shipped.lines().enumerate() {
            // A test takes all of the module that it is about, and that is no part of what is shipped.
            if line.trim_start().trim_start_matches("pub ").starts_with("use ") && line.contains('*') {
                let _ =
                    writeln!(wrong, "{}:{}: `{}`: name what you use", source.path, number + 1, line.trim());
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// An error may get more to say, and no program that matches it breaks by that.
#[test]
fn every_error_is_non_exhaustive() {
    let (mut wrong, mut met) = (String::new(), 0);
    let sources = read_workspace().into_iter().filter(|source| !source.path.starts_with("server/"));
    for source in sources {
        let lines: Vec<&str> = source.shipped.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let Some(name) = declared_type(line) else { continue };
            let attributes = lines[..at].iter().rev().take_while(|line| {
                line.trim().is_empty() || line.starts_with("#[") || line.starts_with(char::is_whitespace)
            });
            let attributes: Vec<&str> = attributes.copied().collect();
            let has = |word: &str| attributes.iter().any(|line| line.contains(word));
            let by_hand = format!("Error for {name} ");
            let named = ["Error", "Reason", "Refusal", "Objection"].iter().any(|end| name.ends_with(end));
            if named || has("thiserror::Error") || source.shipped.contains(&by_hand) {
                met += 1;
                if !has("#[non_exhaustive]") {
                    let _ =
                        writeln!(wrong, "{}:{}: `{name}`: make it `#[non_exhaustive]`", source.path, at + 1);
                }
            }
        }
    }
    assert!(met > 25, "only {met} errors: this looks for them in the wrong way");
    assert!(wrong.is_empty(), "{wrong}");
}

/// The name of the public enum or struct with named fields that a line declares. One without names is whole as it is.
fn declared_type(line: &str) -> Option<&str> {
    let rest = line.strip_prefix("pub enum ").or_else(|| line.strip_prefix("pub struct "))?;
    rest.strip_suffix(" {")?.split('<').next()
}

#[test]
fn no_word_is_one_that_is_always_wrong() {
    let mut wrong = String::new();
    for source in read_workspace().into_iter().filter(|source| !source.path.contains("tests/house")) {
        for (number, line) in source.text.lines().enumerate() {
            for (word, instead) in WORDS.iter().filter(|(word, _)| names(line, word)) {
                let _ = writeln!(wrong, "{}:{}: `{word}`: {instead}", source.path, number + 1);
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn no_function_is_longer_than_a_screen_and_no_file_than_a_few_hundred_lines() {
    let mut wrong = String::new();
    for source in read_workspace() {
        let lines = source.text.lines().count();
        if lines > FILE {
            let _ = writeln!(
                wrong,
                "{}:{FILE}: {lines} lines, where {FILE} are allowed: split it by what its parts are about",
                source.path
            );
        }
        let is_long = |(_, _, lines): &(String, usize, usize)| *lines > FUNCTION;
        for (name, first, lines) in functions(&source).into_iter().filter(is_long) {
            let _ = writeln!(
                wrong,
                "{}:{first}: `{name}` has {lines} lines, where {FUNCTION} are allowed: give its steps names",
                source.path
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

/// Whether a line has this word, and not only as a part of another.
fn names(line: &str, word: &str) -> bool {
    let part = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (&line.as_bytes()[..at], &line.as_bytes()[at + word.len()..]);
        !part(before.last().copied()) && !part(after.first().copied())
    })
}

/// The functions of a file: name, first line, and number of lines. Formatted code ends one where a brace stands as far
/// in as it began.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = source.code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let text = line.trim_start();
        let Some(name) = declared(text) else { continue };
        let indent = &line[..line.len() - text.len()];
        let (brace, unbodied) = (format!("{indent}}}"), format!("{indent})"));
        let ends = |line: &&str| **line == brace || (line.starts_with(&unbodied) && line.ends_with(';'));
        let is_whole = line.ends_with(['}', ';']);
        let length = if is_whole { 1 } else { lines[at..].iter().position(ends).map_or(1, |last| last + 1) };
        found.push((name.to_owned(), at + 1, length));
    }
    found
}

/// The name of the function that a line declares.
fn declared(line: &str) -> Option<&str> {
    let (before, after) = line.split_once("fn ")?;
    let known =
        |word: &str| word.starts_with("pub") || ["const", "async", "unsafe", "extern"].contains(&word);
    let before = before.replace("pub(in ", "pub(in_");
    let name = after.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
    (before.split_whitespace().all(known) && !name.is_empty()).then_some(name)
}

/// One circle for each set of modules that reach each other.
fn circles(edges: &[Edge]) -> Vec<Vec<&Edge>> {
    let mut from: BTreeMap<&str, Vec<&Edge>> = BTreeMap::new();
    for edge in edges {
        from.entry(&edge.from).or_default().push(edge);
    }
    let (mut found, mut named) = (Vec::new(), BTreeSet::new());
    for start in from.keys() {
        if named.contains(start) {
            continue;
        }
        if let Some(circle) = shortest_back(start, &from) {
            named.extend(circle.iter().map(|edge| &*edge.from));
            found.push(circle);
        }
    }
    found
}

/// The shortest way from a module to itself.
fn shortest_back<'a>(start: &str, from: &BTreeMap<&str, Vec<&'a Edge>>) -> Option<Vec<&'a Edge>> {
    let mut came: BTreeMap<&str, &Edge> = BTreeMap::new();
    let mut next = VecDeque::from([start]);
    while let Some(module) = next.pop_front() {
        for edge in from.get(module).into_iter().flatten().copied() {
            if came.contains_key(&*edge.to) {
                continue;
            }
            came.insert(&edge.to, edge);
            if edge.to == start {
                let mut way = vec![edge];
                while way[way.len() - 1].from != start {
                    way.push(came[&*way[way.len() - 1].from]);
                }
                way.reverse();
                return Some(way);
            }
            next.push_back(&edge.to);
        }
    }
    None
}

/// A document that names a test is believed; so the test is there.
#[test]
fn each_test_that_a_document_names_exists() {
    let sources = read_workspace();
    let docs = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs");
    let (mut wrong, mut named) = (String::new(), 0);
    for entry in std::fs::read_dir(docs).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        for (number, line) in text.lines().enumerate() {
            // What stands between backticks and looks like a sentence, and is no metric.
            let quoted = line.split('`').skip(1).step_by(2);
            for word in quoted.filter(|word| is_sentence(word) && !word.starts_with("coracle_")) {
                named += 1;
                let function = format!("fn {word}(");
                if !sources.iter().any(|source| source.text.contains(&function)) {
                    let _ = writeln!(wrong, "{}:{}: there is no `{word}`", path.display(), number + 1);
                }
            }
        }
    }
    assert!(named > 100, "only {named} tests are named: this looks for them in the wrong way");
    assert!(wrong.is_empty(), "{wrong}Name the test as it is called now.");
}

/// Whether a word is as long as the name of a test: `a_vote_is_given_once`.
fn is_sentence(word: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    word.matches('_').count() >= 4 && word.bytes().all(plain)
}
