//! Reads the sources of the workspace: as text, without comments, and as modules that use each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

mod methods;

/// A source file.
pub(crate) struct Source {
    /// From the workspace's root, with slashes.
    pub(crate) path: String,
    pub(crate) text: String,
    /// The same lines, with comments blanked and strings and characters emptied.
    pub(crate) code: String,
    /// The same, without what only tests have; empty in a file of tests.
    pub(crate) shipped: String,
}

/// All sources of the workspace, by path.
pub(crate) fn read_workspace() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace");
    let mut sources = Vec::new();
    for part in ["core", "coracle", "server", "stores", "attacks", "bench", "fuzz", "powercut", "log-bench"] {
        read(root, part, &mut sources);
    }
    assert!(sources.len() > 100, "{} sources", sources.len());
    sources.sort_by(|one: &Source, other| one.path.cmp(&other.path));
    let tests: BTreeSet<String> = sources.iter().flat_map(test_files).collect();
    for source in &mut sources {
        if tests.contains(&source.path)
            || source.path.contains("/tests/")
            || source.path.contains("/benches/")
        {
            source.shipped.clear();
        }
    }
    sources
}

fn read(root: &Path, directory: &str, sources: &mut Vec<Source>) {
    let Ok(entries) = fs::read_dir(root.join(directory)) else { return };
    for entry in entries {
        let name = entry.expect("a file").file_name().into_string().expect("a name in UTF-8");
        let path = format!("{directory}/{name}");
        if name.ends_with(".rs") {
            let text = fs::read_to_string(root.join(&path)).expect("text");
            let code = without_comments(&text);
            let shipped = without_tests(&code);
            sources.push(Source { path, text, code, shipped });
        } else if name != "target" && !name.contains('.') {
            read(root, &path, sources);
        }
    }
}

/// Blanks comments, and what stands in strings and characters. Every line stays where it is.
fn without_comments(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    let blank =
        |code: &mut String, part: &str| code.extend(part.chars().map(|c| if c == '\n' { c } else { ' ' }));
    while at < bytes.len() {
        let rest = &text[at..];
        let len = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if let Some(len) = string(rest, at.checked_sub(1).map(|before| bytes[before])) {
            len
        } else {
            let c = rest.chars().next().expect("not the end");
            code.push(c);
            at += c.len_utf8();
            continue;
        };
        blank(&mut code, &rest[..len]);
        at += len;
    }
    code
}

/// The length of the string or character that starts here.
fn string(rest: &str, before: Option<u8>) -> Option<usize> {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let raw = rest.strip_prefix("br").or(rest.strip_prefix('r')).filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let close = format!("\"{}", "#".repeat(hashes));
            let start = rest.len() - raw.len() + hashes + 1;
            return Some(rest[start..].find(&close).map_or(rest.len(), |end| start + end + close.len()));
        }
    }
    let bytes = rest.as_bytes();
    let quote = bytes[0];
    if quote == b'\'' {
        // A lifetime has no closing quote after its first character.
        let mut chars = rest[1..].chars();
        let first = chars.next()?;
        if first != '\\' {
            return (chars.next() == Some('\'')).then(|| 2 + first.len_utf8());
        }
    } else if quote != b'"' {
        return None;
    }
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    Some((at + 1).min(rest.len()))
}

/// Blanks modules that are there for tests only.
fn without_tests(code: &str) -> String {
    let mut shipped: Vec<&str> = Vec::new();
    let mut lines = code.lines().peekable();
    while let Some(line) = lines.next() {
        let attribute = line.trim_start();
        shipped.push(line);
        if !is_for_tests(attribute) || !lines.peek().is_some_and(|next| next.ends_with('{')) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - attribute.len()]);
        for inside in lines.by_ref() {
            shipped.push("");
            if inside == end {
                break;
            }
        }
    }
    shipped.join("\n")
}

