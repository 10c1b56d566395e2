//! The plots of `--plot`: for each group a picture of its distributions and curves, and a page that shows all.

mod axis;
mod curve;
mod distribution;
mod sheet;

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::measurement::Measurement;
use super::record::Record;
use super::table::{promise, short};
use sheet::{Sheet, escaped};

const STYLE: &str = "\
:root { color-scheme: light dark; --page: #fff; --ink: #1f2328; --faint: #59636e }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --ink: #e6edf3; --faint: #9198a1 } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 900px; margin: 1.5rem auto; padding: 0 1rem;
  background: var(--page); color: var(--ink) }
p { color: var(--faint) } img { display: block; width: 100%; height: auto }
";

/// Writes the files into `folder`, which is made if need be.
///
/// # Errors
/// When they cannot be written.
pub(super) fn write(folder: &Path, record: &Record) -> Result<()> {
    let write = |name: &str, text: &str| {
        let path = folder.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let groups = groups(&record.measurements);
    for group in &groups {
        write(&format!("{group}.svg"), &picture(group, &record.measurements))?;
    }
    write("index.html", &page(&groups, record))
}

/// Their names, in the order they were measured.
fn groups(measurements: &[Measurement]) -> Vec<&str> {
    let mut groups: Vec<&str> = measurements.iter().map(|measurement| measurement.group.as_str()).collect();
    groups.dedup();
    groups
}

/// Of one group.
fn picture(group: &str, measurements: &[Measurement]) -> String {
    let mut sheet = Sheet::default();
    let mut drawn: Vec<&str> = Vec::new();
    for measurement in measurements.iter().filter(|measurement| measurement.group == group) {
        if measurement.at.is_none() {
            distribution::draw(&mut sheet, measurement);
        } else if !drawn.contains(&measurement.name.as_str()) {
            drawn.push(&measurement.name);
            let is_of_curve = |other: &&Measurement| other.group == group && other.name == measurement.name;
            curve::draw(&mut sheet, &measurements.iter().filter(is_of_curve).collect::<Vec<_>>());
        }
    }
    sheet.finish(group)
}

/// What stands beside a title.
fn told(measurement: &Measurement) -> String {
    let mut parts = Vec::new();
    if let Some(ratios) = measurement.ratios() {
        let (low, high) = ratios.median_interval();
        parts.push(format!("ratio {} ({}–{})", short(ratios.median()), short(low), short(high)));
    }
    if let Some((goal, is_met)) = measurement.goal.zip(measurement.meets_goal()) {
        let verdict = if is_met { "met" } else { "missed" };
        parts.push(format!("goal {} {verdict}", promise(goal, measurement)));
    }
    parts.push(match measurement.samples.count() {
        1 => "1 sample".to_owned(),
        count => format!("{count} samples"),
    });
    parts.join(", ")
}

fn page(groups: &[&str], record: &Record) -> String {
    let machine = escaped(&record.machine.summary());
    let commit =
        record.commit.as_ref().map_or(String::new(), |commit| format!("<br>commit {}", escaped(commit)));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\"><title>Benchmarks</title>\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<style>\n{STYLE}</style>\n<h1>Benchmarks</h1>\n\
         <p>{machine}{commit}<br>Above the line what was measured, below it what it was measured beside, in the same \
         rounds.</p>\n"
    );
    for group in groups.iter().map(|group| escaped(group)) {
        let _ = write!(
            page,
            "<h2>{group}</h2>\n<a href=\"{group}.svg\"><img src=\"{group}.svg\" alt=\"{group}\"></a>\n"
        );
    }
    page + "</html>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{alone, beside_floor, point, record};

    fn all() -> Vec<Measurement> {
        let mut odd = beside_floor("a <b> & \"c\" \u{7}", &[5.0; 30], &[2.0; 30]);
        odd.limit.as_mut().expect("it has one").name = "'<&>".to_owned();
        let curve = [1.0, 2.0, 1024.0].map(|at| point(at, &[at + 3.0, at + 4.0]));
        let many: Vec<f64> = (1..=300).map(f64::from).collect();
        let far: Vec<f64> = many.iter().map(|number| number * 1000.0).collect();
        [vec![odd, beside_floor("many", &many, &far)], curve.to_vec(), vec![alone("machines", &[7.0])]]
            .concat()
    }

    #[test]
    fn pictures_are_well_formed_whatever_the_names_are() {
        for group in groups(&all()) {
            let picture = picture(group, &all());
            let document = roxmltree::Document::parse(&picture).expect("it is XML");
            assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
            let texts: Vec<_> = document
                .descendants()
                .filter(|node| node.has_tag_name("text"))
                .filter_map(|node| node.text())
                .collect();
            assert!(group != "start" || texts.contains(&"a <b> & \"c\" \u{fffd}"), "{texts:?}");
        }
    }

    #[test]
    fn a_curve_is_one_drawing_and_what_is_far_away_is_counted() {
        let picture = picture("start", &all());
        assert_eq!(picture.matches("class=\"title\"").count(), 3, "{picture}");
        assert_eq!(picture.matches("(15 of 300 are beyond)").count(), 2);
        assert!(picture.contains(">1 KiB</text>"));
    }

    #[test]
    fn the_page_shows_a_picture_of_each_group_and_loads_nothing_else() {
        let folder = tempfile::tempdir().expect("a folder");
        let below = folder.path().join("new");
        write(&below, &record(all())).expect("it is written");
        let page = fs::read_to_string(below.join("index.html")).expect("it is there");
        for group in ["start", "snapshots"] {
            assert!(
                page.contains(&format!("src=\"{group}.svg\"")) && below.join(format!("{group}.svg")).exists()
            );
        }
        assert!(!page.contains("http") && !page.contains("<script"), "{page}");
    }
}
