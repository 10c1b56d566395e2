//! `cargo xtask modes`: the tour of CPU modes, the same hello from 1978 to long mode.
//!
//! For each mode of [`table`] a guest proves that it was there ([`image`] cuts it out of a program), on this computer's KVM
//! or on the one in QEMU (`backend.rs`). What a KVM cannot do it is not blamed for: `vmm doctor --features` says so
//! beforehand, and the tour shows what became of the guest.

mod backend;
pub mod image;
mod report;
pub mod road;
pub mod table;

use std::collections::BTreeMap;
use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::workspace::Profile;
use crate::{guest, qemu};
use backend::{Backend, Output};
use image::Image;
use report::{Row, Tour, Verdict};
use table::{Form, Guest, MODES, Mode, Trial};

/// The program that holds the guests.
pub const PROGRAM: &str = "modes";

/// A guest that has not ended by then hangs.
const TIME_LIMIT: &str = "20s";

/// A mode that a KVM should be able to run has failed.
const FAILED: u8 = 1;

/// Runs the tour. The exit code is 0 when every mode passed that its KVM can run, 1 when one did not.
///
/// # Errors
/// When something cannot be built or started.
pub fn run(json: bool, options: &qemu::Options) -> Result<ExitCode> {
    let luggage = Luggage::pack()?;
    let mut tours = Vec::new();
    if options.kvm.host() {
        tours.push(tour(&Backend::host(&luggage.files)?, &luggage)?);
    }
    if options.kvm.qemu() {
        tours.push(tour(&Backend::qemu(&luggage.files, &options.linux)?, &luggage)?);
    }
    if json {
        println!("{}", report::json(&tours)?);
    } else {
        println!("{}", report::text(&tours));
    }
    let has_failed = tours.iter().flat_map(|tour| &tour.rows).any(|row| row.verdict == Verdict::Failed);
    Ok(if has_failed { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}

/// All that is booted.
struct Luggage {
    /// The guests, each in its form, and our programs.
    files: Vec<(String, Vec<u8>)>,
    /// Where flat images go, by the names of their files.
    addresses: BTreeMap<String, u64>,
}

impl Luggage {
    fn pack() -> Result<Self> {
        guest::build_all(Profile::Debug)?;
        let program = |name: &str| {
            let path = guest::directory(Profile::Debug).join(name);
            fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
        };
        let holder = program(PROGRAM)?;
        let (mut files, mut addresses) = (Vec::new(), BTreeMap::new());
        for mode in MODES {
            match mode.trial {
                Trial::Guest(guest) => {
                    let (name, image) = (file_name(&guest), Image::cut(&holder, guest.file)?);
                    addresses.insert(name.clone(), image.address);
                    let is_flat = guest.form == Form::Flat;
                    files.push((name, if is_flat { image.code } else { image.to_elf32() }));
                }
                Trial::Program { name, .. } => files.push((name.to_owned(), program(name)?)),
                Trial::Feature => {}
            }
        }
        Ok(Self { files, addresses })
    }

    /// The words that run a guest, and say what it must leave behind.
    fn words(&self, backend: &Backend, guest: &Guest) -> Vec<String> {
        let name = file_name(guest);
        let mut words =
            vec!["run".to_owned(), "--mode".to_owned(), guest.start.to_owned(), backend.path(&name)];
        if let Some(address) = self.addresses.get(&name).filter(|_| guest.form == Form::Flat) {
            words.extend(["--load-at".to_owned(), format!("{address:#x}")]);
        }
        words.extend(["--expect-rax".to_owned(), "42".to_owned()]);
        words.extend(["--expect-mem".to_owned(), format!("{:#x}=42", guest.mark)]);
        words
    }
}

fn file_name(guest: &Guest) -> String {
    match guest.form {
        Form::Flat => format!("{}.bin", guest.file),
        Form::Elf32 => format!("{}.elf", guest.file),
    }
}

/// What the VMM says of its KVM; `vmm/src/features/mod.rs` prints it.
#[derive(Debug, Deserialize)]
struct Features {
    kvm: Option<String>,
    findings: Vec<Finding>,
}

#[derive(Debug, Deserialize)]
struct Finding {
    feature: String,
    present: bool,
    seen: Option<String>,
}

impl Features {
    fn of(backend: &Backend) -> Result<Self> {
        let output = backend.vmm(&["doctor", "--features", "--json"].map(str::to_owned))?;
        serde_json::from_str(&output.stdout)
            .with_context(|| format!("the VMM does not say what its KVM can do: {}", output.stderr.trim()))
    }

    /// The finding about a mode; `None` for one that every KVM has.
    fn find(&self, mode: &Mode) -> Result<Option<&Finding>> {
        let Some(name) = mode.feature else { return Ok(None) };
        let finding = self.findings.iter().find(|finding| finding.feature == name);
        finding.map(Some).with_context(|| format!("the VMM knows no feature `{name}`"))
    }
}

/// Tries every mode on `backend`.
fn tour(backend: &Backend, luggage: &Luggage) -> Result<Tour> {
    let features = Features::of(backend)?;
    let kvm = features.kvm.as_ref().map_or("this KVM".to_owned(), |kvm| format!("kvm_{kvm}"));
    eprintln!("xtask: the tour of CPU modes on {kvm}");
    let mut rows = Vec::new();
    for mode in MODES {
        let row = try_out(backend, luggage, mode, &kvm, features.find(mode)?)?;
        report::tell(&row);
        rows.push(row);
    }
    Ok(Tour { kvm, rows })
}

fn try_out(
    backend: &Backend,
    luggage: &Luggage,
    mode: &'static Mode,
    kvm: &str,
    finding: Option<&Finding>,
) -> Result<Row> {
    let is_offered = finding.is_none_or(|finding| finding.present);
    let absent = || finding.and_then(|finding| finding.seen.clone()).unwrap_or_default();
    let row = |verdict, how, lines| Row::new(mode, kvm, verdict, how, lines);
    let words = match mode.trial {
        // A program of ours would only say the same.
        Trial::Feature | Trial::Program { .. } if !is_offered => {
            return Ok(row(Verdict::Missing, absent(), Vec::new()));
        }
        // The VMM has tried it already.
        Trial::Feature => return Ok(row(Verdict::Works, String::new(), Vec::new())),
        Trial::Guest(guest) => luggage.words(backend, &guest),
        Trial::Program { name, .. } => vec!["run".to_owned(), backend.path(name)],
    };
    let words = words.into_iter().chain(["--timeout".to_owned(), TIME_LIMIT.to_owned()]);
    let output = backend.vmm(&words.collect::<Vec<_>>())?;
    let lines: Vec<String> = output.stdout.lines().map(str::to_owned).collect();
    let is_proved = match mode.trial {
        Trial::Program { proof, .. } => lines.iter().any(|line| line == proof),
        _ => true,
    };
    Ok(match (output.code, is_offered) {
        (Some(0), _) if is_proved => row(Verdict::Works, String::new(), lines),
        (_, true) => row(Verdict::Failed, last_words(&output), lines),
        (_, false) => row(Verdict::Missing, format!("{} ({})", last_words(&output), absent()), lines),
    })
}

/// What the VMM said first: how the guest ended, or why it was not started.
fn last_words(output: &Output) -> String {
    let line = output.stderr.lines().find_map(|line| line.strip_prefix("vmm: "));
    let line = line.map(|line| line.strip_prefix("the guest died: ").unwrap_or(line));
    line.or_else(|| output.stdout.lines().last()).unwrap_or("it printed nothing").to_owned()
}
