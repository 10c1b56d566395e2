//! JUnit's XML: how CI systems read test results.
//!
//! There is no standard; this is the part that all of them understand, as drawn in
//! <https://github.com/testmoapp/junitxml>.

use std::fmt::{self, Write};
use std::path::Path;
use std::time::Duration;

use crate::error::{Error, Result};

/// A test and what became of it.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its name.
    pub name: String,
    /// Its source file.
    pub file: String,
    /// The line in it.
    pub line: u64,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a test.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// It was not asked for.
    Skipped,
    /// It held.
    Passed(Duration),
    /// It did not hold.
    Failed {
        /// How long it took.
        time: Duration,
        /// The first line of what there is to say.
        message: String,
        /// All of it.
        text: String,
    },
}

/// Writes a suite of tests to a file.
///
/// # Errors
/// When the file cannot be written.
pub fn write(path: &Path, suite: &str, cases: &[Case]) -> Result<()> {
    let written = std::fs::write(path, document(suite, cases));
    written.map_err(|source| Error::TestResults { path: path.to_owned(), source })
}

/// A suite of tests in XML.
///
/// # Panics
/// Never: a string takes whatever is written to it.
#[must_use]
pub fn document(suite: &str, cases: &[Case]) -> String {
    let count = |is: fn(&Outcome) -> bool| cases.iter().filter(|case| is(&case.outcome)).count();
    let failures = count(|outcome| matches!(outcome, Outcome::Failed { .. }));
    let skipped = count(|outcome| matches!(outcome, Outcome::Skipped));
    let time: Duration = cases.iter().map(|case| case.outcome.time()).sum();
    let counts = format!(
        r#"tests="{}" failures="{failures}" errors="0" skipped="{skipped}" time="{:.6}""#,
        cases.len(),
        time.as_secs_f64()
    );
    let mut xml = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites {counts}>\n<testsuite name=\"{}\" {counts}>\n",
        Escaped(suite)
    );
    for case in cases {
        write!(xml, "{case}").expect("a string takes all");
    }
    xml + "</testsuite>\n</testsuites>\n"
}

impl Outcome {
    fn time(&self) -> Duration {
        match self {
            Self::Skipped => Duration::ZERO,
            Self::Passed(time) | Self::Failed { time, .. } => *time,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (class, name) = self.name.rsplit_once("::").unwrap_or(("", &self.name));
        write!(
            f,
            r#"<testcase classname="{}" name="{}" file="{}" line="{}" time="{:.6}""#,
            Escaped(class),
            Escaped(name),
            Escaped(&self.file),
            self.line,
            self.outcome.time().as_secs_f64()
        )?;
        match &self.outcome {
            Outcome::Passed(_) => writeln!(f, "/>"),
            Outcome::Skipped => writeln!(f, "><skipped/></testcase>"),
            Outcome::Failed { message, text, .. } => writeln!(
                f,
                "><failure message=\"{}\">{}</failure></testcase>",
                Escaped(message),
                Escaped(text)
            ),
        }
    }
}

/// Text as XML can hold it: most control characters it cannot hold at all (XML 1.0, 2.2).
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '&' => f.write_str("&amp;"),
            '<' => f.write_str("&lt;"),
            '>' => f.write_str("&gt;"),
            '"' => f.write_str("&quot;"),
            '\n' | '\t' => f.write_char(c),
            '\u{FFFE}' | '\u{FFFF}' => f.write_char('\u{FFFD}'),
            c if c.is_control() => f.write_char('\u{FFFD}'),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_has_its_counts_and_its_text_is_escaped() {
        let case = |name: &str, outcome| Case { name: name.into(), file: "a.rs".into(), line: 3, outcome };
        let xml = document(
            "a<b",
            &[
                case("m::held", Outcome::Passed(Duration::from_millis(1500))),
                case("m::not_asked", Outcome::Skipped),
                case(
                    "broken",
                    Outcome::Failed {
                        time: Duration::from_millis(500),
                        message: "1 < 2 & \"3\"".into(),
                        text: "bell \u{7}\nend".into(),
                    },
                ),
            ],
        );
        assert!(
            xml.contains(
                r#"<testsuite name="a&lt;b" tests="3" failures="1" errors="0" skipped="1" time="2.000000">"#
            ),
            "{xml}"
        );
        assert!(
            xml.contains(r#"<testcase classname="m" name="held" file="a.rs" line="3" time="1.500000"/>"#),
            "{xml}"
        );
        assert!(xml.contains("time=\"0.000000\"><skipped/></testcase>"), "{xml}");
        assert!(
            xml.contains("<failure message=\"1 &lt; 2 &amp; &quot;3&quot;\">bell \u{FFFD}\nend</failure>"),
            "{xml}"
        );
    }
}
