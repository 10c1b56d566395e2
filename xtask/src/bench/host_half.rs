//! The host halves: benchmarks of `vmm/benches`, which run guests in a process of their own and tell what they found.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};

use super::Group;
use super::measurement::{Measurement, Said};
use super::progress::Progress;
use crate::guest;
use crate::workspace::{self, Profile, cargo};

/// Builds the guest half and the benchmark `name`, runs it, and gives what it measured of these groups.
///
/// # Errors
/// When something cannot be built, or the benchmark fails or says what nobody understands.
pub(super) fn measure(
    name: &str,
    groups: &[Group],
    rounds: Option<u32>,
    progress: &Progress,
) -> Result<Vec<Measurement>> {
    progress.say(&format!("building {name}"));
    let image = guest::build("bench", Profile::Release)?;
    let program = build(name)?;
    let names: Vec<_> = groups.iter().map(|group| group.name()).collect();
    let mut bench = Command::new(program);
    bench.current_dir(workspace::root().join("vmm"));
    bench.env("DUET_BENCH_GUEST", image).env("DUET_BENCH_GROUPS", names.join(","));
    if let Some(rounds) = rounds {
        bench.env("DUET_BENCH_ROUNDS", rounds.to_string());
    }
    listen(&mut bench, progress).with_context(|| format!("the benchmark `{name}`"))
}

fn build(name: &str) -> Result<PathBuf> {
    let mut cargo = cargo();
    cargo.args(["bench", "--quiet", "--package", "vmm", "--bench", name]);
    let built = workspace::build_tests(&mut cargo)?.into_iter().next();
    built.map(|built| built.program).with_context(|| format!("cargo builds no benchmark `{name}`"))
}

/// Runs it to its end.
fn listen(bench: &mut Command, progress: &Progress) -> Result<Vec<Measurement>> {
    let mut child = bench.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let lines = BufReader::new(child.stdout.take().context("stdout is a pipe")?).lines();
    let heard: Result<Vec<_>> = lines.filter_map(|line| hear(line, progress).transpose()).collect();
    if heard.is_err() {
        // It is still busy, and nobody listens.
        child.kill()?;
    }
    let status = child.wait()?;
    let measurements = heard?;
    if !status.success() {
        bail!("it failed: {status}");
    }
    Ok(measurements)
}

fn hear(line: std::io::Result<String>, progress: &Progress) -> Result<Option<Measurement>> {
    let line = line?;
    let said =
        serde_json::from_str(&line).with_context(|| format!("it says what nobody understands: {line}"))?;
    match said {
        Said::Progress { name, done, of } => {
            progress.show(&name, done, of);
            Ok(None)
        }
        Said::Measurement(measurement) => {
            measurement.check().map_err(|reason| anyhow!(reason))?;
            Ok(Some(measurement))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a host half that prints `text` and ends with `code` has measured.
    fn heard(text: &str, code: &str) -> Result<Vec<Measurement>> {
        let script = "printf '%s\n' \"$0\"; exit \"$1\"";
        listen(Command::new("sh").args(["-c", script, text, code]), &Progress::new())
    }

    const PROGRESS: &str = r#"{"progress":{"name":"OUT","done":1,"of":2}}"#;
    const MEASUREMENT: &str =
        r#"{"measurement":{"group":"exits","name":"OUT","unit":"nanoseconds","samples":[1]}}"#;

    #[test]
    fn measurements_are_collected_and_progress_is_not() {
        let found = heard(&format!("{PROGRESS}\n{MEASUREMENT}\n{PROGRESS}"), "0").expect("it is understood");
        assert_eq!(found.iter().map(|found| found.name.as_str()).collect::<Vec<_>>(), ["OUT"]);
    }

    #[test]
    fn whatever_goes_wrong_is_told() {
        let empty = MEASUREMENT.replace("[1]", "[]");
        for (text, code, reason) in [
            (MEASUREMENT, "3", "it failed: exit status: 3"),
            ("hello", "0", "it says what nobody understands: hello"),
            (&empty, "0", "exits, OUT: there are no samples"),
        ] {
            let error = heard(text, code).expect_err("it is refused");
            assert!(format!("{error:#}").starts_with(reason), "{error:#}");
        }
    }
}
