//! `cargo xtask lab console`: the ways for text out of a guest, each with its exits and its time.
//!
//! The guest's half is `guest-kernel/src/bin/lab_console.rs`.

use std::collections::BTreeMap;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use crate::guest;
use crate::workspace::{self, Profile};

/// Bytes of the text that the guest sends each way.
const TEXT_SIZE: u64 = 4096;

/// One way out of the guest.
#[derive(Debug, Serialize)]
struct Way {
    way: String,
    exits: u64,
    exits_per_byte: f64,
    ns_per_byte: f64,
    total_us: f64,
    /// Why there are no numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// Measures each way `runs` times.
///
/// # Errors
/// When something cannot be built, started or understood.
pub(super) fn run(runs: u32, json: bool) -> Result<ExitCode> {
    let image = guest::build("lab_console", Profile::Release)?;
    let vmm = workspace::build_vmm(Profile::Release)?;
    eprintln!(
        "xtask: sending {TEXT_SIZE} bytes {runs} times by each way; the slowest take tens of milliseconds each"
    );
    let output = Command::new(vmm)
        .args(["run", "--timeout", "5m"])
        .arg(image)
        .args(["--", &runs.max(1).to_string()])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the VMM")?;
    if !output.status.success() {
        bail!("the guest did not end well: {}", output.status);
    }
    let mut ways = ways(&String::from_utf8_lossy(&output.stdout))?;
    ways.push(host_write(runs)?);
    if json {
        println!("{}", serde_json::to_string_pretty(&ways)?);
    } else {
        print_table(&ways);
    }
    Ok(ExitCode::SUCCESS)
}

/// The medians of the guest's lines `lab: WAY <tab> EXITS <tab> NANOSECONDS`, in the order of the first of each way.
fn ways(text: &str) -> Result<Vec<Way>> {
    let mut order: Vec<&str> = Vec::new();
    let mut samples: BTreeMap<&str, Vec<(u64, u64)>> = BTreeMap::new();
    let mut missing: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("lab: ")) {
        let (way, rest) = line.split_once('\t').with_context(|| format!("no numbers in `{line}`"))?;
        if !order.contains(&way) {
            order.push(way);
        }
        match rest.split_once('\t') {
            Some((exits, ns)) => samples.entry(way).or_default().push((exits.parse()?, ns.parse()?)),
            None => drop(missing.insert(way, rest)),
        }
    }
    Ok(order
        .into_iter()
        .map(|way| match samples.get(way) {
            Some(samples) => Way::from_samples(way, samples),
            None => Way::missing(way, missing.get(way).copied().unwrap_or("no numbers")),
        })
        .collect())
}

impl Way {
    fn from_samples(way: &str, samples: &[(u64, u64)]) -> Self {
        let median = |mut values: Vec<u64>| {
            values.sort_unstable();
            values.get(values.len() / 2).copied().unwrap_or_default()
        };
        let exits = median(samples.iter().map(|(exits, _)| *exits).collect());
        let ns = median(samples.iter().map(|(_, ns)| *ns).collect()) as f64;
        Self {
            way: way.to_owned(),
            exits,
            exits_per_byte: exits as f64 / TEXT_SIZE as f64,
            ns_per_byte: ns / TEXT_SIZE as f64,
            total_us: ns / 1000.0,
            missing: None,
        }
    }

    fn missing(way: &str, reason: &str) -> Self {
        Self { missing: Some(reason.to_owned()), ..Self::from_samples(way, &[]) }
    }
}

/// The limit: the host's own write of such a text to a pipe, as the guest's go to one.
fn host_write(runs: u32) -> Result<Way> {
    use std::io::{Read, Write};
    let (mut reader, mut writer) = std::io::pipe()?;
    let text = [b'.'; TEXT_SIZE as usize];
    let mut back = [0; TEXT_SIZE as usize];
    let mut samples = Vec::new();
    for _ in 0..runs.max(1) {
        let start = Instant::now();
        writer.write_all(&text)?;
        samples.push((0, u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX)));
        reader.read_exact(&mut back)?;
    }
    Ok(Way::from_samples("the host's own write", &samples))
}

fn print_table(ways: &[Way]) {
    println!("{:22} {:>8} {:>12} {:>12} {:>12}", "way", "exits", "exits/byte", "ns/byte", "total");
    for way in ways {
        match &way.missing {
            Some(reason) => println!("{:22} {reason}", way.way),
            None => println!(
                "{:22} {:>8} {:>12.4} {:>12.1} {:>12.1?}",
                way.way,
                way.exits,
                way.exits_per_byte,
                way.ns_per_byte,
                Duration::from_nanos((way.total_us * 1000.0) as u64),
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_lines_become_medians_in_their_order() {
        let text = "....\nlab: outb\t4096\t9000\nlab: outb\t4096\t7000\nlab: outb\t4096\t8000\nlab: ring\tnot here: X\n";
        let ways = ways(text).expect("lines as the guest writes them");
        assert_eq!(ways.iter().map(|way| way.way.as_str()).collect::<Vec<_>>(), ["outb", "ring"]);
        assert_eq!((ways[0].exits, ways[0].total_us), (4096, 8.0));
        assert_eq!(ways[1].missing.as_deref(), Some("not here: X"));
    }
}
