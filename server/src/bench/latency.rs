//! Many latencies in little memory: a histogram with three exact digits.

use hdrhistogram::Histogram;
use serde_json::{Value, json};
use std::time::Duration;

/// The greatest latency that is told from greater ones: more than any request may take.
const MAX: u64 = 60_000_000_000;

/// Digits of a latency that are kept.
const DIGITS: u8 = 3;

/// How long requests took.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

impl Default for Latencies {
    fn default() -> Latencies {
        Latencies(Histogram::new_with_bounds(1, MAX, DIGITS).expect("the bounds are in order"))
    }
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
    }

    /// Adds all of another.
    pub fn add(&mut self, other: &Latencies) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// What this share of them (0 to 1) took at most, in microseconds; 0 if there are none.
    pub fn quantile(&self, share: f64) -> f64 {
        self.0.value_at_quantile(share) as f64 / 1000.0
    }

    /// The longest, in microseconds; 0 if there are none.
    pub fn max(&self) -> f64 {
        self.0.max() as f64 / 1000.0
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "count": self.count(),
            "p50_us": self.quantile(0.5),
            "p99_us": self.quantile(0.99),
            "p999_us": self.quantile(0.999),
            "max_us": self.max(),
        })
    }

    /// For people.
    pub fn text(&self) -> String {
        format!(
            "{}: p50 {:.0} us, p99 {:.0} us, p999 {:.0} us, max {:.0} us",
            self.count(),
            self.quantile(0.5),
            self.quantile(0.99),
            self.quantile(0.999),
            self.max()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_have_three_digits_and_nothing_is_too_long() {
        let mut latencies = Latencies::default();
        assert_eq!((latencies.count(), latencies.quantile(0.5)), (0, 0.0));
        (1..=1000).for_each(|us| latencies.record(Duration::from_micros(us)));
        let near = |share: f64, wanted: f64| (latencies.quantile(share) / wanted - 1.0).abs() < 0.002;
        assert!(near(0.5, 500.0) && near(0.99, 990.0) && near(0.999, 999.0));
        let mut more = Latencies::default();
        more.record(Duration::from_secs(1 << 40));
        more.add(&latencies);
        assert_eq!(more.count(), 1001);
        assert!(more.max() > 59e6);
    }
}
