//! `cargo xtask`: what can be typed.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use xtask::{
    bench, ci, coverage, diff_exits, doctor, explain, fuzz, gdb, lab, layout, list, modes, new, qemu,
    release, run, test, tour,
};

/// Builds, runs and tests Duet's guests and its VMM.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds a guest program and the VMM, and boots the one in the other.
    #[command(disable_help_flag = true)]
    Run {
        /// [PROGRAM] [--release|--debug] [VMM options] [-- guest arguments]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Runs a guest program and answers where everything was, and which line of source put it there.
    #[command(disable_help_flag = true)]
    Explain {
        /// [PROGRAM] [--release|--debug] [VMM options] [-- guest arguments]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Shows a guest program's memory as one table, and what is wrong with its mappings.
    #[command(disable_help_flag = true)]
    Map {
        /// [PROGRAM] [--release|--debug] [VMM options] [-- guest arguments]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Shows how addresses of a guest program are translated.
    #[command(disable_help_flag = true)]
    Walk {
        /// [PROGRAM] GVA… [--release|--debug] [VMM options] [-- guest arguments]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Builds a guest program and the VMM, and opens gdb on the guest, stopped at its first instruction.
    #[command(disable_help_flag = true)]
    Gdb {
        /// [PROGRAM] [gdb's -ex, -x, --batch] [VMM options] [-- guest arguments]
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Writes a new guest program, ready to run.
    New {
        /// Its name: letters, digits, `_` and `-`.
        name: String,
    },
    /// Lists the guest programs.
    List {
        /// Print them as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Runs all tests: units, documentation, real guests in real machines.
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
        /// Only tests that run inside a guest, each in a machine of its own.
        #[arg(long, conflicts_with = "kvm")]
        guest: bool,
        /// With --guest: options of `vmm test`, such as `--nocapture` or `--junit FOLDER`.
        #[arg(last = true, requires = "guest", value_name = "OPTION")]
        words: Vec<OsString>,
        #[command(flatten)]
        options: qemu::Options,
    },
    /// Checks format, lints and documentation.
    Lint,
    /// Runs what a change must pass: `lint`, then `test`.
    Ci,
    /// Shows which lines the tests reach, in the host's code and in the guest's: a table, an lcov file, a page.
    Coverage(coverage::Options),
    /// Gives what reads a stranger's bytes any bytes, for a while: `--list` shows what.
    Fuzz(fuzz::Options),
    /// Measures what things cost, each beside its limit in the same run.
    Bench(bench::Options),
    /// Compares things on this machine and shows them as a table.
    Lab {
        #[command(subcommand)]
        lab: lab::Lab,
    },
    /// Builds the `vmm` that others are given, optimised and static, and prints where it is.
    Release,
    /// Puts the functions that a run of the release VMM executes side by side, for fewer page faults at its start: writes
    /// vmm/start.ld.
    Layout,
    /// Compares the exits of two runs, line by line of the program: `cargo xtask diff-exits old.json new.json`.
    DiffExits(diff_exits::Options),
    /// Runs the tour of CPU modes: for each a guest that proves it was there, from 1978 to long mode. The exit code is 1
    /// when a mode failed that the KVM should be able to run.
    Modes {
        /// Print the table as JSON; what happens meanwhile goes to stderr.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: qemu::Options,
    },
    /// Shows the places where control crosses between host and guest, in the order of a run.
    Tour,
    /// Checks whether guests can be built and run here, and says what to do if not.
    Doctor {
        /// Show what the KVM can do for a guest, each feature tried by one that needs it.
        #[arg(long)]
        features: bool,
        /// Print it as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: qemu::Options,
    },
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Run { words } => run::run(&words),
        Command::Explain { words } => explain::explain(&words),
        Command::Map { words } => explain::map(&words),
        Command::Walk { words } => explain::walk(&words),
        Command::Gdb { words } => gdb::run(&words),
        Command::New { name } => new::run(&name),
        Command::List { json } => list::run(json),
        Command::Test { filter, guest: true, words, .. } => test::run_in_guests(filter.as_deref(), &words),
        Command::Test { filter, options, .. } => test::run(filter.as_deref(), &options),
        Command::Lint => ci::lint(),
        Command::Ci => ci::run(),
        Command::Coverage(options) => coverage::run(&options),
        Command::Fuzz(options) => fuzz::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Lab { lab } => lab::run(&lab),
        Command::Release => release::run(),
        Command::Layout => layout::run(),
        Command::DiffExits(options) => diff_exits::run(&options),
        Command::Modes { json, options } => modes::run(json, &options),
        Command::Tour => tour::run(),
        Command::Doctor { features: true, json, options } => doctor::features(json, &options),
        Command::Doctor { json, options, .. } => doctor::run(json, &options),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::from(FAILED)
    })
}

/// The host could not do its work: the same number as the VMM's.
const FAILED: u8 = 100;
