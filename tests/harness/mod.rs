//! What the suites share: guests and VMM built once, and two ways to run a guest.
//!
//! [`boot`] runs it in this process, through the library, and gives the report. [`vmm`] runs the program as a user
//! would, and gives what a user sees. Both show console and report when an expectation fails.

pub(crate) mod allocations;
pub(crate) mod browser;
pub(crate) mod contract;
pub(crate) mod elf;
pub(crate) mod gdb_client;
pub(crate) mod granted;
pub(crate) mod kept;
pub(crate) mod markdown;
pub(crate) mod needs;
pub(crate) mod refusal;
pub(crate) mod system_calls;
pub(crate) mod tree;
pub(crate) mod walker;
pub(crate) mod walker32;
pub(crate) mod walkthrough;
pub(crate) mod workspace_copy;

use std::path::PathBuf;
use std::process::{Child, Command, Output};
use std::sync::OnceLock;
use std::time::Duration;

use vmm::{Console, Contract, KernelSource, RunReport, StopReason, Vm, VmConfig};
use xtask::guest;
use xtask::workspace::{self, Profile};

use elf::{Elf, RX, Segment};

/// Far more than any guest of the tests takes; a guest that reaches it fails its test.
const TIME_LIMIT: Duration = Duration::from_secs(20);

/// What `span` of real time becomes where everything is slower.
pub(crate) fn patiently(span: Duration) -> Duration {
    span * slowness()
}

/// How many times as long everything takes: DUET_SLOWNESS, where there is one.
pub(crate) fn slowness() -> u32 {
    let slowness = std::env::var("DUET_SLOWNESS").ok();
    slowness.map_or(1, |slowness| slowness.parse().expect("DUET_SLOWNESS is a number"))
}

/// The ELF file of the guest program `name`.
pub(crate) fn guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guests(Profile::Debug)).join(name)
}

/// The ELF file of the guest program `name`, optimised: for guests whose own work takes long.
pub(crate) fn optimised_guest(name: &str) -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| guests(Profile::Release)).join(name)
}

/// The folder of the guest programs. Where there is no cargo to build them, it is below DUET_GUESTS.
fn guests(profile: Profile) -> PathBuf {
    if let Some(folder) = std::env::var_os("DUET_GUESTS") {
        return PathBuf::from(folder).join(profile.directory());
    }
    guest::build_all(profile).expect("the guest programs build");
    guest::directory(profile)
}

/// The `vmm` program. Where there is no cargo to build it, DUET_VMM is its path.
pub(crate) fn vmm_binary() -> PathBuf {
    if let Some(vmm) = std::env::var_os("DUET_VMM") {
        return vmm.into();
    }
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| workspace::build_vmm(Profile::Debug).expect("the VMM builds")).clone()
}

/// A guest program to be run in this process.
pub(crate) fn boot(program: &str) -> Boot {
    let mut config = VmConfig::new(KernelSource::File(guest(program)));
    config.timeout = Some(patiently(TIME_LIMIT));
    Boot { config }
}

/// The probe, about to do `deed`.
pub(crate) fn probe(deed: &str) -> Boot {
    boot("probe").arguments(&deed.split(' ').collect::<Vec<_>>())
}

/// A guest of these instructions, which lie at 1 MiB.
pub(crate) fn machine_code(code: &[u8]) -> Boot {
    let image = Elf::new(0x10_0000).with(Segment::new(0x10_0000, RX, code).in_memory(0x1000));
    boot("probe").with(|config| {
        config.kernel = vmm::KernelSource::Bytes(image.to_bytes().into());
        config.contract = Contract::None;
    })
}

/// A guest about to be run.
pub(crate) struct Boot {
    pub(crate) config: VmConfig,
}

impl Boot {
    pub(crate) fn arguments(mut self, arguments: &[&str]) -> Self {
        self.config.arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        self
    }

    pub(crate) fn memory(mut self, size: &str) -> Self {
        self.config.memory = size.parse().expect("a size of RAM");
        self
    }

    pub(crate) fn with(mut self, change: impl FnOnce(&mut VmConfig)) -> Self {
        change(&mut self.config);
        self
    }

    pub(crate) fn run(mut self) -> Finished {
        let (console, captured) = Console::capture();
        self.config.console = console;
        let mut vm = Vm::build(self.config).expect("the machine can be built: is /dev/kvm there?");
        let report = vm.run().expect("the host can do its work");
        Finished { report, console: captured.text(), vm }
    }
}

/// A guest that has run.
pub(crate) struct Finished {
    pub(crate) report: RunReport,
    pub(crate) console: String,
    pub(crate) vm: Vm,
}

impl Finished {
    /// Expects the guest to have ended with exit code 0, and gives what it printed.
    #[track_caller]
    pub(crate) fn succeeded(self) -> String {
        self.stopped_by(&StopReason::Exited { code: 0 });
        self.console
    }

    #[track_caller]
    pub(crate) fn stopped_by(&self, expected: &StopReason) {
        assert_eq!(
            &self.report.stop, expected,
            "\nreport: {}\nexits: {:?}\nconsole:\n{}",
            self.report, self.report.exits, self.console
        );
    }
}

/// Runs the `vmm` program with these arguments to its end.
pub(crate) fn vmm(arguments: &[&str]) -> Seen {
    Seen::of(Command::new(vmm_binary()).args(arguments))
}

/// Runs the `vmm` program with the guest program `name` and the words behind it: options, `--`, guest arguments.
pub(crate) fn vmm_run(name: &str, words: &[&str]) -> Seen {
    Seen::of(Command::new(vmm_binary()).arg("run").arg(guest(name)).args(words))
}

/// Sends a signal to a program that is running.
pub(crate) fn send(child: &Child, signal: libc::c_int) {
    // SAFETY: kill reads no memory; the child was not waited for, so its id is still its own.
    let result = unsafe { libc::kill(child.id() as libc::pid_t, signal) };
    assert_eq!(result, 0);
}

/// What a user sees of a program that has run.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Seen {
    pub(crate) fn of(command: &mut Command) -> Self {
        Self::from(command.output().expect("the program starts"))
    }
}

impl From<Output> for Seen {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}
