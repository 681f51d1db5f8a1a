//! A method is called without naming the module that holds it. Where the methods of a type stand in several modules, a
//! circle through them shows in no `use`; here it does.

use super::{Crate, Edge, Source, is_part};
use std::collections::BTreeMap;

impl Crate<'_> {
    /// The modules of types that call methods which stand elsewhere: in a module that adds them to the type, and is no part
    /// of the type's own.
    pub(crate) fn calls_of_methods_elsewhere(&self) -> Vec<Edge> {
        let mut homes: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (module, source) in &self.modules {
            for name in source.shipped.lines().filter_map(defines) {
                homes.entry(name).or_default().push(module);
            }
        }
        let mut edges = Vec::new();
        for (module, source) in &self.modules {
            for (name, methods) in implementations(source) {
                let known = homes.get(name).map(Vec::as_slice).unwrap_or_default();
                // One of that name in the module itself, or around it, is the one that is meant.
                if known.iter().any(|home| home == module || (!home.is_empty() && is_part(module, home))) {
                    continue;
                }
                for home in known {
                    edges.extend(self.call(home, module, &methods));
                }
            }
        }
        edges
    }

    /// Where a module calls one of these methods first.
    fn call(&self, from: &str, to: &str, methods: &[&str]) -> Option<Edge> {
        let source = self.modules.get(from)?;
        let calls = |line: &str| {
            methods
                .iter()
                .any(|name| [format!(".{name}("), format!("Self::{name}")].iter().any(|it| line.contains(it)))
        };
        let line = source.shipped.lines().position(calls)? + 1;
        Some(Edge { from: from.to_owned(), to: to.to_owned(), path: source.path.clone(), line })
    }
}

/// The types to which a file adds methods, with their names.
fn implementations(source: &Source) -> Vec<(&str, Vec<&str>)> {
    let mut found: Vec<(&str, Vec<&str>)> = Vec::new();
    let mut inside = false;
    for line in source.shipped.lines() {
        if let Some(name) = implements(line) {
            found.push((name, Vec::new()));
            inside = true;
        } else if line == "}" {
            inside = false;
        } else if inside
            && let Some((before, after)) = line.split_once("fn ")
            && before.starts_with("    ")
            && !before.starts_with("     ")
            && let Some((_, methods)) = found.last_mut()
        {
            methods.extend(first_name(after));
        }
    }
    found
}

/// The type that a line defines.
fn defines(line: &str) -> Option<&str> {
    let (before, after) = ["struct ", "enum "].iter().find_map(|what| line.split_once(what))?;
    (before.is_empty() || before.starts_with("pub")).then(|| first_name(after))?
}

/// The type to which a line adds methods of its own.
fn implements(line: &str) -> Option<&str> {
    let mut depth = 0;
    let name = line.strip_prefix("impl")?.trim_start_matches(|c| {
        depth += i32::from(c == '<') - i32::from(c == '>');
        depth > 0 || c == '>' || c == ' '
    });
    (line.ends_with('{') && !line.contains(" for ")).then(|| first_name(name))?
}

fn first_name(text: &str) -> Option<&str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())
}
