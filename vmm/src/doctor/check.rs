//! `Check`: one thing that was looked at, what was found, and what to do about it.

use serde::Serialize;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What was looked at, in one word.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub status: Status,
    /// What was found.
    pub finding: String,
    /// What to do about it, with the exact command where there is one.
    pub remedy: Option<String>,
}

/// Whether a thing is as it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is.
    Ok,
    /// Guests run, but something about them is worse than it could be.
    Warning,
    /// Guests cannot run because of it.
    Problem,
    /// It could not be looked at, because of a problem above.
    Skipped,
}

impl Check {
    pub(super) fn ok(name: &'static str, finding: impl Into<String>) -> Self {
        Self::new(name, Status::Ok, finding, None)
    }

    pub(super) fn warning(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, Status::Warning, finding, Some(remedy.into()))
    }

    pub(super) fn problem(name: &'static str, finding: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(name, Status::Problem, finding, Some(remedy.into()))
    }

    pub(super) fn skipped(name: &'static str, finding: impl Into<String>) -> Self {
        Self::new(name, Status::Skipped, finding, None)
    }

    fn new(name: &'static str, status: Status, finding: impl Into<String>, remedy: Option<String>) -> Self {
        Self { name, status, finding: finding.into(), remedy }
    }

    /// Whether guests can run as far as this check knows.
    #[must_use]
    pub fn passed(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Warning)
    }

    /// The check for people: a line, and an indented one for the remedy.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let (on, off) = if colour { (self.status.colour(), "\x1b[0m") } else { ("", "") };
        let mut text = format!(
            "{on}{:STATUS_WIDTH$}{off}  {:NAME_WIDTH$}  {}",
            self.status.word(),
            self.name,
            self.finding
        );
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("\n{:REMEDY_INDENT$}{remedy}", ""));
        }
        text
    }
}

const STATUS_WIDTH: usize = "problem".len();
const NAME_WIDTH: usize = "architecture".len();
const REMEDY_INDENT: usize = STATUS_WIDTH + 2 + NAME_WIDTH + 4;

impl Status {
    fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
            Self::Skipped => "skipped",
        }
    }

    /// The escape sequence (ECMA-48 SGR) that turns the colour on.
    fn colour(self) -> &'static str {
        match self {
            Self::Ok => "\x1b[32m",
            Self::Warning => "\x1b[33m",
            Self::Problem => "\x1b[31m",
            Self::Skipped => "\x1b[2m",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_stands_indented_below_its_finding() {
        let check = Check::problem("device", "/dev/kvm does not exist", "do this");
        assert_eq!(
            check.render(false),
            "problem  device        /dev/kvm does not exist\n                         do this"
        );
    }

    #[test]
    fn only_a_coloured_check_has_escape_sequences() {
        let check = Check::ok("device", "opens");
        assert!(!check.render(false).contains('\x1b'));
        assert!(check.render(true).starts_with("\x1b[32mok     \x1b[0m  device"));
    }
}
