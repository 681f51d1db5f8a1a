//! Medians of rounds, and ratios of rounds.

use std::fmt::Write as _;

/// What was measured of one case: a row for each round, in it a figure for each contender, the first of which is Coracle.
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) rounds: Vec<Vec<f64>>,
}

/// Runs every case once per round, with the contenders in another order each time. `measure` is told the case and the contender.
pub(crate) fn by_turns(
    names: &[String],
    contenders: usize,
    rounds: u32,
    mut measure: impl FnMut(usize, usize) -> Result<f64, String>,
) -> Result<Vec<Case>, String> {
    let case = |name: &String| Case { name: name.clone(), rounds: Vec::new() };
    let mut cases: Vec<Case> = names.iter().map(case).collect();
    for round in 0..rounds as usize {
        for (at, case) in cases.iter_mut().enumerate() {
            let mut figures = vec![0.0; contenders];
            for turn in 0..contenders {
                let contender = (turn + round) % contenders;
                figures[contender] = measure(at, contender)?;
            }
            case.rounds.push(figures);
        }
        eprintln!("{} of {rounds} rounds done", round + 1);
    }
    Ok(cases)
}

/// The table: each contender's median, and for all but the first the ratio of the first to it.
pub(crate) fn table(what: &str, contenders: &[&str], cases: &[Case]) -> String {
    let mut table = format!("| {what} | {} |\n", contenders.join(" | "));
    let _ = writeln!(table, "|{}", " --- |".repeat(contenders.len() + 1));
    for Case { name, rounds } in cases {
        let _ = write!(table, "| {name} |");
        for contender in 0..contenders.len() {
            let of = |value: fn(&[f64], usize) -> f64| {
                rounds.iter().map(|round| value(round, contender)).collect()
            };
            let _ = write!(table, " {}", thousands(median(of(|round, at| round[at]))));
            if contender > 0 {
                let mut ratios: Vec<f64> = of(|round, at| round[0] / round[at]);
                ratios.sort_by(f64::total_cmp);
                let (least, greatest) = (ratios[0], ratios[ratios.len() - 1]);
                let _ = write!(table, ": {:.2} ({least:.2} to {greatest:.2})", median(ratios));
            }
            table.push_str(" |");
        }
        table.push('\n');
    }
    table
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let half = numbers.len() / 2;
    if numbers.len() % 2 == 1 { numbers[half] } else { (numbers[half - 1] + numbers[half]) / 2.0 }
}

/// A number with its thousands apart.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_of_a_round_and_not_of_medians() {
        let rounds = vec![vec![100.0, 50.0], vec![1000.0, 2000.0], vec![1_234_567.0, 1_234_567.0]];
        let case = Case { name: "1".to_owned(), rounds };
        let table = table("batch", &["ours", "theirs"], &[case]);
        assert_eq!(
            table,
            "| batch | ours | theirs |\n| --- | --- | --- |\n| 1 | 1,000 | 2,000: 1.00 (0.50 to 2.00) |\n"
        );
    }

    #[test]
    fn each_contender_begins_in_its_turn() {
        let mut seen = Vec::new();
        let cases = by_turns(&["a".to_owned()], 3, 2, |_, contender| {
            seen.push(contender);
            Ok(contender as f64)
        });
        assert_eq!(seen, [0, 1, 2, 1, 2, 0]);
        assert_eq!(cases.unwrap()[0].rounds, [[0.0, 1.0, 2.0], [0.0, 1.0, 2.0]]);
    }

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!((median(vec![4.0, 1.0, 2.0, 9.0]), median(vec![3.0])), (3.0, 3.0));
    }
}
