//! Coverage of the tests inside guests: `vmm test --coverage` for each image.

use std::fs;
use std::io::stderr;
use std::process::Command;

use anyhow::{Context, Result};

use super::lcov::Lines;
use crate::target;
use crate::test::{in_guests, run_suite_shown_on};
use crate::workspace::{self, Profile, build_tests};

/// Runs the tests, or those whose name contains `filter`; says what they reach and how many have failed.
pub(super) fn measure(filter: Option<&str>) -> Result<(Lines, u64)> {
    target::ensure(target::GUEST)?;
    let folder = super::folder().join("guest");
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let vmm = workspace::build_vmm(Profile::Debug)?;
    let (mut lines, mut failed) = (Lines::default(), 0);
    for image in build_tests(&mut in_guests())? {
        let mut command = Command::new(&vmm);
        command.arg("test").arg(&image.program).arg("--coverage").arg(&folder).args(filter);
        failed += run_suite_shown_on(&mut stderr(), &mut command)?.failed;
    }
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
        let path = entry?.path();
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        lines.add(&Lines::read(&text));
    }
    Ok((lines, failed))
}
