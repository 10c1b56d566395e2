//! The distribution of a measurement, above a line, and that of its limit, mirrored below it.

use super::axis::Axis;
use super::sheet::{LEFT, RIGHT, Sheet};
use crate::bench::measurement::Measurement;
use crate::bench::statistics::Samples;
use crate::bench::unit::Unit;

const HEIGHT: f64 = 62.0;
/// How much of all is on the drawing: the rest would make it of little more than itself.
const SHOWN: f64 = 0.95;

/// Draws it.
pub(super) fn draw(sheet: &mut Sheet, measurement: &Measurement) {
    let own = &measurement.samples;
    let limit = measurement.limit.as_ref().map(|limit| &limit.samples);
    let rows = if limit.is_some() { 2.0 } else { 1.0 };
    let limit_words = measurement.limit.as_ref().map(|limit| words(&limit.name, &limit.samples));
    let told = super::told(measurement);
    let height = 106.0 + rows * HEIGHT;
    let top =
        sheet.begin(&measurement.title(), &told, &words("measured", own), limit_words.as_deref(), height);
    let (base, bottom) = (top + 66.0 + HEIGHT, top + 66.0 + rows * HEIGHT);

    let shown = |samples: &Samples| [samples.least(), samples.quantile(SHOWN)];
    let axis = Axis::of([Some(own), limit].into_iter().flatten().flat_map(shown), LEFT, RIGHT);
    for (value, words) in axis.ticks(measurement.unit) {
        let x = axis.place(value);
        sheet.line("grid", (x, top + 62.0), (x, bottom + 6.0));
        sheet.text(x, bottom + 22.0, "middle", &words);
    }
    half(sheet, &axis, (own, "own"), measurement.unit, base, -HEIGHT);
    if let Some(limit) = limit {
        half(sheet, &axis, (limit, "limit"), measurement.unit, base, HEIGHT);
    }
    sheet.line("base", (LEFT, base), (RIGHT, base));
}

/// One of both with its median, upwards or downwards.
fn half(
    sheet: &mut Sheet,
    axis: &Axis,
    (samples, class): (&Samples, &str),
    unit: Unit,
    base: f64,
    height: f64,
) {
    bars(sheet, axis, samples, class, base, height * 0.82);
    let x = axis.place(samples.median());
    sheet.line(&format!("median {class}"), (x, base), (x, base + height));
    let (x, side) = if x > RIGHT - 90.0 { (x - 6.0, "end") } else { (x + 6.0, "") };
    let y = base + height + if height < 0.0 { 4.0 } else { 2.0 };
    sheet.text(x, y, &format!("{class} {side}"), &unit.readable(samples.median()));
}

/// The name, and how many are not on the drawing.
fn words(name: &str, samples: &Samples) -> String {
    let shown = samples.quantile(SHOWN);
    match samples.iter().filter(|value| *value > shown).count() {
        0 => name.to_owned(),
        beyond => format!("{name} ({beyond} of {} are beyond)", samples.count()),
    }
}

/// How many are where; the highest bar is as high as there is room.
fn bars(sheet: &mut Sheet, axis: &Axis, samples: &Samples, class: &str, base: f64, height: f64) {
    // Few samples in narrow bars would be a comb.
    let count = ((samples.count() as f64).sqrt() * 7.0).clamp(40.0, 120.0) as usize;
    let mut bins = vec![0_u32; count];
    let shown = samples.quantile(SHOWN);
    for value in samples.iter().filter(|value| *value <= shown) {
        bins[axis.piece(value, count)] += 1;
    }
    let most = f64::from(bins.iter().copied().max().unwrap_or_default().max(1));
    let wide = (RIGHT - LEFT) / count as f64;
    let mut outline = vec![(LEFT, base)];
    for (bin, count) in bins.iter().enumerate() {
        let (x, y) = (LEFT + bin as f64 * wide, base + height * f64::from(*count) / most);
        outline.extend([(x, y), (x + wide, y)]);
    }
    outline.push((RIGHT, base));
    sheet.path(&format!("bars {class}"), &outline);
}
