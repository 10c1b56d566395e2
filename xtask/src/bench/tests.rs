//! Measurements as tests of several files need them.

use super::machine::Machine;
use super::measurement::{At, Limit, Measurement};
use super::record::Record;
use super::statistics::Samples;
use super::unit::Unit;

/// A time beside the floor's.
pub(super) fn beside_floor(name: &str, own: &[f64], limit: &[f64]) -> Measurement {
    let limit = Limit { name: "floor".to_owned(), samples: Samples::from(limit) };
    Measurement::beside("start", name, Unit::Nanoseconds, Samples::from(own), limit)
}

/// A rate without a limit.
pub(super) fn alone(name: &str, samples: &[f64]) -> Measurement {
    let samples = Samples::from(samples);
    let (group, name) = ("snapshots".to_owned(), name.to_owned());
    Measurement { group, name, at: None, unit: Unit::PerSecond, samples, limit: None, goal: None }
}

/// A point of a curve over bytes.
pub(super) fn point(bytes: f64, own: &[f64]) -> Measurement {
    let at = At { axis: "guest RAM".to_owned(), value: bytes, unit: Unit::Bytes };
    Measurement { at: Some(at), limit: None, ..beside_floor("start", own, own) }
}

/// What was measured on a machine that there is not.
pub(super) fn record(measurements: Vec<Measurement>) -> Record {
    let machine = Machine { kernel: "6.18".to_owned(), ..Machine::default() };
    Record { machine, measurements, ..Record::begin() }
}
