//! The distribution of a measurement, above a line, and that of its limit, mirrored below it.

use super::axis::Axis;
use super::sheet::{LEFT, RIGHT, Sheet};
use crate::bench::measurement::Measurement;
use crate::bench::statistics::Samples;

const BINS: usize = 120;
const HEIGHT: f64 = 62.0;
/// How much of all is on the drawing: the rest would make it of little more than itself.
const SHOWN: f64 = 0.98;

/// Draws it.
pub(super) fn draw(sheet: &mut Sheet, measurement: &Measurement) {
    let limit = measurement.limit.as_ref();
    let halves = if limit.is_some() { 2.0 } else { 1.0 };
    let name = limit.map(|limit| limit.name.as_str());
    let told = super::told(measurement);
    let top = sheet.begin(&measurement.title(), &told, "measured", name, 106.0 + halves * HEIGHT);
    let base = top + 66.0 + HEIGHT;
    let bottom = top + 66.0 + halves * HEIGHT;

    let both: Vec<&Samples> =
        [Some(&measurement.samples), limit.map(|limit| &limit.samples)].into_iter().flatten().collect();
    let ends = both.iter().flat_map(|samples| [samples.least(), samples.quantile(SHOWN)]);
    let axis = Axis::of(ends, LEFT, RIGHT);
    for (value, words) in axis.ticks(measurement.unit) {
        let x = axis.place(value);
        sheet.line("grid", (x, top + 62.0), (x, bottom + 6.0));
        sheet.text(x, bottom + 22.0, "middle", &words);
    }
    for (samples, class, y_of_all) in both
        .iter()
        .zip(["own", "limit"])
        .zip([-HEIGHT, HEIGHT])
        .map(|((samples, class), y)| (samples, class, y))
    {
        half(sheet, &axis, samples, class, base, y_of_all);
        let x = axis.place(samples.median());
        sheet.line(&format!("median {class}"), (x, base), (x, base + y_of_all));
        let words = measurement.unit.readable(samples.median());
        let (x, side) = if x > RIGHT - 90.0 { (x - 6.0, "end") } else { (x + 6.0, "") };
        let y = base + y_of_all + if y_of_all < 0.0 { 4.0 } else { 2.0 };
        sheet.text(x, y, &format!("{class} {side}"), &words);
        beyond(sheet, samples, base + y_of_all / 2.0);
    }
    sheet.line("base", (LEFT, base), (RIGHT, base));
}

/// One of both, its highest bar as high as there is room.
fn half(sheet: &mut Sheet, axis: &Axis, samples: &Samples, class: &str, base: f64, height: f64) {
    let mut bins = [0_u32; BINS];
    let shown = samples.quantile(SHOWN);
    for value in samples.iter().filter(|value| *value <= shown) {
        bins[axis.piece(value, BINS)] += 1;
    }
    let most = f64::from(bins.iter().copied().max().unwrap_or_default().max(1));
    let wide = (RIGHT - LEFT) / BINS as f64;
    let mut outline = vec![(LEFT, base)];
    for (bin, count) in bins.iter().enumerate() {
        let (x, y) = (LEFT + bin as f64 * wide, base + height * 0.82 * f64::from(*count) / most);
        outline.extend([(x, y), (x + wide, y)]);
    }
    outline.push((RIGHT, base));
    sheet.path(&format!("bars {class}"), &outline);
}

/// Says how many are not on the drawing.
fn beyond(sheet: &mut Sheet, samples: &Samples, y: f64) {
    let shown = samples.quantile(SHOWN);
    let count = samples.iter().filter(|value| *value > shown).count();
    if count > 0 {
        sheet.text(RIGHT, y, "end", &format!("{count} of {} beyond →", samples.count()));
    }
}
