//! What can be typed.

mod expect;
mod explain;
mod machine;
mod plain;
mod press;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Parser, Subcommand, ValueEnum};
use vmm::coverage::Method;

pub(crate) use expect::Expectations;
pub(crate) use explain::{Address, Explain, Map, Peeks, Walk};
pub(crate) use machine::Machine;
use machine::parse_time;
pub(crate) use press::Press;
use vmm::debug::gdb::Endpoint;

pub(crate) use watch::Watch;

/// Runs bare-metal x86-64 kernels on Linux KVM.
#[derive(Debug, Parser)]
#[command(version, after_help = EXIT_CODES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Boots a kernel and shows what it prints.
    Run(Box<Run>),
    /// Runs a kernel and answers where everything was: memory, page tables, kvm_run, entry, exits, result.
    Explain(Box<Explain>),
    /// Shows guest memory as one table, made by walking the live page tables, and what is wrong with them.
    Map(Box<Map>),
    /// Shows how addresses are translated: every entry from CR3 on, every bit by name.
    Walk(Box<Walk>),
    /// Runs the tests in an image, each in a machine of its own.
    #[command(help_template = HELP_TEMPLATE, after_help = TEST_EXAMPLES, mut_args = in_our_words)]
    Test(Box<Test>),
    /// Runs what cargo has built: tests as `vmm test` does, everything else as `vmm run`.
    #[command(hide = true)]
    Runner {
        /// The kernel.
        image: PathBuf,
        /// What else would be typed behind it.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Prints the contract between host and guest that this VMM was built with.
    Contract,
    /// Checks whether guests can run on this host, and says what to do if not.
    Doctor(Doctor),
    /// Prints the completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// `vmm run` alone: clap describes every command that it knows to itself, and that takes as long as the start of a machine.
#[derive(Debug, Parser)]
#[command(name = "vmm", version, max_term_width = 100)]
struct RunCli {
    #[command(subcommand)]
    command: RunCommand,
}

#[derive(Debug, Subcommand)]
enum RunCommand {
    /// Boots a kernel and shows what it prints.
    Run(Box<Run>),
}

/// What was typed; what makes no sense ends the program.
pub(crate) fn parse() -> Command {
    let words: Vec<_> = std::env::args_os().skip(1).collect();
    if let Some(run) = plain::parse(&words) {
        return Command::Run(Box::new(run));
    }
    // clap asks for memory in very many pieces.
    crate::MEMORY.fill();
    if words.first().is_some_and(|word| word == "run") {
        let RunCommand::Run(run) = RunCli::parse().command;
        return Command::Run(run);
    }
    Cli::parse().command
}

#[derive(Args, Debug)]
#[command(after_help = RUN_EXAMPLES)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) machine: Machine,

    #[command(flatten)]
    pub(crate) watch: Watch,

    #[command(flatten)]
    pub(crate) press: Press,

    #[command(flatten)]
    pub(crate) peeks: Peeks,

    #[command(flatten)]
    pub(crate) expectations: Expectations,

    #[command(flatten)]
    pub(crate) core: Core,

    /// Wait at the first instruction for a debugger: at tcp:PORT of this computer, tcp:HOST:PORT or unix:PATH.
    #[arg(long, value_name = "WHERE", num_args = 0..=1, default_missing_value = "tcp:1234", conflicts_with = "Watch")]
    pub(crate) gdb: Option<Endpoint>,

    #[command(flatten)]
    pub(crate) snapshots: Snapshots,

    /// When the guest dies, write why to this file, as JSON.
    #[arg(long, value_name = "PATH")]
    pub(crate) json_report: Option<PathBuf>,

    /// When the guest dies, name functions only, as if the image had no debug information.
    #[arg(long)]
    pub(crate) no_debug_info: bool,
}

/// What is kept of a machine, and gone on from.
#[derive(Args, Debug, Default)]
pub(crate) struct Snapshots {
    /// Keep the machine in this file when the guest asks for it, the last time that it does; and if it never does, when it
    /// is stopped by --timeout or Ctrl-C.
    #[arg(long = "snapshot-to", value_name = "FILE", conflicts_with_all = ["Watch", "gdb"])]
    pub(crate) to: Option<PathBuf>,

    /// Take the file for one that --snapshot-to has written, and go on from there. Kernel, arguments and the machine's size
    /// are as they were.
    #[arg(long, conflicts_with_all = [
        "mode", "load_at", "cpus", "memory", "page_size", "ksm", "thp", "no_contract", "interrupts", "arguments",
    ])]
    pub(crate) restore: bool,
}

/// The core file that a run may leave.
#[derive(Args, Debug, Default)]
pub(crate) struct Core {
    /// Write memory and registers of a guest that dies or is stopped (exit codes 101 to 130) to this file:
    /// `gdb KERNEL FILE` opens it. After another end there is no such file.
    #[arg(long = "core", value_name = "FILE")]
    pub(crate) path: Option<PathBuf>,

    /// Write it however the guest ends.
    #[arg(long = "core-always", requires = "path")]
    pub(crate) always: bool,
}

