//! The file of results, in lcov's format (geninfo(1), "FILES"): for each source file its lines, and how often each was
//! reached. Here that is 1 or 0: traps are lifted when they are reached first.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;

use super::Coverage;

/// How much was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Source files that the image has code of.
    pub files: usize,
    /// Lines that it has code of.
    pub lines: usize,
    /// Those that were reached.
    pub covered: usize,
}

impl fmt::Display for Summary {
    /// `12 of 34 lines of 5 files`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} lines of {} files", self.covered, self.lines, self.files)
    }
}

impl Coverage {
    /// Every line that the image has code of, and whether it was reached; by file.
    #[must_use]
    pub fn lines(&self) -> BTreeMap<PathBuf, BTreeMap<u64, bool>> {
        let reached = self.reached();
        let mut files: BTreeMap<PathBuf, BTreeMap<u64, bool>> = BTreeMap::new();
        for (file, line, address) in self.table.places() {
            let lines = match files.get_mut(file) {
                Some(lines) => lines,
                None => files.entry(file.clone()).or_default(),
            };
            *lines.entry(line).or_default() |= reached.contains(&address);
        }
        files
    }

    /// How much was reached.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let mut summary = Summary::default();
        for lines in self.lines().values() {
            summary.files += 1;
            summary.lines += lines.len();
            summary.covered += lines.values().filter(|&&reached| reached).count();
        }
        summary
    }

    /// The file of results.
    ///
    /// # Panics
    /// Never: a string takes whatever is written to it.
    #[must_use]
    pub fn to_lcov(&self) -> String {
        let mut text = String::new();
        for (file, lines) in self.lines() {
            // A record is a line, and a path may hold a line break.
            let path = file.to_string_lossy().replace(char::is_control, "\u{FFFD}");
            let covered = lines.values().filter(|&&reached| reached).count();
            let mut write = |line: fmt::Arguments<'_>| writeln!(text, "{line}").expect("a string takes all");
            write(format_args!("SF:{path}"));
            for (line, reached) in &lines {
                write(format_args!("DA:{line},{}", u8::from(*reached)));
            }
            write(format_args!("LF:{}\nLH:{covered}\nend_of_record", lines.len()));
        }
        text
    }
}
