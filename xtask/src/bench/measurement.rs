//! `Measurement`: one thing that was measured, round by round, beside its limit; and how the host half tells of it.
//!
//! The benchmarks of `vmm/benches` run in a process of their own. They print a line of JSON for each [`Said`] on stdout
//! (`vmm/benches/told/mod.rs` writes them), and `cargo xtask bench` shows the progress and collects the measurements.

use serde::{Deserialize, Serialize};

use super::statistics::{Samples, is_size};
use super::unit::Unit;

/// A line of a benchmark's host half.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Said {
    /// How far it is.
    Progress {
        /// What it measures now.
        name: String,
        /// Rounds that are done.
        done: u32,
        /// Rounds in all.
        of: u32,
    },
    /// What it has found.
    Measurement(Measurement),
}

/// One thing that was measured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Measurement {
    /// What it belongs to: the name that `cargo xtask bench` takes.
    pub(super) group: String,
    /// What was measured. Measurements of one name that differ in `at` are points of one curve.
    pub(super) name: String,
    /// Where on the curve, if it is a point of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) at: Option<At>,
    /// What the samples count.
    pub(super) unit: Unit,
    /// One for each round.
    pub(super) samples: Samples,
    /// What it is measured beside; its samples were taken in the same rounds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) limit: Option<Limit>,
    /// What is promised of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) goal: Option<Goal>,
}

/// A point on the axis along which something grows.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct At {
    /// What grows, such as `guest RAM`.
    pub(super) axis: String,
    /// How much of it.
    pub(super) value: f64,
    /// The unit of `value`.
    pub(super) unit: Unit,
}

/// What something is measured beside.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Limit {
    /// What it is.
    pub(super) name: String,
    /// One for each round.
    pub(super) samples: Samples,
}

/// What is promised of a measurement. Where it is both, one of them is enough.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Goal {
    /// The median of the ratios to the limit is at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    /// The median is at most this, in the measurement's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) median: Option<f64>,
}

impl Measurement {
    /// Something that was measured beside `limit`, whose samples are of the same rounds.
    pub(super) fn beside(group: &str, name: &str, unit: Unit, samples: Samples, limit: Limit) -> Self {
        let (group, name) = (group.to_owned(), name.to_owned());
        Self { group, name, at: None, unit, samples, limit: Some(limit), goal: None }
    }

    /// The same, with what is promised of it.
    pub(super) fn promised(self, goal: Goal) -> Self {
        Self { goal: Some(goal), ..self }
    }

    /// Its name, and where on the curve.
    pub(super) fn title(&self) -> String {
        match &self.at {
            None => self.name.clone(),
            Some(at) => format!("{}, {}", self.name, at.unit.readable(at.value)),
        }
    }

    /// Whether both are of the same thing, at the same point.
    pub(super) fn is_of(&self, other: &Self) -> bool {
        (&self.group, &self.name, &self.at, self.unit) == (&other.group, &other.name, &other.at, other.unit)
    }

    /// What the samples are to the limit's, pair by pair.
    pub(super) fn ratios(&self) -> Option<Samples> {
        self.limit.as_ref().map(|limit| self.samples.ratios(&limit.samples))
    }

    /// Whether the goal is met; nothing where there is none.
    pub(super) fn meets_goal(&self) -> Option<bool> {
        let Goal { ratio, median } = self.goal?;
        let is_median_met = median.map(|most| self.samples.median() <= most);
        let is_ratio_met = ratio.zip(self.ratios()).map(|(most, ratios)| ratios.median() <= most);
        match (is_ratio_met, is_median_met) {
            (None, None) => None,
            (ratio, median) => Some(ratio == Some(true) || median == Some(true)),
        }
    }

    /// Refuses what is no measurement: numbers are missing, do not belong together, or are none.
    ///
    /// # Errors
    /// The reason.
    pub(super) fn check(&self) -> Result<(), String> {
        let named = |what: &str| Err(format!("{}, {}: {what}", self.group, self.title()));
        if self.samples.count() == 0 {
            return named("there are no samples");
        }
        if !self.samples.are_sizes() || self.at.as_ref().is_some_and(|at| !is_size(at.value)) {
            return named("a number is negative or none");
        }
        let Some(Limit { samples: limit, .. }) = &self.limit else { return Ok(()) };
        if limit.count() != self.samples.count() {
            return named("it has not as many samples as its limit");
        }
        if !limit.are_sizes() || limit.least() == 0.0 {
            return named("the limit has a sample that is nothing");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurement(own: &[f64], limit: &[f64], goal: Goal) -> Measurement {
        let limit = Limit { name: "floor".to_owned(), samples: Samples::from(limit) };
        Measurement::beside("start", "exec to end", Unit::Nanoseconds, Samples::from(own), limit)
            .promised(goal)
    }

    #[test]
    fn a_goal_of_two_is_met_by_one_of_them() {
        let goal = |ratio, median| measurement(&[200.0; 3], &[100.0; 3], Goal { ratio, median }).meets_goal();
        assert_eq!(goal(None, None), None);
        assert_eq!((goal(Some(2.0), None), goal(Some(1.9), None)), (Some(true), Some(false)));
        assert_eq!((goal(Some(1.9), Some(200.0)), goal(Some(2.0), Some(199.0))), (Some(true), Some(true)));
        assert_eq!(goal(Some(1.9), Some(199.0)), Some(false));
    }

    #[test]
    fn what_is_no_measurement_is_refused_with_the_reason() {
        let why = |own: &[f64], limit: &[f64]| measurement(own, limit, Goal::default()).check();
        assert_eq!(why(&[1.0, 2.0], &[1.0, 1.0]), Ok(()));
        for (own, limit, reason) in [
            (vec![], vec![], "there are no samples"),
            (vec![1.0], vec![1.0, 1.0], "it has not as many samples as its limit"),
            (vec![-1.0], vec![1.0], "a number is negative or none"),
            (vec![f64::NAN], vec![1.0], "a number is negative or none"),
            (vec![1.0], vec![0.0], "the limit has a sample that is nothing"),
        ] {
            assert_eq!(why(&own, &limit), Err(format!("start, exec to end: {reason}")));
        }
    }

    #[test]
    fn a_line_of_a_host_half_is_read_strictly() {
        let line = r#"{"measurement":{"group":"exits","name":"OUT","unit":"nanoseconds","samples":[1,2.5],"goal":null}}"#;
        let Ok(Said::Measurement(read)) = serde_json::from_str(line) else { panic!("{line}") };
        assert_eq!((read.samples, read.goal), (Samples::from(&[1.0, 2.5][..]), None));
        for foreign in
            [line.replace("goal", "gaol"), line.replace("2.5", "null"), line.replace("nano", "pico")]
        {
            assert!(serde_json::from_str::<Said>(&foreign).is_err(), "{foreign}");
        }
    }
}
