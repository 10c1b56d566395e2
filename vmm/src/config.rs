//! `VmConfig`: everything that decides a run, valid once it exists.
//!
//! Words typed by people become these types at the border (`cli/`); nothing behind it parses. Nothing reads the
//! configuration after [`Vm::build`](crate::Vm::build).

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use shared_abi::addr::PAGE_SIZE;
use shared_abi::layout::{MAX_RAM_SIZE, MIN_RAM_SIZE};

use crate::boot::contract::Contract;
use crate::boot::kernel::Start;
use crate::console::Console;
use crate::cpus::VcpuCount;
use crate::hypercall::Grant;
use crate::input::Input;
use crate::interrupts::Interrupts;
use crate::log::Log;

/// Everything that decides a run.
#[derive(Debug)]
pub struct VmConfig {
    /// The kernel.
    pub kernel: KernelSource,
    /// The mode that it starts in, and where it goes if it is a flat image.
    pub start: Start,
    /// vCPUs of the machine.
    pub vcpus: VcpuCount,
    /// RAM of the machine.
    pub memory: MemorySize,
    /// How the host backs that RAM.
    pub backing: Backing,
    /// Size of the pages that map free RAM; the kernel image always has 4 KiB pages.
    pub page_size: PageSize,
    /// What the guest finds as its arguments.
    pub arguments: Vec<String>,
    /// Whether the guest must carry our contract.
    pub contract: Contract,
    /// Whether the machine has interrupt controllers.
    pub interrupts: Interrupts,
    /// When the vCPUs show what they have.
    pub cpuid: CpuidUse,
    /// The directory that the guest may use, if any.
    pub directory: Option<Grant>,
    /// Where the guest's console output goes.
    pub console: Console,
    /// Where the guest's console input comes from.
    pub input: Input,
    /// Where the guest's log records go.
    pub log: Log,
    /// What becomes of a guest's wish to be kept.
    pub snapshots: SnapshotCalls,
    /// How long the guest may run; `None` means for ever.
    pub timeout: Option<Duration>,
}

/// What becomes of a guest's wish to be kept ([`shared_abi::Hypercall::Snapshot`]).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SnapshotCalls {
    /// It is refused.
    #[default]
    Refused,
    /// The run ends with [`StopReason::SnapshotAsked`](crate::StopReason::SnapshotAsked); whoever runs the machine takes a
    /// snapshot, or does not, and runs it on.
    EndTheRun,
}

impl VmConfig {
    /// What `vmm run` has by default, but with nobody at the console: output and log are thrown away, input is at its
    /// end.
    #[must_use]
    pub fn new(kernel: KernelSource) -> Self {
        Self {
            kernel,
            start: Start::default(),
            vcpus: VcpuCount::ONE,
            memory: MemorySize::DEFAULT,
            backing: Backing::default(),
            page_size: PageSize::Size2M,
            arguments: Vec::new(),
            contract: Contract::Required,
            interrupts: Interrupts::AsNeeded,
            cpuid: CpuidUse::default(),
            directory: None,
            console: Console::discard(),
            input: Input::bytes([]),
            log: Log::discard(),
            snapshots: SnapshotCalls::default(),
            timeout: None,
        }
    }
}

/// What of a configuration decides how a guest runs, whoever talks to it: enough to run it once more.
#[derive(Clone, Debug)]
pub(crate) struct Blueprint {
    pub(crate) start: Start,
    pub(crate) memory: MemorySize,
    pub(crate) page_size: PageSize,
    pub(crate) arguments: Vec<String>,
    pub(crate) contract: Contract,
    pub(crate) cpuid: CpuidUse,
}

impl VmConfig {
    /// What a second machine for the same guest needs.
    pub(crate) fn blueprint(&self) -> Blueprint {
        let Self { start, memory, page_size, contract, cpuid, .. } = *self;
        // The second machine has no directory, so it must be told what that means for the first.
        let cpuid = if self.directory.is_some() { CpuidUse::Always } else { cpuid };
        Blueprint { start, memory, page_size, arguments: self.arguments.clone(), contract, cpuid }
    }
}

impl Blueprint {
    /// The configuration of a second machine, which runs `image` with nobody at its console.
    pub(crate) fn config(&self, image: std::sync::Arc<[u8]>) -> VmConfig {
        let Self { start, memory, page_size, contract, cpuid, .. } = *self;
        let arguments = self.arguments.clone();
        VmConfig {
            start,
            memory,
            page_size,
            arguments,
            contract,
            cpuid,
            ..VmConfig::new(KernelSource::Bytes(image))
        }
    }
}

/// When a machine's vCPUs show what they have (CPUID), and so have what KVM makes depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CpuidUse {
    /// When the image holds an instruction that depends on it, or the machine is out of the ordinary. Where it is not, each
    /// leaf of CPUID is 0.
    #[default]
    AsNeeded,
    /// Always: for a guest that makes or reads code that its image does not hold.
    Always,
}

/// Where the kernel image comes from.
#[derive(Clone, Debug)]
pub enum KernelSource {
    /// A file.
    File(PathBuf),
    /// Bytes that the embedding program holds.
    Bytes(std::sync::Arc<[u8]>),
}

