//! `Lines`: which lines of which files were reached, read from and written to files in lcov's format (geninfo(1), "FILES").
//!
//! Of a file's records only `SF` and `DA` are read: the others say what these add up to, or tell of functions and branches.

use std::collections::BTreeMap;
use std::path::Path;

use crate::workspace;

/// Which lines were reached, and how often: of the workspace's own sources.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines(BTreeMap<String, BTreeMap<u64, u64>>);

/// How many lines a file has code of, and how many of these were reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Lines with code.
    pub lines: usize,
    /// Those that were reached.
    pub covered: usize,
}

impl Counts {
    /// The part that was reached, in percent; of nothing, all.
    #[must_use]
    pub fn percent(self) -> f64 {
        if self.lines == 0 { 100.0 } else { self.covered as f64 * 100.0 / self.lines as f64 }
    }
}

impl Lines {
    /// What a file of results says of files in the workspace; others are left out, and so is what is no record.
    #[must_use]
    pub fn read(text: &str) -> Self {
        let mut lines = Self::default();
        let mut file = None;
        for record in text.lines() {
            if let Some(path) = record.strip_prefix("SF:") {
                file = own(path);
            } else if let Some((line, hits)) = record.strip_prefix("DA:").and_then(line)
                && let Some(file) = &file
            {
                lines.reach(file, line, hits);
            }
        }
        lines
    }

    fn reach(&mut self, file: &str, line: u64, hits: u64) {
        let lines = self.0.entry(file.to_owned()).or_default();
        let so_far = lines.entry(line).or_default();
        *so_far = so_far.saturating_add(hits);
    }

    /// Adds what others have reached.
    pub fn add(&mut self, other: &Self) {
        for (file, lines) in &other.0 {
            for (&line, &hits) in lines {
                self.reach(file, line, hits);
            }
        }
    }

    /// The files, by name.
    pub fn files(&self) -> impl Iterator<Item = (&str, Counts)> {
        self.0.iter().map(|(file, lines)| (file.as_str(), counts(lines)))
    }

    /// The lines of a file that have code, with how often each was reached.
    #[must_use]
    pub fn of(&self, file: &str) -> Option<&BTreeMap<u64, u64>> {
        self.0.get(file)
    }

    /// All files together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.files().fold(Counts::default(), |sum, (_, file)| Counts {
            lines: sum.lines + file.lines,
            covered: sum.covered + file.covered,
        })
    }

    /// A file of results.
    #[must_use]
    pub fn to_lcov(&self) -> String {
        let mut text = String::new();
        for (file, lines) in &self.0 {
            let Counts { lines: found, covered } = counts(lines);
            text += &format!("SF:{file}\n");
            text.extend(lines.iter().map(|(line, hits)| format!("DA:{line},{hits}\n")));
            text += &format!("LF:{found}\nLH:{covered}\nend_of_record\n");
        }
        text
    }
}

fn counts(lines: &BTreeMap<u64, u64>) -> Counts {
    Counts { lines: lines.len(), covered: lines.values().filter(|&&hits| hits > 0).count() }
}

/// `12,3` or `12,3,checksum`
fn line(record: &str) -> Option<(u64, u64)> {
    let mut parts = record.split(',');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// The path of a source of the workspace, relative to it. Files of tests alone are none: they reach, and are not reached.
fn own(path: &str) -> Option<String> {
    let path = Path::new(path);
    let relative = match path.strip_prefix(workspace::root()) {
        Ok(relative) => relative,
        Err(_) if path.is_relative() => path,
        Err(_) => return None,
    };
    let is_other = relative.iter().any(|part| part == "target" || part == "tests" || part == "tests.rs");
    (!is_other).then(|| relative.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_have_reached_is_added_up_and_strangers_are_left_out() {
        let root = workspace::root().display();
        let mut lines = Lines::read(&format!(
            "TN:\nSF:{root}/a.rs\nFN:1,f\nDA:1,0\nDA:2,5,hash\nBRDA:1,0,0,1\nLF:2\nend_of_record\n\
             SF:/elsewhere/b.rs\nDA:1,1\nend_of_record\nSF:{root}/target/made.rs\nDA:1,1\nend_of_record\n\
             SF:{root}/a/tests/c.rs\nDA:1,1\nend_of_record\n"
        ));
        lines.add(&Lines::read("SF:a.rs\nDA:1,2\nDA:9,0\nend_of_record\n"));
        let written = "SF:a.rs\nDA:1,2\nDA:2,5\nDA:9,0\nLF:3\nLH:2\nend_of_record\n";
        assert_eq!(lines.to_lcov(), written);
        assert_eq!(Lines::read(written), lines);
    }

    #[test]
    fn what_is_no_record_is_left_out() {
        let lines = Lines::read("DA:1,1\nSF:a.rs\nDA:x,1\nDA:2\nDA:3,-1\nDA:4,1\n");
        assert_eq!(lines.to_lcov(), "SF:a.rs\nDA:4,1\nLF:1\nLH:1\nend_of_record\n");
    }
}
