//! Rules of the design, known bugs of others, and invariants are cited by their ids. Whoever follows one finds it.

use crate::house_support::read_workspace;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/");

/// What a document defines: what its headings begin with, and the rows of its tables.
fn defined(document: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(format!("{DOCS}{document}")).expect("the document");
    let first = |line: &str| line.split([' ', ':', '|']).next().unwrap_or_default().to_owned();
    let lines = text.lines();
    let of = |line: &str| {
        line.strip_prefix("### ").or(line.strip_prefix("## ")).or(line.strip_prefix("| ")).map(first)
    };
    lines.filter_map(of).collect()
}

/// Whether a word is the id of a rule of the design, such as D5.1.3, or of a chapter of them.
fn is_rule(word: &str) -> bool {
    word.strip_prefix("D5.").is_some_and(|rest| rest.split('.').all(is_number))
}

/// Whether it is one of a known bug, such as MC-3.
fn is_hazard(word: &str) -> bool {
    word.split_once('-').is_some_and(|(kind, number)| {
        kind.len() == 2 && kind.bytes().all(|byte| byte.is_ascii_uppercase()) && is_number(number)
    })
}

/// Whether it is one of an invariant, such as S1 or L1, or of a part of one, S14a.
fn is_invariant(word: &str) -> bool {
    let number = word.strip_prefix(['S', 'L']).unwrap_or_default();
    is_number(number.strip_suffix(['a', 'b', 'c']).unwrap_or(number)) && number.len() < 4
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// What a test's name says of the bug that it is about: `el_2_…` is about EL-2.
fn named(line: &str) -> Option<String> {
    let mut parts = line.trim_start().strip_prefix("fn ")?.split('_');
    let (kind, number) = (parts.next()?, parts.next()?);
    let is_kind = kind.len() == 2 && kind.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_kind && is_number(number)).then(|| format!("{}-{number}", kind.to_uppercase()))
}

#[test]
fn each_id_that_is_cited_is_defined() {
    let (rules, hazards) = (defined("design-rules.md"), defined("hazards.md"));
    let invariants = defined("invariants.md");
    let mut texts: Vec<(String, String)> =
        read_workspace().into_iter().map(|source| (source.path, source.text)).collect();
    for entry in fs::read_dir(DOCS).expect("the documents") {
        let path = entry.expect("a document").path();
        texts.push((path.display().to_string(), fs::read_to_string(path).unwrap_or_default()));
    }
    let (mut wrong, mut cited) = (String::new(), 0);
    for (path, text) in texts.iter().filter(|(path, _)| !path.contains("house_support")) {
        for (number, line) in text.lines().enumerate() {
            let mut check = |word: &str, known: &BTreeSet<String>, place: &str| {
                cited += 1;
                if !known.contains(word) {
                    let _ = writeln!(wrong, "{path}:{}: `{word}` is not in docs/{place}", number + 1);
                }
            };
            let part = |c: char| !c.is_ascii_alphanumeric() && !"-._".contains(c);
            for word in line.split(part).map(|word| word.trim_matches(['-', '.', '_'])) {
                if is_rule(word) {
                    check(word, &rules, "design-rules.md");
                } else if is_hazard(word) {
                    check(word, &hazards, "hazards.md");
                } else if is_invariant(word) {
                    check(word.trim_end_matches(['a', 'b', 'c']), &invariants, "invariants.md");
                }
            }
            if let Some(id) = named(line) {
                check(&id, &hazards, "hazards.md");
            }
        }
    }
    assert!(cited > 1000, "only {cited} ids are cited: this looks for them in the wrong way");
    assert!(wrong.is_empty(), "{wrong}Cite what is there, or write it down there.");
}
