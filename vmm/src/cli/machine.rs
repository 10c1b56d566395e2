//! The machine as it can be typed, turned into a `VmConfig` once.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use shared_abi::{Gpa, Gva};
use vmm::config::parse_bytes;
use vmm::explain::parse_address;
use vmm::{
    Backing, Console, Contract, CpuidUse, Flat, Grant, GrantMode, Input, Interrupts, KernelSource, Limits,
    Log, MemorySize, PageSize, SnapshotCalls, Start, StartMode, Surroundings, VcpuCount, VmConfig,
};

use crate::say::say;

/// The machine, the guest in it, and who talks to it: what every command has that boots one.
#[derive(Args, Debug)]
pub(crate) struct Machine {
    /// The kernel: a freestanding, statically linked ELF executable, of 64 bits for long mode and of 32 for all others; or a
    /// flat image, with --load-at.
    image: PathBuf,

    /// The mode that the CPU starts in. In all but `long` a guest is a foreign one, as with --no-contract.
    #[arg(long, value_name = "MODE", default_value = "long")]
    mode: ModeWord,

    /// Take the image for a flat one, bytes without headers that go to this address. It is a foreign guest.
    #[arg(long, value_name = "GPA", value_parser = parse_gpa)]
    load_at: Option<u64>,

    /// Where a flat image starts, when not at its first byte.
    #[arg(long, value_name = "GPA", value_parser = parse_gpa, requires = "load_at")]
    entry: Option<u64>,

    /// How many vCPUs the machine has: 1 to 64. The guest starts on the first and starts the others itself.
    #[arg(long, value_name = "COUNT", default_value = "1")]
    cpus: VcpuCount,

    /// RAM of the machine: bytes, or a number with K, M or G. At least 2M, at most 256G.
    #[arg(long, short, value_name = "SIZE", default_value = "16M")]
    memory: MemorySize,

    /// Size of the pages that map free RAM. The kernel image always has 4k pages.
    #[arg(long, value_name = "SIZE", default_value = "2m")]
    page_size: PageSizeWord,

    /// Let the host merge equal pages of several machines (KSM).
    #[arg(long)]
    ksm: bool,

    /// Align RAM to 2 MiB and back it with huge pages (THP).
    #[arg(long)]
    thp: bool,

    /// Let the guest use a directory of the host: its path, `:ro` (the default) or `:rw` behind it.
    #[arg(long, value_name = "PATH[:ro|:rw]", value_parser = parse_grant)]
    dir: Option<Grant>,

    /// How many bytes the guest may write to its directory in all: a number, or one with K, M or G.
    #[arg(long, value_name = "SIZE", default_value = "1G", value_parser = parse_size, requires = "dir")]
    dir_limit: u64,

    /// How many files and directories the guest may have open at once.
    #[arg(long, value_name = "COUNT", default_value_t = Limits::default().open_files, requires = "dir")]
    dir_files: u32,

    /// Run a foreign guest, which carries no contract. It has the ports of console and exit only.
    #[arg(long)]
    no_contract: bool,

    /// Give the machine interrupt controllers: as its guest needs, or whatever it needs. With them HLT waits in the kernel.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    interrupts: InterruptsWord,

    /// Have the guest's CPUs show what they have (CPUID): as its image needs, or always, which takes half a millisecond. It is
    /// for guests with code that the image does not hold.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    cpuid: CpuidWord,

    /// Show the guest's log records down to this level.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    log: LogWord,

    /// Stop the guest after this time: seconds, or a number with ms, s or m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    timeout: Option<Duration>,

    /// What the guest finds as its arguments.
    #[arg(last = true, value_name = "ARGUMENT")]
    arguments: Vec<String>,
}

/// When there are interrupt controllers, as people type it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum InterruptsWord {
    /// When the guest's image asks for them.
    Auto,
    /// Always.
    On,
    /// Never: HLT ends the run.
    Off,
}

/// When CPUID shows anything, as people type it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum CpuidWord {
    /// When the guest's image holds an instruction that depends on it.
    Auto,
    /// Always.
    On,
}

