//! What many runs say: the least, the middle, the worst; and the ratio of two that took turns.
//!
//! Machines are shared and their speed drifts. So a measurement and its limit take turns, the ratio is made pair by pair,
//! and the median of the ratios is what counts. The least of each is what the machine can do when nothing disturbs it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// What one thing measured, in the order it was taken; times are nanoseconds.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(transparent)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    /// Adds one more.
    pub(super) fn add(&mut self, time: Duration) {
        self.add_number(time.as_secs_f64() * 1e9);
    }

    /// Adds one more, of what is not time.
    pub(super) fn add_number(&mut self, number: f64) {
        self.0.push(number);
    }

    /// All, in the order they were taken.
    pub(super) fn iter(&self) -> impl Iterator<Item = f64> {
        self.0.iter().copied()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Whether all can be sizes of something.
    pub(super) fn are_sizes(&self) -> bool {
        self.iter().all(is_size)
    }

    /// The one that `share` of all are not above: 0 is the least, 0.5 the median, 1 the worst; 0 when there are none.
    pub(super) fn quantile(&self, share: f64) -> f64 {
        let sorted = self.sorted();
        let last = sorted.len().saturating_sub(1);
        sorted.get((share * last as f64).round() as usize).copied().unwrap_or_default()
    }

    /// The least.
    pub(super) fn least(&self) -> f64 {
        self.quantile(0.0)
    }

    /// The median.
    pub(super) fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// Between which two the median of all that could have been taken lies, in 19 of 20 cases: the samples whose ranks are
    /// two deviations of a binomial distribution from the middle. It asks nothing of how the samples are spread.
    pub(super) fn median_interval(&self) -> (f64, f64) {
        let sorted = self.sorted();
        let count = sorted.len() as f64;
        let reach = 1.96 * count.sqrt() / 2.0;
        let low = (count / 2.0 - reach).floor().max(1.0) as usize;
        let high = (count / 2.0 + 1.0 + reach).ceil().min(count) as usize;
        let at = |rank: usize| sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default();
        (at(low), at(high))
    }

    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// This by `limit`, pair by pair.
    pub(super) fn ratios(&self, limit: &Self) -> Self {
        Self(self.0.iter().zip(&limit.0).map(|(own, limit)| own / limit).collect())
    }
}

/// Whether this can be the size of something.
pub(super) fn is_size(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

impl From<&[f64]> for Samples {
    fn from(values: &[f64]) -> Self {
        Self(values.to_vec())
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
    fn the_interval_of_a_median_has_19_of_20_medians() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(samples(&hundred).median_interval(), (40.0, 61.0));
        // Of fewer than six nothing narrower than their range is as sure.
        assert_eq!(samples(&[3.0, 1.0, 2.0]).median_interval(), (1.0, 3.0));
        assert_eq!(samples(&[7.0; 50]).median_interval(), (7.0, 7.0));
        assert_eq!(samples(&[]).median_interval(), (0.0, 0.0));
    }
}