fn is_for_tests(attribute: &str) -> bool {
    attribute.starts_with("#[cfg(test)]") || attribute.starts_with("#[cfg(all(test,")
}

/// The files that a file includes for tests only.
fn test_files(source: &Source) -> Vec<String> {
    let mut found = Vec::new();
    let mut for_tests = false;
    let beside = source.path.rsplit_once('/').map_or("", |(directory, _)| directory);
    for line in source.text.lines().map(str::trim) {
        let path = line.strip_prefix("#[path = \"").and_then(|rest| rest.strip_suffix("\"]"));
        found.extend(path.filter(|_| for_tests).map(|path| format!("{beside}/{path}")));
        let name = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod ")).map(|(_, name)| name);
        if let Some(name) = name.filter(|_| for_tests) {
            let directory = directory_of(&source.path);
            found.push(format!("{directory}/{name}.rs"));
            found.push(format!("{directory}/{name}/mod.rs"));
        }
        for_tests = is_for_tests(line) || (for_tests && line.starts_with("#["));
    }
    found
}

/// Where the modules lie that a file declares.
fn directory_of(path: &str) -> String {
    let (directory, name) = path.rsplit_once('/').expect("a directory");
    match name {
        "lib.rs" | "main.rs" | "mod.rs" => directory.to_owned(),
        _ => path.trim_end_matches(".rs").to_owned(),
    }
}

/// One module uses another: where it says so first.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    path: String,
    line: usize,
}

impl fmt::Display for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {} uses {}", self.path, self.line, self.from, self.to)
    }
}

/// The modules of a crate.
pub(crate) struct Crate<'a> {
    /// By their paths, such as `storage::wal`; the root's is empty.
    modules: BTreeMap<String, &'a Source>,
    /// What a module hands on under a name of its own, and what that is.
    exports: BTreeMap<(String, String), Vec<String>>,
}

impl<'a> Crate<'a> {
    /// The library crate in this directory of the workspace.
    pub(crate) fn of(directory: &str, sources: &'a [Source]) -> Crate<'a> {
        let root = format!("{directory}/src/");
        let mut modules = BTreeMap::new();
        for source in sources.iter().filter(|source| !source.shipped.is_empty()) {
            let Some(path) = source.path.strip_prefix(&root) else { continue };
            let path = path.trim_end_matches(".rs");
            let path = path.strip_suffix("/mod").unwrap_or(path);
            if path != "main" && !path.starts_with("bin/") {
                modules.insert(if path == "lib" { String::new() } else { path.replace('/', "::") }, source);
            }
        }
        let mut found = Crate { modules, exports: BTreeMap::new() };
        for (module, source) in &found.modules {
            for path in paths(&source.shipped).into_iter().filter(|path| path.exported) {
                let whole = found.whole_path(module, &path.names);
                found.exports.insert((module.clone(), path.name), whole);
            }
        }
        found
    }

    /// Who uses whom, each pair once. A part may use what the whole defines, and is used by it: neither counts.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges: BTreeMap<(String, String), Edge> = BTreeMap::new();
        for (module, source) in &self.modules {
            for path in paths(&source.shipped) {
                let to = self.leads_to(&self.whole_path(module, &path.names), 0);
                if !is_part(module, &to) && !is_part(&to, module) {
                    let line = source.shipped[..path.at].matches('\n').count() + 1;
                    let edge = Edge { from: module.clone(), to: to.clone(), path: source.path.clone(), line };
                    edges.entry((module.clone(), to)).or_insert(edge);
                }
            }
        }
        edges.into_values().collect()
    }

    /// The same path from the crate's root.
    fn whole_path(&self, module: &str, names: &[String]) -> Vec<String> {
        let mut whole: Vec<String> =
            module.split("::").filter(|name| !name.is_empty()).map(str::to_owned).collect();
        for (at, name) in names.iter().enumerate() {
            match name.as_str() {
                "crate" => whole.clear(),
                "super" => drop(whole.pop()),
                "self" => {}
                // A path that begins with a name begins with a part of the module, or with another crate.
                _ if at == 0 && !self.modules.contains_key(&joined(module, name)) => return Vec::new(),
                _ => whole.push(name.clone()),
            }
        }
        whole
    }

