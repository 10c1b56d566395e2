//! `Record`: the file of `--json`, which `--compare` reads: all that was measured, where and when.
//!
//! A file may be of another version of this program, cut, or edited. It is refused with the reason, never read by half.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

use super::machine::Machine;
use super::measurement::Measurement;
use crate::workspace;

/// What the file is: another number is another meaning.
const VERSION: u32 = 1;

/// All that was measured at one time.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    /// [`VERSION`].
    pub(super) version: u32,
    /// When it began, in seconds since 1970.
    pub(super) unix_time_s: u64,
    /// On what.
    pub(super) machine: Machine,
    /// Of which sources, if git knows; `+` behind it says that they were changed since.
    pub(super) commit: Option<String>,
    /// What was found.
    pub(super) measurements: Vec<Measurement>,
}

/// What is read before all else.
#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl Record {
    /// One that begins now, and here.
    pub(super) fn begin() -> Self {
        let unix_time_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (machine, commit) = (Machine::of_here(), commit());
        Self { version: VERSION, unix_time_s, machine, commit, measurements: Vec::new() }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// When there is none, or it is not what [`Record::to_json`] writes.
    pub(super) fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::from_json(&text).with_context(|| format!("{} cannot be compared with", path.display()))
    }

    fn from_json(text: &str) -> Result<Self> {
        let Version { version } =
            serde_json::from_str(text).context("it is not of `cargo xtask bench --json`")?;
        if version != VERSION {
            bail!("it has version {version}, and this program reads version {VERSION}");
        }
        let record: Self = serde_json::from_str(text).context("it is damaged")?;
        let mut known = HashSet::new();
        for measurement in &record.measurements {
            measurement.check().map_err(anyhow::Error::msg).context("it is damaged")?;
            let (group, title) = (&measurement.group, measurement.title());
            if !known.insert((group, title.clone())) {
                bail!("it is damaged: {group}, {title} is there twice");
            }
        }
        Ok(record)
    }

    /// The text of the file.
    ///
    /// # Errors
    /// Never: all of it can be said in JSON.
    pub(super) fn to_json(&self) -> Result<String> {
        Ok(serde_json::to_string(self)? + "\n")
    }
}

fn commit() -> Option<String> {
    let git = |words: &[&str]| {
        let output = Command::new("git").current_dir(workspace::root()).args(words).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "HEAD"])?;
    let is_changed = !git(&["status", "--porcelain", "--untracked-files=no"])?.is_empty();
    Some(if is_changed { commit + "+" } else { commit })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tests::{alone, beside_floor, point, record};

    #[test]
    fn what_is_written_is_read_back_with_every_sample() {
        let mut all = Record::begin();
        all.measurements = vec![
            beside_floor("end", &[0.1, 2.0 / 3.0, 1e9], &[1.0, 1e-3, 3.0]),
            point(1024.0, &[1.5]),
            alone("machines", &[5.0]),
        ];
        assert_eq!(Record::from_json(&all.to_json().expect("JSON")).expect("it is whole"), all);
    }

    #[test]
    fn what_is_foreign_or_damaged_is_refused_with_the_reason() {
        let whole = record(vec![beside_floor("end", &[2.0], &[1.0])]).to_json().expect("JSON");
        let twice =
            record(vec![alone("machines", &[1.0]), alone("machines", &[2.0])]).to_json().expect("JSON");
        for (text, reason) in [
            (String::new(), "it is not of `cargo xtask bench --json`"),
            ("{}".to_owned(), "it is not of `cargo xtask bench --json`"),
            (whole[..whole.len() - 3].to_owned(), "it is not of `cargo xtask bench --json`"),
            (
                whole.replace("\"version\":1", "\"version\":2"),
                "it has version 2, and this program reads version 1",
            ),
            (whole.replace("\"cpus\"", "\"cups\""), "it is damaged: unknown field `cups`"),
            (whole.replace("[2.0]", "[2.0,2.0]"), "it is damaged: start, end: it has not as many samples"),
            (whole.replace("[1.0]", "[0.0]"), "it is damaged: start, end: the limit has a sample"),
            (whole.replace("nanoseconds", "days"), "it is damaged: unknown variant `days`"),
            (twice, "it is damaged: snapshots, machines is there twice"),
        ] {
            let error = Record::from_json(&text).expect_err("it is refused");
            assert!(format!("{error:#}").starts_with(reason), "{error:#} is not {reason}");
        }
    }
}
