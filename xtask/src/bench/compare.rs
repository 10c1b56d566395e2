//! `Comparison`: what was measured now, beside what a file has of another time.
//!
//! Where there is a limit its ratio is compared: the limit was measured in the same rounds, and takes with it what has
//! become of the machine meanwhile. A change counts when the intervals of both medians have nothing in common.

use std::fmt;

use super::measurement::Measurement;
use super::record::Record;
use super::table::short;
use super::unit::Unit;

/// All of what a file has.
#[derive(Debug)]
pub(super) struct Comparison {
    old: Record,
}

/// What has become of one measurement.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Change {
    old: Value,
    new: Value,
    unit: Option<Unit>,
    less_is_better: bool,
    /// Whether it is more than chance.
    pub(super) is_beyond_noise: bool,
}

/// A median, and between what it lies.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Value {
    median: f64,
    low: f64,
    high: f64,
}

impl Comparison {
    /// Beside `old`.
    pub(super) fn new(old: Record) -> Self {
        Self { old }
    }

    /// What has become of `new`, if the file has it.
    pub(super) fn of(&self, new: &Measurement) -> Option<Change> {
        let old = self.old.measurements.iter().find(|old| old.is_of(new))?;
        // A limit of another name is another ratio.
        let limits = old.limit.as_ref().zip(new.limit.as_ref());
        let has_ratio = limits.is_some_and(|(old, new)| old.name == new.name);
        let unit = if has_ratio { None } else { Some(new.unit) };
        Some(Change::new(
            Value::of(old, has_ratio),
            Value::of(new, has_ratio),
            unit,
            new.unit.less_is_better(),
        ))
    }

    /// Whether something became worse, and not by chance.
    pub(super) fn has_become_worse(&self, new: &[Measurement]) -> bool {
        new.iter().filter_map(|new| self.of(new)).any(|change| change.is_worse())
    }

    /// What cannot be compared, each thing a line.
    pub(super) fn notes(&self, new: &Record) -> String {
        let missing_in = |all: &[Measurement], of: &Measurement| !all.iter().any(|other| other.is_of(of));
        let mut text = String::new();
        for old in self.old.measurements.iter().filter(|old| missing_in(&new.measurements, old)) {
            // Who measures one group does not ask for the others.
            if new.measurements.iter().any(|new| new.group == old.group) {
                text += &format!("only then: {}, {}\n", old.group, old.title());
            }
        }
        for new in new.measurements.iter().filter(|new| missing_in(&self.old.measurements, new)) {
            text += &format!("only now: {}, {}\n", new.group, new.title());
        }
        if let Some(differences) = self.old.machine.differences(&new.machine) {
            text += &format!("the machine was another: {differences}\n");
        }
        text
    }
}

impl Value {
    fn of(measurement: &Measurement, as_ratio: bool) -> Self {
        let samples =
            measurement.ratios().filter(|_| as_ratio).unwrap_or_else(|| measurement.samples.clone());
        let (low, high) = samples.median_interval();
        Self { median: samples.median(), low, high }
    }
}

impl Change {
    fn new(old: Value, new: Value, unit: Option<Unit>, less_is_better: bool) -> Self {
        let is_beyond_noise = old.high < new.low || new.high < old.low;
        Self { old, new, unit, less_is_better, is_beyond_noise }
    }

    /// Whether it became worse, and not by chance.
    pub(super) fn is_worse(&self) -> bool {
        self.is_beyond_noise && (self.new.median > self.old.median) == self.less_is_better
    }

    fn readable(&self, value: f64) -> String {
        self.unit.map_or_else(|| short(value), |unit| unit.readable(value))
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Value { median, low, high } = self.old;
        let what = if self.unit.is_some() { "median" } else { "ratio" };
        let [median, low, high] = [median, low, high].map(|value| self.readable(value));
        write!(f, "then: {what} {median} ({low}–{high})")?;
        if self.old.median != 0.0 {
            write!(f, "; now {:+.1} %", (self.new.median / self.old.median - 1.0) * 100.0)?;
        }
        match (self.is_beyond_noise, self.is_worse()) {
            (false, _) => write!(f, ", within noise"),
            (true, true) => write!(f, ", worse"),
            (true, false) => write!(f, ", better"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::measurement::Limit;
    use crate::bench::statistics::Samples;
    use crate::bench::tests::{alone, beside_floor, record};

    fn change(old: Measurement, new: &Measurement) -> Change {
        Comparison::new(record(vec![old])).of(new).expect("it is in both")
    }

    #[test]
    fn a_slower_machine_is_no_change_where_the_limit_became_slower_too() {
        let (old, new) =
            (beside_floor("end", &[2.0; 9], &[1.0; 9]), beside_floor("end", &[4.0; 9], &[2.0; 9]));
        let change = change(old, &new);
        assert!(!change.is_beyond_noise);
        assert_eq!(change.to_string(), "then: ratio 2.00 (2.00–2.00); now +0.0 %, within noise");
    }

    #[test]
    fn what_is_beyond_noise_is_better_or_worse_by_its_unit() {
        let slower =
            change(beside_floor("end", &[2.0; 9], &[1.0; 9]), &beside_floor("end", &[3.0; 9], &[1.0; 9]));
        assert_eq!((slower.is_worse(), slower.is_beyond_noise), (true, true));
        assert!(slower.to_string().ends_with("now +50.0 %, worse"), "{slower}");
        let more_machines = change(alone("machines", &[50.0; 9]), &alone("machines", &[60.0; 9]));
        assert_eq!((more_machines.is_worse(), more_machines.is_beyond_noise), (false, true));
        assert_eq!(more_machines.to_string(), "then: median 50 /s (50 /s–50 /s); now +20.0 %, better");
        let wide = [1.0, 2.0, 3.0, 4.0, 5.0];
        assert!(!change(alone("machines", &wide), &alone("machines", &[5.0; 9])).is_beyond_noise);
    }

    #[test]
    fn another_limit_is_another_ratio() {
        let old = beside_floor("end", &[2.0; 9], &[1.0; 9]);
        let mut new = beside_floor("end", &[2.0; 9], &[2.0; 9]);
        new.limit = Some(Limit { name: "ceiling".to_owned(), samples: Samples::from(&[2.0; 9][..]) });
        assert!(change(old, &new).to_string().starts_with("then: median 2 ns"));
    }

    #[test]
    fn what_is_only_in_one_is_named_and_so_is_another_machine() {
        let mut old = record(vec![beside_floor("end", &[2.0], &[1.0]), alone("machines", &[1.0])]);
        "6.1".clone_into(&mut old.machine.kernel);
        let new = record(vec![beside_floor("first byte", &[2.0], &[1.0])]);
        let comparison = Comparison::new(old);
        assert_eq!(
            comparison.notes(&new),
            "only then: start, end\nonly now: start, first byte\n\
             the machine was another: kernel 6.1 then, 6.18 now\n"
        );
        assert!(!comparison.has_become_worse(&new.measurements));
    }
}
