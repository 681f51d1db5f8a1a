//! The plot: a panel for each length of an entry, batches per second against the raw recycled file.

use crate::contender::{BASELINE, MEMORY};
use crate::measure::Results;
use std::fmt::Write;

/// The size of a panel's drawing, in pixels.
const WIDTH: f64 = 230.0;
const HEIGHT: f64 = 220.0;

/// The space left of each panel, above it, and below it for the axis and the legend, in pixels.
const LEFT: f64 = 50.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 80.0;

/// The greatest ratio that is drawn; above is the raw file's own ceiling.
const CEILING: f64 = 1.25;

/// Colours that differ for the colour-blind too (Okabe and Ito).
const COLOURS: [&str; 7] = ["#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000"];

/// The drawing as SVG.
pub(crate) fn svg(results: &Results) -> String {
    // What is not durable would leave the paper.
    let names: Vec<_> =
        results.names.iter().copied().filter(|name| *name != BASELINE && *name != MEMORY).collect();
    let mut entries: Vec<_> = results.points.iter().map(|point| point.entry).collect();
    entries.dedup();
    let panels = entries.len() as f64;
    let (width, height) = (panels * (LEFT + WIDTH) + 20.0, TOP + HEIGHT + BOTTOM);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    for (panel, entry) in entries.iter().enumerate() {
        let left = panel as f64 * (LEFT + WIDTH) + LEFT;
        let points: Vec<_> =
            results.points.iter().enumerate().filter(|(_, point)| point.entry == *entry).collect();
        text(&mut svg, left + WIDTH / 2.0, 20.0, "middle", &format!("entries of {entry} bytes"));
        for tenth in [0.0, 0.25, 0.5, 0.75, 1.0, 1.25] {
            let y = y(tenth);
            let colour = if tenth == 1.0 { "#666" } else { "#ddd" };
            line(&mut svg, &[(left, y), (left + WIDTH, y)], colour, 1.0);
            text(&mut svg, left - 6.0, y + 4.0, "end", &format!("{tenth}"));
        }
        let step = WIDTH / (points.len().max(2) - 1) as f64;
        for (i, (_, point)) in points.iter().enumerate() {
            let x = left + i as f64 * step;
            text(&mut svg, x, TOP + HEIGHT + 18.0, "middle", &point.batch.to_string());
        }
        text(&mut svg, left + WIDTH / 2.0, TOP + HEIGHT + 36.0, "middle", "entries in a batch");
        for (name, colour) in names.iter().zip(COLOURS) {
            let at = |(i, (at, _)): (usize, &(usize, _))| {
                Some((left + i as f64 * step, y(results.ratio(name, BASELINE, *at)?)))
            };
            let path: Vec<_> = points.iter().enumerate().filter_map(at).collect();
            line(&mut svg, &path, colour, 2.0);
            for (x, y) in path {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
        }
    }
    let base = TOP + HEIGHT + 62.0;
    let mut x = LEFT;
    for (name, colour) in names.iter().zip(COLOURS) {
        line(&mut svg, &[(x, base - 4.0), (x + 18.0, base - 4.0)], colour, 3.0);
        text(&mut svg, x + 24.0, base, "start", name);
        x += 50.0 + 7.0 * name.len() as f64;
    }
    text(&mut svg, x, base, "start", &format!("(1 = {BASELINE}; batches per second)"));
    svg + "</svg>\n"
}

fn y(ratio: f64) -> f64 {
    TOP + HEIGHT * (1.0 - ratio.clamp(0.0, CEILING) / CEILING)
}

fn line(svg: &mut String, points: &[(f64, f64)], colour: &str, width: f64) {
    let points: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let points = points.join(" ");
    let _ = writeln!(
        svg,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, text: &str) {
    let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}
