//! `Measurement`: one thing that was measured, round by round, beside its limit; and how the host half tells of it.
//!
//! The benchmarks of `vmm/benches` run in a process of their own. They print a line of JSON for each [`Said`] on stdout
//! (`vmm/benches/told/mod.rs` writes them), and `cargo xtask bench` shows the progress and collects the measurements.

use serde::{Deserialize, Serialize};

use super::statistics::Samples;

/// A line of a benchmark's host half.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
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
pub(super) struct At {
    /// What grows, such as `guest RAM`.
    pub(super) axis: String,
    /// How much of it.
    pub(super) value: f64,
    /// The unit of `value`.
    pub(super) unit: Unit,
}

/// What a number counts.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    /// Time; less is better.
    Nanoseconds,
    /// Memory or disk; less is better.
    Bytes,
    /// Calls, faults, exits; less is better.
    Count,
    /// How many in a second; more is better.
    PerSecond,
    /// How many bytes in a second; more is better.
    BytesPerSecond,
}

/// What something is measured beside.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Limit {
    /// What it is.
    pub(super) name: String,
    /// One for each round.
    pub(super) samples: Samples,
}

/// What is promised of a measurement. Where it is both, one of them is enough.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(super) struct Goal {
    /// The median of the ratios to the limit is at most this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) ratio: Option<f64>,
    /// The median is at most this, in the measurement's unit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) median: Option<f64>,
}
