//! The table: a line for each measurement, with its limit and what it is to it.
use super::measurement::Measurement;

/// All of them.
pub(super) fn render(measurements: &[Measurement]) -> String {
    let mut text = String::new();
    for measurement in measurements {
        let name = measurement.title();
        let median = measurement.unit.readable(measurement.samples.median());
        let ratio = measurement.ratios().map_or(String::new(), |ratios| format!("{:.2}", ratios.median()));
        text += &format!("{name:36} {median:>10} {ratio:>6}\n");
    }
    text
}