/// A log level as people type it, from the most important to the least.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum LogWord {
    /// None.
    Off,
    /// Something failed.
    Error,
    /// Something may be wrong.
    Warn,
    /// Something happened.
    Info,
    /// For whoever looks for a mistake.
    Debug,
    /// All.
    Trace,
}

/// A mode as people type it, the oldest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ModeWord {
    /// 16-bit code, as the CPU leaves reset.
    Real,
    /// 32-bit code without paging.
    Protected,
    /// 32-bit code with two levels of page tables.
    Paged32,
    /// 32-bit code with three levels of page tables.
    Pae,
    /// 64-bit code.
    Long,
}

/// A page size as people type it.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum PageSizeWord {
    /// 4 KiB.
    #[value(name = "4k", alias = "4K")]
    Size4K,
    /// 2 MiB.
    #[value(name = "2m", alias = "2M")]
    Size2M,
    /// 1 GiB, where the CPU has such pages.
    #[value(name = "1g", alias = "1G")]
    Size1G,
}

impl Machine {
    /// What clap makes of an image and the guest's arguments alone.
    pub(super) fn plain(image: PathBuf, arguments: Vec<String>) -> Self {
        let limits = Limits::default();
        Self {
            image,
            mode: ModeWord::Long,
            load_at: None,
            entry: None,
            cpus: VcpuCount::ONE,
            memory: MemorySize::DEFAULT,
            page_size: PageSizeWord::Size2M,
            ksm: false,
            thp: false,
            dir: None,
            dir_limit: limits.written_bytes,
            dir_files: limits.open_files,
            no_contract: false,
            interrupts: InterruptsWord::Auto,
            cpuid: CpuidWord::Auto,
            log: LogWord::Info,
            timeout: None,
            arguments,
        }
    }

    /// The configuration these words mean, for commands that have something of their own to say on stdout: what the
    /// guest prints goes to stderr.
    pub(crate) fn into_quiet_config(self) -> vmm::Result<VmConfig> {
        let mut config = self.into_config()?;
        config.console = Console::stderr().map_err(vmm::Error::Console)?;
        Ok(config)
    }

    /// The configuration these words mean.
    pub(crate) fn into_config(self) -> vmm::Result<VmConfig> {
        let start = self.start();
        let is_foreign = self.no_contract || start != Start::default();
        let mut config = VmConfig::new(KernelSource::File(self.image));
        config.start = start;
        config.vcpus = self.cpus;
        config.memory = self.memory;
        config.backing = Backing { mergeable: self.ksm, huge: self.thp };
        config.page_size = match self.page_size {
            PageSizeWord::Size4K => PageSize::Size4K,
            PageSizeWord::Size2M => PageSize::Size2M,
            PageSizeWord::Size1G => PageSize::Size1G,
        };
        config.arguments = self.arguments;
        config.timeout = self.timeout;
        config.contract = if is_foreign { Contract::None } else { Contract::Required };
        config.interrupts = match self.interrupts {
            InterruptsWord::Auto => Interrupts::AsNeeded,
            InterruptsWord::On => Interrupts::On,
            InterruptsWord::Off => Interrupts::Off,
        };
        config.cpuid = match self.cpuid {
            CpuidWord::Auto => CpuidUse::AsNeeded,
            CpuidWord::On => CpuidUse::Always,
        };
        config.directory = self.dir.map(|grant| Grant {
            limits: Limits { open_files: self.dir_files, written_bytes: self.dir_limit, ..grant.limits },
            ..grant
        });
        config.log = log_to_stderr(self.log);
        config.input = Input::stdin().map_err(vmm::Error::Console)?;
        config.console = Console::stdout().map_err(vmm::Error::Console)?;
        Ok(config)
    }
}

impl Machine {
    /// The file, taken for a snapshot, and what surrounds the machine that goes on from it.
    pub(crate) fn into_surroundings(self) -> vmm::Result<(PathBuf, Surroundings)> {
        let path = self.image.clone();
        let VmConfig { console, input, log, directory, timeout, .. } = self.into_config()?;
        let snapshots = SnapshotCalls::default();
        Ok((path, Surroundings { console, input, log, directory, snapshots, timeout }))
    }

