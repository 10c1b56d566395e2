//! `Curve`: one thing that is measured at several points, each beside its limit.

use std::collections::BTreeMap;

use serde_json::json;

use crate::told::measured;

/// What grows along a curve: its name, and what its numbers count.
#[derive(Clone, Copy)]
pub(crate) struct Axis(pub(crate) &'static str, pub(crate) &'static str);

/// Bytes that the guest has written to, page by page.
pub(crate) const TOUCHED: Axis = Axis("touched", "bytes");
/// The size of the machine's RAM.
pub(crate) const RAM: Axis = Axis("guest RAM", "bytes");

/// Samples by point.
pub(crate) struct Curve {
    name: String,
    axis: Axis,
    unit: &'static str,
    limit_name: &'static str,
    points: BTreeMap<u64, Samples>,
}

#[derive(Default)]
struct Samples {
    own: Vec<f64>,
    limit: Vec<f64>,
}

impl Curve {
    /// A curve whose samples are times, in nanoseconds.
    pub(crate) fn of_time(name: impl Into<String>, axis: Axis, limit_name: &'static str) -> Self {
        Self { name: name.into(), axis, unit: "nanoseconds", limit_name, points: BTreeMap::new() }
    }

    /// A curve whose samples are bytes.
    pub(crate) fn of_bytes(name: impl Into<String>, axis: Axis, limit_name: &'static str) -> Self {
        Self { unit: "bytes", ..Self::of_time(name, axis, limit_name) }
    }

    /// Adds what one round has found at a point, and beside it, if there is a limit.
    pub(crate) fn add(&mut self, at: u64, own: f64, limit: impl Into<Option<f64>>) {
        let samples = self.points.entry(at).or_default();
        samples.own.push(own);
        samples.limit.extend(limit.into());
    }

    /// Tells all points.
    pub(crate) fn tell(self) {
        let Self { name, axis: Axis(axis, axis_unit), unit, limit_name, points } = self;
        for (at, Samples { own, limit }) in points {
            let limit = (!limit.is_empty()).then(|| json!({ "name": limit_name, "samples": limit }));
            measured(json!({
                "group": "memory",
                "name": name,
                "at": { "axis": axis, "value": at, "unit": axis_unit },
                "unit": unit,
                "samples": own,
                "limit": limit,
            }));
        }
    }
}
