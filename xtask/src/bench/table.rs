//! The table: a line for each measurement, its limit, what it is to that, and whether it is what was promised.
//!
//! ```text
//! start                          least median    p99    beside  least median    p99  ratio     95 % of   least  goal
//! exec to first guest byte  ms    0.41   0.45   0.91    floor    0.39   0.42   0.80   1.07  1.06–1.08    1.05  ≤1.35 ok
//! ```
//!
//! The numbers of a line are in one unit. The ratio is the median of the ratios pair by pair, with the interval in which
//! it lies in 19 of 20 cases; behind it stands the ratio of the least of both.

use super::compare::Comparison;
use super::measurement::{Goal, Measurement};
use super::statistics::Samples;
use super::unit::Scale;

/// What makes words stand out, where somebody looks who can see it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Colours {
    /// Whether there are any.
    pub(super) are_shown: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Colour {
    Plain,
    Bold,
    Faint,
    Good,
    Bad,
}

/// All measurements, group by group; with what each was before, where there is a comparison.
pub(super) fn render(measurements: &[Measurement], before: Option<&Comparison>, colours: Colours) -> String {
    let rows: Vec<Row> = measurements.iter().map(Row::of).collect();
    let widths: [usize; COLUMNS] = std::array::from_fn(|column| {
        let cells = rows.iter().map(|row| width(&row.cells[column]));
        cells.chain([width(HEADS[column])]).max().unwrap_or_default()
    });
    let mut text = String::new();
    let mut group = "";
    for (measurement, row) in measurements.iter().zip(&rows) {
        if measurement.group != group {
            group = &measurement.group;
            let gap = if text.is_empty() { "" } else { "\n" };
            let mut heads = HEADS.map(str::to_owned);
            group.clone_into(&mut heads[0]);
            text += &format!("{gap}{}\n", colours.paint(Colour::Bold, &aligned(&heads, &widths)));
        }
        let verdict = match row.is_met {
            None => String::new(),
            Some(true) => colours.paint(Colour::Good, " ok"),
            Some(false) => colours.paint(Colour::Bad, " missed"),
        };
        text += &format!("{}{verdict}\n", colours.paint(Colour::Plain, &aligned(&row.cells, &widths)));
        if let Some(change) = before.and_then(|before| before.of(measurement)) {
            let colour = match change.is_worse() {
                true => Colour::Bad,
                false if change.is_beyond_noise => Colour::Good,
                false => Colour::Faint,
            };
            text += &format!("  {}\n", colours.paint(colour, &change.to_string()));
        }
    }
    text
}

const COLUMNS: usize = 13;
const HEADS: [&str; COLUMNS] = [
    "", "", "least", "median", "p99", "beside", "least", "median", "p99", "ratio", "95 % of", "least", "goal",
];
/// The columns of words; numbers stand at the right.
const WORDS: [usize; 4] = [0, 1, 5, 12];

/// A line in pieces.
struct Row {
    cells: [String; COLUMNS],
    is_met: Option<bool>,
}

impl Row {
    fn of(measurement: &Measurement) -> Self {
        let scale = measurement.unit.scale(measurement.samples.median());
        let [least, median, p99] = quantiles(&measurement.samples, scale);
        let none = || [const { String::new() }; 3];
        let (limit_name, limit) = match &measurement.limit {
            None => (String::new(), none()),
            Some(limit) => (limit.name.clone(), quantiles(&limit.samples, scale)),
        };
        let [ratio, spread, of_least] = measurement.ratios().map_or_else(none, |ratios| {
            let (low, high) = ratios.median_interval();
            let least = measurement.limit.as_ref().map_or(0.0, |limit| limit.samples.least());
            let of_least = short(measurement.samples.least() / least);
            [short(ratios.median()), format!("{}–{}", short(low), short(high)), of_least]
        });
        let goal = measurement.goal.map_or(String::new(), |goal| promise(goal, measurement));
        let [limit_least, limit_median, limit_p99] = limit;
        let cells = [
            measurement.title(),
            scale.name.to_owned(),
            least,
            median,
            p99,
            limit_name,
            limit_least,
            limit_median,
            limit_p99,
            ratio,
            spread,
            of_least,
            goal,
        ];
        Self { cells, is_met: measurement.meets_goal() }
    }
}

