//! A curve: how something grows, with its limit; the median as a line, and around it where four of five samples are.

use super::axis::Axis;
use super::sheet::{LEFT, RIGHT, Sheet};
use crate::bench::measurement::{At, Measurement};
use crate::bench::statistics::Samples;

const HEIGHT: f64 = 190.0;
/// Where the drawing begins, beside the numbers.
const BEGIN: f64 = LEFT + 64.0;
/// The band.
const SHARES: [f64; 2] = [0.1, 0.9];

/// Draws the points of one curve; nothing where there are none.
pub(super) fn draw(sheet: &mut Sheet, points: &[&Measurement]) {
    let mut points: Vec<(&At, &Measurement)> =
        points.iter().filter_map(|point| Some((point.at.as_ref()?, *point))).collect();
    points.sort_by(|(one, _), (other, _)| one.value.total_cmp(&other.value));
    let Some((last_at, last)) = points.last().copied() else { return };
    let limit = last.limit.as_ref().map(|limit| limit.name.as_str());
    let told = format!("by {}; at the end {}", last_at.axis, super::told(last));
    let top = sheet.begin(&last.name, &told, "measured", limit, HEIGHT + 112.0);
    let (upper, lower) = (top + 66.0, top + 66.0 + HEIGHT);

    let across = Axis::of(points.iter().map(|(at, _)| at.value), BEGIN + 12.0, RIGHT - 12.0).logarithmic();
    let limits = points.iter().filter_map(|(_, point)| point.limit.as_ref()).map(|limit| &limit.samples);
    let all = points.iter().map(|(_, point)| &point.samples).chain(limits);
    let up = Axis::of(all.flat_map(|samples| SHARES.map(|share| samples.quantile(share))), lower, upper);
    for (value, words) in up.ticks(last.unit) {
        let y = up.place(value);
        sheet.line("grid", (BEGIN, y), (RIGHT, y));
        sheet.text(BEGIN - 8.0, y + 4.0, "end", &words);
    }
    let mut free_from = 0.0;
    for (at, _) in &points {
        let x = across.place(at.value);
        sheet.line("base", (x, lower), (x, lower + 5.0));
        // Where points are dense, not all have room for words.
        if x >= free_from {
            sheet.text(x, lower + 22.0, "middle", &at.unit.readable(at.value));
            free_from = x + 62.0;
        }
    }
    sheet.line("base", (BEGIN, lower), (RIGHT, lower));
    let of_limit = |point: &Measurement| point.limit.as_ref().map(|limit| limit.samples.clone());
    one(sheet, "limit", &across, &up, &points, of_limit);
    one(sheet, "own", &across, &up, &points, |point| Some(point.samples.clone()));
}

/// The line, the band, and a dot for each point.
fn one(
    sheet: &mut Sheet,
    class: &str,
    across: &Axis,
    up: &Axis,
    points: &[(&At, &Measurement)],
    of: impl Fn(&Measurement) -> Option<Samples>,
) {
    let line = |share: f64| -> Vec<(f64, f64)> {
        let place = |(at, point): &(&At, &Measurement)| {
            Some((across.place(at.value), up.place(of(point)?.quantile(share))))
        };
        points.iter().filter_map(place).collect()
    };
    let [mut band, mut back] = SHARES.map(line);
    back.reverse();
    band.extend(back);
    let median = line(0.5);
    if !median.is_empty() {
        sheet.path(&format!("band {class}"), &band);
        sheet.path(&format!("line {class}"), &median);
    }
    median.into_iter().for_each(|place| sheet.dot(class, place));
}
