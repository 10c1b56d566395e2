//! What was seen, for people: a table, a line of small bars, a sentence.

use std::fmt::Write;

use super::Seen;
use super::kernel::State;
use super::sample::Sample;

/// At most so many rows; of more samples some are left out.
const ROWS: usize = 16;

/// The table, the bars and the sum, each on lines of its own.
pub(super) fn table(seen: &Seen) -> String {
    let mut text = format!(
        "{:>7} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        "seconds", "scans", "pages", "merged", "private", "in use", "saved", "frames"
    );
    for sample in some_of(&seen.samples, ROWS) {
        text.push_str(&row(sample));
    }
    if seen.samples.len() > 1 {
        let saved: Vec<u64> = some_of(&seen.samples, BARS).map(|sample| sample.guests.saved).collect();
        let most = saved.iter().max().copied().unwrap_or_default();
        let _ = writeln!(text, "\nsaved, over time: {}  (full height: {most} pages)", sparkline(&saved));
    }
    if let Some(last) = seen.samples.last() {
        let _ = writeln!(text, "\n{}", conclusion(last, seen));
    }
    text
}

/// At most so many bars.
const BARS: usize = 60;

/// One line that is written again and again while something happens.
pub(super) fn progress(last: &Sample, vms: u32, limit: u64) -> String {
    let scans = last.ksm.map_or(0, |ksm| ksm.full_scans);
    format!(
        "{vms} machines, {:.1} of at most {limit} s, scan {scans}: {} of {} pages saved",
        last.seconds, last.guests.saved, last.guests.present
    )
}

fn row(sample: &Sample) -> String {
    let known = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
    let pages = &sample.guests;
    format!(
        "{:>7.2} {:>6} {:>9} {:>9} {:>9} {:>9} {:>9} {:>9}\n",
        sample.seconds,
        known(sample.ksm.map(|ksm| ksm.full_scans)),
        pages.present,
        known(pages.merged),
        known(pages.private),
        pages.in_use,
        pages.saved,
        known(pages.frames),
    )
}

fn conclusion(last: &Sample, seen: &Seen) -> String {
    let pages = &last.guests;
    let mut text = format!(
        "{} machines have {}; in use for them are {}: {} saved",
        seen.vms,
        mib(pages.present),
        mib(pages.in_use),
        mib(pages.saved)
    );
    if seen.ksm != State::On {
        text.push_str(", as KSM is off");
    } else if let Some(ksm) = last.ksm {
        let (shared, sharing) = (ksm.pages_shared, ksm.pages_sharing);
        let _ = write!(text, ". In the whole kernel {shared} merged pages stand for {sharing} others");
    }
    text
}

fn mib(pages: u64) -> String {
    format!("{:.1} MiB", pages as f64 / 256.0)
}

/// At most `most` of the samples, evenly, the first and the last among them.
fn some_of(samples: &[Sample], most: usize) -> impl Iterator<Item = &Sample> {
    let last = samples.len().saturating_sub(1);
    let count = samples.len().min(most);
    (0..count).filter_map(move |row| samples.get(row * last / (count - 1).max(1)))
}

/// A bar for each value, the highest full. Where all are 0, all are low.
fn sparkline(values: &[u64]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let most = values.iter().max().copied().unwrap_or_default().max(1);
    let bar = |value: u64| {
        let height = u128::from(value) * (BARS.len() as u128 - 1) / u128::from(most);
        usize::try_from(height).ok().and_then(|height| BARS.get(height)).copied().unwrap_or('█')
    };
    values.iter().map(|&value| bar(value)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::ksm::sample::Pages;

    #[test]
    fn the_highest_bar_is_full_and_zero_is_low() {
        assert_eq!(sparkline(&[0, 1, 4, 7]), "▁▂▅█");
        assert_eq!(sparkline(&[0, 0]), "▁▁");
        assert_eq!(sparkline(&[u64::MAX, 0]), "█▁");
        assert_eq!(sparkline(&[]), "");
    }

    #[test]
    fn of_many_samples_the_first_and_the_last_are_shown() {
        let samples: Vec<_> = (0..100).map(|scans| Sample::of_test(scans, 0)).collect();
        let scans: Vec<_> = some_of(&samples, 4).map(|sample| sample.ksm.expect("KSM").full_scans).collect();
        assert_eq!(scans, [0, 33, 66, 99]);
        assert_eq!(some_of(&samples[..1], 4).count(), 1);
        assert_eq!(some_of(&[], 4).count(), 0);
    }

    #[test]
    fn a_table_has_a_dash_for_what_is_not_known() {
        let guests = Pages { present: 2560, in_use: 1280, saved: 1280, ..Pages::default() };
        let last = Sample { guests, ..Sample::of_test(7, 0) };
        let samples = vec![Sample::of_test(5, 0), last];
        let text = table(&Seen { ksm: State::On, vms: 8, equal_mib: 4, own_mib: 1, samples });
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[2], ["0.00", "7", "2560", "-", "-", "1280", "1280", "-"]);
        assert!(
            text.contains("▁█") && text.contains("8 machines have 10.0 MiB; in use for them are 5.0 MiB")
        );
    }
}
