//! `Check`: one thing that was looked at. The VMM's twin is in `vmm/src/doctor/check.rs`: the same JSON, the same look.

use serde::{Deserialize, Serialize};

/// One thing that was looked at; the twin of the VMM's `doctor::Check`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Check {
    pub(super) name: String,
    pub(super) status: Status,
    pub(super) finding: String,
    pub(super) remedy: Option<String>,
}

/// Whether it is as it should be; the twin of the VMM's `doctor::Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Status {
    Ok,
    Warning,
    Problem,
    Skipped,
}

impl Check {
    pub(super) fn ok(name: &str, finding: String) -> Self {
        Self { name: name.to_owned(), status: Status::Ok, finding, remedy: None }
    }

    pub(super) fn new(name: &str, status: Status, finding: String, remedy: String) -> Self {
        Self { name: name.to_owned(), status, finding, remedy: Some(remedy) }
    }

    pub(super) fn passed(&self) -> bool {
        matches!(self.status, Status::Ok | Status::Warning)
    }

    /// A line, and an indented one for the remedy: the look of `vmm doctor`.
    pub(super) fn render(&self, colour: bool) -> String {
        let (word, escape) = match self.status {
            Status::Ok => ("ok", "\x1b[32m"),
            Status::Warning => ("warning", "\x1b[33m"),
            Status::Problem => ("problem", "\x1b[31m"),
            Status::Skipped => ("skipped", "\x1b[2m"),
        };
        let (on, off) = if colour { (escape, "\x1b[0m") } else { ("", "") };
        let mut text = format!("{on}{word:7}{off}  {:12}  {}", self.name, self.finding);
        if let Some(remedy) = &self.remedy {
            text.push_str(&format!("\n{:25}{remedy}", ""));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_vmm_says_is_understood_and_looks_the_same() {
        let answer =
            r#"{"name": "device", "status": "problem", "finding": "no /dev/kvm", "remedy": "do this"}"#;
        let check: Check = serde_json::from_str(answer).expect("fits");
        assert_eq!(
            check.render(false),
            "problem  device        no /dev/kvm\n                         do this"
        );
    }
}
