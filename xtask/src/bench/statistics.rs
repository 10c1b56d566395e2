//! What many runs say: the least, the middle, the worst; and the ratio of two that took turns.
//!
//! Machines are shared and their speed drifts. So a measurement and its limit take turns, the ratio is made pair by pair,
//! and the median of the ratios is what counts. The least of each is what the machine can do when nothing disturbs it.

use std::time::Duration;

/// Times of one thing, in nanoseconds, in the order they were taken.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one more.
    pub(super) fn add(&mut self, time: Duration) {
        self.0.push(time.as_secs_f64() * 1e9);
    }

    /// The one that `share` of all are not above: 0 is the least, 0.5 the median, 1 the worst; 0 when there are none.
    #[must_use]
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().saturating_sub(1);
        sorted.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }

    /// The least.
    #[must_use]
    pub(super) fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The median.
    #[must_use]
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// This by `limit`, pair by pair.
    #[must_use]
    pub(super) fn ratios(&self, limit: &Self) -> Self {
        Self(self.0.iter().zip(&limit.0).map(|(own, limit)| own / limit).collect())
    }
}

/// A time as a person reads it.
#[must_use]
pub(super) fn readable(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e3 => format!("{ns:.0} ns"),
        ns if ns < 1e6 => format!("{:.1} us", ns / 1e3),
        ns if ns < 1e9 => format!("{:.2} ms", ns / 1e6),
        ns => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn quantiles_are_samples_in_their_order() {
        let five = samples(&[3.0, 1.0, 2.0, 5.0, 4.0]);
        assert_eq!((five.least(), five.median(), five.quantile(1.0)), (1.0, 3.0, 5.0));
        assert_eq!(samples(&[]).median(), 0.0);
    }

    #[test]
    fn ratios_are_made_pair_by_pair() {
        // The machine was slow in the second round: both took longer, and the ratio stays.
        let (own, limit) = (samples(&[2.0, 20.0, 3.0]), samples(&[1.0, 10.0, 1.0]));
        assert_eq!(own.ratios(&limit), samples(&[2.0, 2.0, 3.0]));
    }

    #[test]
    fn times_are_read_in_their_unit() {
        assert_eq!(
            [12.4, 8200.0, 4.5e5, 1.5e6, 2e9].map(readable),
            ["12 ns", "8.2 us", "450.0 us", "1.50 ms", "2.00 s"]
        );
    }
}
