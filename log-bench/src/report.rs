//! Tables, in Markdown, as they stand in `docs/performance.md`.

use crate::contender::{BASELINE, MEMORY, OURS};
use crate::measure::{Results, median};
use std::fmt::Write;

/// Everything about writing.
pub(crate) fn text(results: &Results) -> String {
    let mut text = format!("### Batches per second, as ratios\n\n{}", rates(results));
    text += "\n### Bytes that the device wrote for each byte of payload\n\n";
    // What writes nothing of its own shows what everybody else wrote meanwhile.
    text += &table(results, |who, point| {
        number(results.median(who, point, |turn| turn.device.unwrap_or(f64::NAN)))
    });
    text
}

/// The baseline's rate and that of memory, everybody's ratio to the baseline, and ours to everybody.
fn rates(results: &Results) -> String {
    let others: Vec<_> =
        results.names.iter().copied().filter(|name| *name != BASELINE && *name != MEMORY).collect();
    let rivals: Vec<_> = others.iter().copied().filter(|name| *name != OURS).collect();
    let mut head = format!("| entry | batch | {MEMORY}, per second | {BASELINE}, per second |");
    others.iter().for_each(|name| _ = write!(head, " {name} |"));
    rivals.iter().for_each(|name| _ = write!(head, " {OURS} / {name} |"));
    let columns = 4 + others.len() + rivals.len();
    let mut text = format!("{head}\n|{}\n", " --: |".repeat(columns));
    let mut all = vec![Vec::new(); others.len() + rivals.len()];
    for (at, point) in results.points.iter().enumerate() {
        let [memory, base] =
            [MEMORY, BASELINE].map(|name| number(results.median(name, at, |turn| turn.rate)));
        let _ = write!(text, "| {} B | {} | {memory} | {base} |", point.entry, point.batch);
        let ratios = others.iter().map(|name| results.ratio(name, BASELINE, at));
        for (column, ratio) in
            ratios.chain(rivals.iter().map(|name| results.ratio(OURS, name, at))).enumerate()
        {
            all[column].extend(ratio);
            let _ = write!(text, " {} |", number(ratio));
        }
        text.push('\n');
    }
    text += "| **median** | | | |";
    all.into_iter().for_each(|ratios| _ = write!(text, " **{}** |", number(median(ratios))));
    text.push('\n');
    text
}

/// A column for each contender, a row for each point.
fn table(results: &Results, cell: impl Fn(&str, usize) -> String) -> String {
    let mut text = String::from("| entry | batch |");
    results.names.iter().for_each(|name| _ = write!(text, " {name} |"));
    _ = writeln!(text, "\n|{}", " --: |".repeat(2 + results.names.len()));
    for (at, point) in results.points.iter().enumerate() {
        let _ = write!(text, "| {} B | {} |", point.entry, point.batch);
        results.names.iter().for_each(|name| _ = write!(text, " {} |", cell(name, at)));
        text.push('\n');
    }
    text
}

/// With the digits that mean something.
pub(crate) fn number(figure: Option<f64>) -> String {
    match figure {
        None => "-".into(),
        Some(figure) if figure.is_nan() => "-".into(),
        Some(figure) if figure < 10.0 => format!("{figure:.2}"),
        Some(figure) => format!("{figure:.0}"),
    }
}