#[derive(Args, Debug)]
pub(crate) struct Test {
    /// The tests: an image that `cargo test --no-run` builds.
    pub(crate) image: PathBuf,

    /// Write the results as JUnit's XML: to this file, or to one of the image's own in this folder.
    #[arg(long, value_name = "PATH")]
    pub(crate) junit: Option<PathBuf>,

    /// Write which source lines the tests reach, in lcov's format: to this file, or to one of the image's own in this
    /// folder. Time limits are larger then.
    #[arg(long, value_name = "PATH")]
    pub(crate) coverage: Option<PathBuf>,

    /// How to see what is reached [default: the cheapest that this host's KVM can]
    #[arg(long, value_name = "METHOD", requires = "coverage")]
    pub(crate) coverage_by: Option<CoverageMethod>,

    /// Stop a test after this time, unless it has a time limit of its own.
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) libtest: libtest_mimic::Arguments,
}

/// How to see which lines a guest reaches.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum CoverageMethod {
    /// `int3` where a line begins, once: an exit a line
    Breakpoints,
    /// An exit after every instruction
    Steps,
}

impl From<CoverageMethod> for Method {
    fn from(method: CoverageMethod) -> Self {
        match method {
            CoverageMethod::Breakpoints => Self::Breakpoints,
            CoverageMethod::Steps => Self::Steps,
        }
    }
}

#[derive(Args, Debug)]
#[command(after_help = DOCTOR_EXAMPLES)]
pub(crate) struct Doctor {
    /// Show what this host's KVM can do for a guest, each feature tried by one that needs it.
    #[arg(long)]
    pub(crate) features: bool,

    /// Print it as JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

const RUN_EXAMPLES: &str = "\
Examples:
  vmm run kernel.elf
  vmm run --memory 64G --page-size 4k kernel.elf
  vmm run --dir data:rw kernel.elf
  vmm run --no-contract foreign.elf
  vmm run --timeout 10s --core core.elf kernel.elf
  vmm run --timeout 500ms kernel.elf -- first second
  vmm run --stats kernel.elf           # exits and their time, by line of the guest
  vmm run --trace=port=0xe9 kernel.elf # every exit for this port, as it happens
  vmm run --trace=hypercall,main kernel.elf
  vmm run --timeline run.json --stats-json stats.json kernel.elf
  vmm run --report run.html kernel.elf # a page about the run, for a browser
  vmm run kernel.elf --gdb             # then in gdb: target remote 127.0.0.1:1234
  vmm run --snapshot-to ready kernel.elf  # where the guest asks for it
  vmm run --restore ready                 # goes on from there
  vmm run kernel.elf > output.txt      # stdout has the guest's bytes and nothing else
  vmm run --peek 0x1000:64 kernel.elf  # what lies there when the guest has stopped

`vmm --help` has the table of exit codes.";

const TEST_EXAMPLES: &str = "\
Examples:
  vmm test tests.elf --list
  vmm test tests.elf console:: --test-threads 1 --nocapture
  vmm test tests.elf --junit results.xml --format json
  vmm test tests.elf --coverage tests.lcov

The exit code is 0 when all tests have held, 101 when one has not, 100 when the host could not do its work.";

const DOCTOR_EXAMPLES: &str = "\
Examples:
  vmm doctor
  vmm doctor --features
  vmm doctor --features --json

What was found about features is kept in XDG_RUNTIME_DIR, if that is set, until the host boots again.
The exit code is 0 when guests can run, 100 when they cannot.";

/// clap's own, which libtest-mimic's options would replace.
const HELP_TEMPLATE: &str =
    "{before-help}{about-with-newline}\n{usage-heading} {usage}\n\n{all-args}{after-help}";

/// Says what libtest's options do here, and hides those that do nothing.
fn in_our_words(option: Arg) -> Arg {
    let help = match option.get_id().as_str() {
        "nocapture" => "Show what the guests print while they run",
        "filter" => "Only tests whose names contain this",
        "include_ignored" => "Run ignored tests too",
        "ignored" => "Run ignored tests only",
        "exact" => "Only the test of just this name",
        "quiet" => "One character for a test",
        "skip" => "No tests whose names contain this; may stand several times",
        "list" => "List the tests; nothing runs",
        "test_threads" => "How many tests run at once [default: as many as there are CPUs]",
        "logfile" => "Write everything to this file instead of stdout",
        "color" => "Whether the output is coloured; on a terminal it is",
        "format" => "How the output is written",
        "test" | "bench" | "show_output" | "unstable_flags" => return option.hide(true),
        _ => return option,
    };
    option.help(help).long_help(None)
}

const EXIT_CODES: &str = "\
Exit codes:
  0..99  the guest's own
  2      wrong arguments
  100    the host could not do its work
  101    the guest panicked
  102    the guest died: exception, triple fault, emulation failure, access to nothing, endless wait
  103    the guest ended well, and not as --expect-rax or --expect-mem said
  124    the time limit was reached
  130    Ctrl-C (or SIGTERM)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }
}
