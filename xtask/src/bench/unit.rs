//! `Unit`: what a number counts, and how a person reads it.

use serde::{Deserialize, Serialize};

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

/// A multiple of a unit, in which numbers of one size are read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scale {
    /// What stands behind the numbers.
    pub(super) name: &'static str,
    /// What they are divided by.
    pub(super) size: f64,
}

const fn scale(name: &'static str, size: f64) -> Scale {
    Scale { name, size }
}

const KIB: f64 = 1024.0;
const TIMES: &[Scale] = &[scale("ns", 1.0), scale("us", 1e3), scale("ms", 1e6), scale("s", 1e9)];
const BYTES: &[Scale] =
    &[scale("B", 1.0), scale("KiB", KIB), scale("MiB", KIB * KIB), scale("GiB", KIB * KIB * KIB)];
const COUNTS: &[Scale] = &[scale("", 1.0)];
const RATES: &[Scale] = &[scale("/s", 1.0)];
const BYTE_RATES: &[Scale] =
    &[scale("B/s", 1.0), scale("KiB/s", KIB), scale("MiB/s", KIB * KIB), scale("GiB/s", KIB * KIB * KIB)];

impl Unit {
    /// Whether a smaller number is the better one.
    pub(super) fn less_is_better(self) -> bool {
        matches!(self, Self::Nanoseconds | Self::Bytes | Self::Count)
    }

    /// The multiple in which `value` is neither tiny nor long.
    pub(super) fn scale(self, value: f64) -> Scale {
        let scales = match self {
            Self::Nanoseconds => TIMES,
            Self::Bytes => BYTES,
            Self::Count => COUNTS,
            Self::PerSecond => RATES,
            Self::BytesPerSecond => BYTE_RATES,
        };
        scales.iter().rev().find(|scale| value >= scale.size).copied().unwrap_or(scales[0])
    }

    /// A number as a person reads it.
    pub(super) fn readable(self, value: f64) -> String {
        let scale = self.scale(value);
        format!("{} {}", scale.number(value), scale.name).trim_end().to_owned()
    }
}

impl Scale {
    /// `value` in this scale: three digits tell, and no digit of a whole number is lost.
    pub(super) fn number(self, value: f64) -> String {
        let value = value / self.size;
        match value {
            _ if value.fract() == 0.0 || value >= 99.95 => format!("{value:.0}"),
            _ if value >= 9.995 => format!("{value:.1}"),
            _ if value >= 0.0995 => format!("{value:.2}"),
            _ => format!("{value:.3}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_in_their_unit() {
        let times = [0.25, 12.4, 8200.0, 4.5e5, 1.5e6, 2e9].map(|value| Unit::Nanoseconds.readable(value));
        assert_eq!(times, ["0.25 ns", "12.4 ns", "8.20 us", "450 us", "1.50 ms", "2 s"]);
        let sizes = [512.0, 2048.0, 3.0 * KIB * KIB, 1e10].map(|value| Unit::Bytes.readable(value));
        assert_eq!(sizes, ["512 B", "2 KiB", "3 MiB", "9.31 GiB"]);
        assert_eq!(Unit::Count.readable(31.0), "31");
        assert_eq!(Unit::PerSecond.readable(5321.7), "5322 /s");
        assert_eq!(Unit::BytesPerSecond.readable(3.0 * KIB), "3 KiB/s");
    }

    #[test]
    fn a_number_of_another_size_keeps_the_scale_it_stands_in() {
        let scale = Unit::Nanoseconds.scale(2e6);
        assert_eq!([2e6, 3e4, 4.2e9].map(|value| scale.number(value)), ["2", "0.030", "4200"]);
    }
}