fn quantiles(samples: &Samples, scale: Scale) -> [String; 3] {
    [0.0, 0.5, 0.99].map(|share| scale.number(samples.quantile(share)))
}

/// A ratio as it is read.
pub(super) fn short(ratio: f64) -> String {
    match ratio {
        _ if ratio >= 100.0 => format!("{ratio:.0}"),
        _ if ratio >= 10.0 => format!("{ratio:.1}"),
        _ if ratio >= 0.01 => format!("{ratio:.2}"),
        _ => format!("{ratio:.4}"),
    }
}

/// What is promised, in words.
pub(super) fn promise(goal: Goal, measurement: &Measurement) -> String {
    let parts = [
        goal.median.map(|most| format!("≤{}", measurement.unit.readable(most))),
        goal.ratio.map(|most| format!("≤{most}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(" or ")
}

fn aligned(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let mut line = String::new();
    for (column, (cell, wanted)) in cells.iter().zip(widths).enumerate() {
        let gap = if matches!(column, 0 | 3 | 4 | 6 | 7 | 8) { 1 } else { 2 };
        let before = " ".repeat(if column == 0 { 0 } else { gap });
        let missing = " ".repeat(wanted.saturating_sub(width(cell)));
        line += &before;
        line +=
            &if WORDS.contains(&column) { format!("{cell}{missing}") } else { format!("{missing}{cell}") };
    }
    line.trim_end().to_owned()
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

impl Colours {
    fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Plain => return text.to_owned(),
            Colour::Bold => 1,
            Colour::Faint => 2,
            Colour::Good => 32,
            Colour::Bad => 31,
        };
        if self.are_shown { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{alone, beside_floor, point};

    #[test]
    fn a_line_has_the_numbers_in_one_unit_and_says_whether_the_goal_is_met() {
        let goal = Goal { ratio: Some(1.35), median: None };
        let found = [
            beside_floor("exec to end", &[1.5e6, 2.2e6, 3e6], &[1e6, 2e6, 3e6]).promised(goal),
            beside_floor("exec to first byte", &[3e3, 3e3, 3e3], &[1e3, 1e3, 1e3]).promised(goal),
        ];
        let text = render(&found, None, Colours::default());
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            rows[0].join(" "),
            "start least median p99 beside least median p99 ratio 95 % of least goal"
        );
        let first = "exec to end ms 1.50 2.20 3 floor 1 2 3 1.10 1.00–1.50 1.50 ≤1.35 ok";
        assert_eq!(rows[1].join(" "), first);
        let second = "exec to first byte us 3 3 3 floor 1 1 1 3.00 3.00–3.00 3.00 ≤1.35 missed";
        assert_eq!(rows[2].join(" "), second);
        assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    }

    #[test]
    fn a_curve_has_a_line_for_each_point_and_what_has_no_limit_has_no_ratio() {
        let found = [point(2.0 * 1024.0 * 1024.0, &[5.0]), alone("machines", &[7.0])];
        let text = render(&found, None, Colours::default());
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[1].starts_with("start, 2 MiB  ns") && lines[1].ends_with("5      5   5"), "{text}");
        assert!(lines[2].is_empty() && lines[3].starts_with("snapshots"), "{text}");
        assert!(lines[4].starts_with("machines"), "{text}");
    }

    #[test]
    fn colours_are_there_when_they_are_wanted() {
        let goal = Goal { ratio: Some(1.0), median: None };
        let found = [beside_floor("exec to end", &[2.0], &[1.0]).promised(goal)];
        assert!(render(&found, None, Colours { are_shown: true }).ends_with("\x1b[31m missed\x1b[0m\n"));
        assert!(!render(&found, None, Colours::default()).contains('\x1b'));
    }
}
