//! `Axis`: where on a drawing a number stands, and which numbers are written beside it.

use crate::bench::unit::Unit;

/// A range of numbers along a line of pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
    is_log: bool,
}

/// What is this many times as large is drawn on a logarithmic axis.
const FAR: f64 = 20.0;

impl Axis {
    /// From the least to the most of `values`, between two pixels.
    pub(super) fn of(values: impl Iterator<Item = f64>, from: f64, to: f64) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        if low > 0.0 && high / low > FAR {
            return Self { low: low / 1.1, high: high * 1.1, from, to, is_log: true };
        }
        // Where all are the same there is still a range around them.
        let room = if high > low { (high - low) * 0.04 } else { (high * 0.1).max(1.0) };
        Self { low: (low - room).max(0.0), high: high + room, from, to, is_log: false }
    }

    /// The same range, each doubling as wide as any other.
    pub(super) fn logarithmic(self) -> Self {
        let low = if self.low > 0.0 { self.low } else { self.high / 1e3 };
        Self { low, is_log: true, ..self }
    }

    /// The pixel of `value`.
    pub(super) fn place(&self, value: f64) -> f64 {
        let share = if self.is_log {
            (value.max(self.low) / self.low).ln() / (self.high / self.low).ln()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// In which of `count` equal pieces `value` is.
    pub(super) fn piece(&self, value: f64, count: usize) -> usize {
        let share = (self.place(value) - self.from) / (self.to - self.from);
        ((share * count as f64) as usize).min(count.saturating_sub(1))
    }

    /// Round numbers within, in the unit's own scale, and what is written there.
    pub(super) fn ticks(&self, unit: Unit) -> Vec<(f64, String)> {
        let size = unit.scale(self.high / 2.0).size;
        let numbers = if self.is_log { self.decades(size) } else { self.steps(size) };
        numbers.into_iter().map(|number| (number, tick(unit, number))).collect()
    }

    fn steps(&self, size: f64) -> Vec<f64> {
        let (low, high) = (self.low / size, self.high / size);
        let rough = (high - low) / 5.0;
        let decade = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0].map(|step| step * decade).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * decade);
        let first = (low / step).ceil() as i64;
        let last = (high / step).floor() as i64;
        (first..=last).map(|number| number as f64 * step * size).collect()
    }

    fn decades(&self, size: f64) -> Vec<f64> {
        let (low, high) =
            ((self.low / size).log10().floor() as i32, (self.high / size).log10().ceil() as i32);
        let within = |number: &f64| (self.low..=self.high).contains(number);
        let all = |steps: &[f64]| -> Vec<f64> {
            let of = |decade| steps.iter().map(move |step| step * 10_f64.powi(decade) * size);
            (low..=high).flat_map(of).filter(within).collect()
        };
        let fine = all(&[1.0, 2.0, 5.0]);
        if fine.len() <= 9 { fine } else { all(&[1.0]) }
    }
}

/// As [`Unit::readable`], without digits that say nothing.
fn tick(unit: Unit, value: f64) -> String {
    let text = unit.readable(value);
    let (number, name) = text.split_once(' ').unwrap_or((&text, ""));
    let number =
        if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number };
    format!("{number} {name}").trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(axis: Axis, unit: Unit) -> Vec<String> {
        axis.ticks(unit).into_iter().map(|(_, words)| words).collect()
    }

    #[test]
    fn numbers_close_together_stand_on_a_linear_axis_with_round_ticks() {
        let axis = Axis::of([1.0e6, 2.0e6].into_iter(), 0.0, 100.0);
        assert_eq!(words(axis, Unit::Nanoseconds), ["1 ms", "1.5 ms", "2 ms"]);
        assert_eq!((axis.place(1.5e6).round(), axis.place(0.0), axis.place(9e9)), (50.0, 0.0, 100.0));
        assert_eq!((axis.piece(0.0, 10), axis.piece(1.52e6, 10), axis.piece(9e9, 10)), (0, 5, 9));
    }

    #[test]
    fn numbers_far_apart_stand_on_a_logarithmic_one() {
        let axis = Axis::of([1e6, 1e9].into_iter(), 0.0, 100.0);
        assert_eq!(words(axis, Unit::Nanoseconds), ["1 ms", "10 ms", "100 ms", "1 s"]);
        assert_eq!(axis.place((1e6_f64 * 1e9).sqrt()).round(), 50.0);
    }

    #[test]
    fn equal_numbers_and_none_have_an_axis_too() {
        for values in [&[31.0, 31.0][..], &[0.0], &[]] {
            let axis = Axis::of(values.iter().copied(), 0.0, 100.0);
            assert!(axis.place(31.0).is_finite() && !axis.ticks(Unit::Count).is_empty(), "{axis:?}");
        }
        let zero = Axis::of([0.0, 5.0].into_iter(), 0.0, 100.0).logarithmic();
        assert!(zero.place(0.0) == 0.0 && zero.place(1.0).is_finite());
    }
}