    /// The module that has what this path names.
    fn leads_to(&self, whole: &[String], depth: usize) -> String {
        let mut module = String::new();
        for (at, name) in whole.iter().enumerate() {
            let inner = joined(&module, name);
            if self.modules.contains_key(&inner) {
                module = inner;
                continue;
            }
            if let Some(export) = self.exports.get(&(module.clone(), name.clone())).filter(|_| depth < 9) {
                let further: Vec<String> = export.iter().chain(&whole[at + 1..]).cloned().collect();
                return self.leads_to(&further, depth + 1);
            }
            break;
        }
        module
    }
}

fn joined(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Whether a module is another, or inside it. Everything is inside the root.
pub(crate) fn is_part(part: &str, whole: &str) -> bool {
    whole.is_empty() || part.strip_prefix(whole).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A path in the code.
struct Named {
    at: usize,
    names: Vec<String>,
    /// What it is called here.
    name: String,
    /// Whether it is handed on under that name.
    exported: bool,
}

/// All paths of `use`, and those elsewhere that begin with `crate`, `super` or `self`.
fn paths(code: &str) -> Vec<Named> {
    let mut found = Vec::new();
    let mut at = 0;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    while let Some(start) = code[at..].find(word).map(|start| at + start) {
        let end = code[start..].find(|c| !word(c)).map_or(code.len(), |len| start + len);
        at = end;
        let before = code[..start].trim_end();
        let is_use = &code[start..end] == "use"
            && (before.is_empty() || before.ends_with([';', '}', '{', ']', ')']) || before.ends_with("pub"));
        let root = ["crate", "super", "self"].contains(&&code[start..end]) && code[end..].starts_with("::");
        if is_use {
            let exported =
                before.ends_with("pub") || before.ends_with("(crate)") || before.ends_with("(super)");
            let stop = code[end..].find(';').map_or(code.len(), |len| end + len);
            tree(&code[end..stop], &[], exported, start, &mut found);
            at = stop;
        } else if root && !before.ends_with("(in") && !before.ends_with("::") {
            let path = |c: char| !word(c) && c != ':';
            let stop = code[start..].find(path).map_or(code.len(), |len| start + len);
            tree(code[start..stop].trim_end_matches(':'), &[], false, start, &mut found);
            at = stop;
        }
    }
    found
}

/// Takes a tree of paths apart.
fn tree(text: &str, before: &[String], exported: bool, at: usize, found: &mut Vec<Named>) {
    let text = text.trim();
    let (path, group) = match text.split_once('{') {
        Some((path, group)) => {
            (path.trim().trim_end_matches("::"), Some(group.trim_end().trim_end_matches('}')))
        }
        None => (text, None),
    };
    let (path, alias) =
        path.split_once(" as ").map_or((path, None), |(path, alias)| (path, Some(alias.trim())));
    let mut names = before.to_vec();
    names.extend(
        path.split("::").map(str::trim).filter(|name| !name.is_empty() && *name != "*").map(str::to_owned),
    );
    let Some(group) = group else {
        if names.len() > 1 && names.last().is_some_and(|name| name == "self") {
            names.pop();
        }
        let name = alias.or(names.last().map(String::as_str)).unwrap_or_default().to_owned();
        found.push(Named { at, names, name, exported });
        return;
    };
    let (mut depth, mut start) = (0, 0);
    for (end, c) in group.char_indices().chain([(group.len(), ',')]) {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                if !group[start..end].trim().is_empty() {
                    tree(&group[start..end], &names, exported, at, found);
                }
                start = end + 1;
            }
            _ => {}
        }
    }
}