    /// How the image is to be understood.
    fn start(&self) -> Start {
        let mode = match self.mode {
            ModeWord::Real => StartMode::Real,
            ModeWord::Protected => StartMode::Protected,
            ModeWord::Paged32 => StartMode::Paged32,
            ModeWord::Pae => StartMode::Pae,
            ModeWord::Long => StartMode::Long,
        };
        let flat = self
            .load_at
            .map(|load_at| Flat { load_at: Gpa(load_at), entry: Gva(self.entry.unwrap_or(load_at)) });
        Start { mode, flat }
    }
}

/// Reads an address: decimal, or hexadecimal with `0x`.
fn parse_gpa(text: &str) -> Result<u64, String> {
    parse_address(text)
        .ok_or_else(|| format!("`{text}` is no address: write a number, with 0x if it is hexadecimal"))
}

/// Records of this level and above go to stderr, one a line.
fn log_to_stderr(word: LogWord) -> Log {
    // `LogLevel` counts from 1, the most important.
    let least = word as u64;
    Log::to(move |record| {
        if record.level as u64 <= least {
            say!("guest: {record}");
        }
    })
}

/// Reads `PATH`, `PATH:ro` or `PATH:rw`.
fn parse_grant(text: &str) -> Result<Grant, String> {
    let (path, mode) = match text.rsplit_once(':') {
        Some((path, "rw")) => (path, GrantMode::ReadWrite),
        Some((path, "ro")) => (path, GrantMode::ReadOnly),
        _ => (text, GrantMode::ReadOnly),
    };
    if path.is_empty() {
        return Err("the path is empty: write PATH, PATH:ro or PATH:rw".to_owned());
    }
    Ok(Grant { path: PathBuf::from(path), mode, limits: Limits::default() })
}

/// Reads `4096`, `100K`, `16M` or `1G`.
fn parse_size(text: &str) -> Result<u64, String> {
    parse_bytes(text)
        .ok_or_else(|| format!("`{text}` is not a size: write a number of bytes or one with K, M or G"))
}

/// Reads `2`, `2s`, `500ms`, `1.5s` or `3m`; at most a year.
pub(super) fn parse_time(text: &str) -> Result<Duration, String> {
    let not_a_time =
        || format!("`{text}` is not a time: write a number with ms, s or m, such as 500ms or 2s");
    let unit_start = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(unit_start);
    let seconds_per_unit = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => return Err(not_a_time()),
    };
    let number: f64 = number.parse().map_err(|_| not_a_time())?;
    let seconds = number * seconds_per_unit;
    if seconds <= 0.0 || seconds > YEAR_SECONDS {
        return Err(format!("`{text}` is not between 0 and one year"));
    }
    // At least what the clock can tell.
    Ok(Duration::from_secs_f64(seconds).max(Duration::from_nanos(1)))
}

const YEAR_SECONDS: f64 = 365.0 * 24.0 * 3600.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read_with_their_mode() {
        for (text, path, mode) in [
            ("data", "data", GrantMode::ReadOnly),
            ("data:ro", "data", GrantMode::ReadOnly),
            ("/a/b:rw", "/a/b", GrantMode::ReadWrite),
            ("a:b", "a:b", GrantMode::ReadOnly),
        ] {
            let grant = parse_grant(text).expect(text);
            assert_eq!((grant.path, grant.mode), (PathBuf::from(path), mode));
        }
        assert!(parse_grant(":rw").is_err() && parse_grant("").is_err());
    }

    #[test]
    fn limits_are_read_with_their_units() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("100K", 100 << 10), ("16m", 16 << 20), ("1G", 1 << 30)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size("1G"), Ok(Limits::default().written_bytes), "the default of --dir-limit");
        for wrong in ["", "G", "-1", "1.5G", "1Q"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_are_read_with_their_units() {
        assert_eq!(parse_time("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_time("2"), Ok(Duration::from_secs(2)));
        assert_eq!(parse_time("1.5s"), Ok(Duration::from_millis(1500)));
        for wrong in ["", "0", "-1", "ms", "2h", "1e30", "1..2", "999999999m"] {
            assert!(parse_time(wrong).is_err(), "{wrong}");
        }
    }
}