/// How the host backs guest RAM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backing {
    /// Lets the host merge equal pages of several machines (`madvise(MADV_MERGEABLE)`, KSM).
    pub mergeable: bool,
    /// Aligns RAM to 2 MiB and asks for huge pages (`madvise(MADV_HUGEPAGE)`, THP).
    pub huge: bool,
}

/// A size of RAM: whole pages, from [`MIN_RAM_SIZE`] to [`MAX_RAM_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct MemorySize(u64);

impl MemorySize {
    /// 16 MiB.
    pub const DEFAULT: Self = Self(16 << 20);

    /// Checks a size in bytes.
    ///
    /// # Errors
    /// Says which rule the number breaks.
    pub fn new(bytes: u64) -> Result<Self, MemorySizeError> {
        if bytes < MIN_RAM_SIZE {
            return Err(MemorySizeError::TooSmall(bytes));
        }
        if bytes > MAX_RAM_SIZE {
            return Err(MemorySizeError::TooLarge(bytes));
        }
        if !bytes.is_multiple_of(PAGE_SIZE) {
            return Err(MemorySizeError::Unaligned(bytes));
        }
        Ok(Self(bytes))
    }

    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

/// What is wrong with a size of RAM.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum MemorySizeError {
    /// Not a number with an optional unit.
    #[error("`{0}` is not a size: write a number of bytes or one with K, M or G, such as 16M")]
    NotASize(String),
    /// Less than the structures of the boot need.
    #[error("{0} bytes are too little: a machine needs at least {min} bytes (2M)", min = MIN_RAM_SIZE)]
    TooSmall(u64),
    /// More than the guest-physical address space has room for.
    #[error("{0} bytes are too much: a machine can address at most {max} bytes (256G)", max = MAX_RAM_SIZE)]
    TooLarge(u64),
    /// Not whole pages.
    #[error("{0} bytes are not whole pages of 4096 bytes")]
    Unaligned(u64),
}

impl FromStr for MemorySize {
    type Err = MemorySizeError;

    /// Reads a size as [`parse_bytes`] does, and checks it.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(parse_bytes(text).ok_or_else(|| MemorySizeError::NotASize(text.to_owned()))?)
    }
}

/// Reads `2M`, `64G`, `4096K` or a number of bytes. K, M, G, T are powers of 1024; `B` and `iB` may follow. More than 64
/// bits hold is `u64::MAX`: a size, only too large a one. `None` when it is no size.
#[must_use]
pub fn parse_bytes(text: &str) -> Option<u64> {
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    if digits.is_empty() {
        return None;
    }
    let number: u64 = digits.parse().unwrap_or(u64::MAX);
    Some(number.saturating_mul(1 << shift))
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0;
        match bytes.trailing_zeros() {
            30.. => write!(f, "{} GiB", bytes >> 30),
            20..30 => write!(f, "{} MiB", bytes >> 20),
            _ => write!(f, "{} KiB", bytes >> 10),
        }
    }
}

/// A size of page that x86-64 can map (Intel SDM vol. 3A, 4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PageSize {
    /// 4 KiB, mapped by a page-table entry.
    Size4K,
    /// 2 MiB, mapped by a page-directory entry with `PS` set.
    Size2M,
    /// 4 MiB, mapped by a page-directory entry of 32-bit paging with `PS` set.
    Size4M,
    /// 1 GiB, mapped by a page-directory-pointer entry with `PS` set; not every CPU has it.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        match self {
            Self::Size4K => 4 << 10,
            Self::Size2M => 2 << 20,
            Self::Size4M => 4 << 20,
            Self::Size1G => 1 << 30,
        }
    }
}

impl fmt::Display for PageSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Size4K => "4 KiB",
            Self::Size2M => "2 MiB",
            Self::Size4M => "4 MiB",
            Self::Size1G => "1 GiB",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_with_their_units() {
        for (text, bytes) in [("2M", 2 << 20), ("64G", 64 << 30), ("4096k", 4 << 20), ("2097152", 2 << 20)] {
            assert_eq!(text.parse::<MemorySize>().map(MemorySize::bytes), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn impossible_sizes_are_refused_with_the_rule_they_break() {
        for (text, complaint) in [
            ("0", "too little"),
            ("1M", "too little"),
            ("2097153", "not whole pages"),
            ("257G", "too much"),
            ("99999999999999999999999", "too much"),
            ("18014398509481985K", "too much"),
            ("", "not a size"),
            ("-1", "not a size"),
            ("16Q", "not a size"),
            ("M", "not a size"),
            ("1.5G", "not a size"),
        ] {
            let error = text.parse::<MemorySize>().expect_err(text).to_string();
            assert!(error.contains(complaint), "{text}: {error}");
        }
    }

    #[test]
    fn sizes_print_in_the_largest_whole_unit() {
        for (text, printed) in [("16M", "16 MiB"), ("64G", "64 GiB"), ("2052K", "2052 KiB")] {
            assert_eq!(text.parse::<MemorySize>().expect(text).to_string(), printed);
        }
    }
}
