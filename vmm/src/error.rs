//! What the *host* could not do, with its cause.
//!
//! Whatever a guest does is not an error but a value, [`StopReason`](crate::StopReason). An `Error` means that the
//! VMM could not do its own work. `main` alone prints the chain of causes.

use std::io;
use std::path::PathBuf;

use crate::boot::image_error::ImageError;
use crate::config::{MemorySize, PageSize};
use crate::coverage::LineTableError;
use crate::cpus::{VcpuCount, VcpuId};
use crate::guest_tests::TestListError;
use crate::snapshot::Uncapturable;
use crate::snapshot::file::FileError;

/// A result of host work.
pub type Result<T> = std::result::Result<T, Error>;

/// What the host could not do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `/dev/kvm` cannot be opened; `vmm doctor` finds out why.
    #[error("cannot open /dev/kvm")]
    OpenKvm(#[source] io::Error),

    /// The kernel speaks another KVM API. Every Linux since 2.6.22 speaks version 12.
    #[error("this kernel speaks KVM API version {0}, not {expected}", expected = crate::vm::KVM_API_VERSION)]
    ApiVersion(i32),

    /// A KVM ioctl failed.
    #[error("{call} failed")]
    Kvm {
        /// The ioctl, by the name the KVM API documentation uses.
        call: &'static str,
        /// The errno.
        #[source]
        source: io::Error,
    },

    /// The host gave no memory.
    #[error("cannot {action} {size} for guest RAM")]
    Memory {
        /// What was asked of the host.
        action: &'static str,
        /// The size asked for.
        size: MemorySize,
        /// The errno.
        #[source]
        source: io::Error,
    },

    /// The kernel image cannot be used.
    #[error("cannot boot {path}")]
    Image {
        /// The file, or a name for bytes in memory.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: ImageError,
    },

    /// The list of tests in an image cannot be read.
    #[error("cannot list the tests of {path}")]
    TestList {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: TestListError,
    },

    /// The results of tests cannot be written.
    #[error("cannot write the results of the tests to {path}")]
    TestResults {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// Why the guest died cannot be written down.
    #[error("cannot write why the guest died to {path}")]
    DiagnosisFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The lines of an image's source cannot be told.
    #[error("cannot tell the source lines of {path}")]
    Lines {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: LineTableError,
    },

    /// No way to see which lines a guest reaches.
    #[error(
        "this host's KVM tells neither of `int3` nor of steps, so nobody sees which lines a guest reaches"
    )]
    NoCoverage,

    /// The host gave no thread.
    #[error("cannot start the thread of {vcpu}")]
    VcpuThread {
        /// Whose.
        vcpu: VcpuId,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A vCPU is to be looked at that is not there.
    #[error("this machine has {count} vCPUs, numbered from 0: none is number {number}")]
    NoSuchVcpu {
        /// The number.
        number: u8,
        /// How many there are.
        count: VcpuCount,
    },

    /// A debugger follows one vCPU.
    #[error("a debugger follows one vCPU, and this machine has {0}; leave out --gdb or --cpus")]
    ManyVcpusToDebug(VcpuCount),

    /// More vCPUs than this host's KVM can give a machine.
    #[error(
        "this host's KVM gives a machine {most} vCPUs at most, not {wanted}; give a smaller number to --cpus"
    )]
    TooManyVcpus {
        /// How many it should have.
        wanted: VcpuCount,
        /// KVM_CAP_MAX_VCPUS.
        most: usize,
    },

    /// The guest's page tables do not fit.
    #[error(
        "{tables} page tables of 4 KiB for {memory} of RAM in {page_size} pages find no room: the largest free range \
         below 3 GiB has {room:#x} bytes; give more memory or larger pages"
    )]
    NoRoomForPageTables {
        /// Tables needed.
        tables: u64,
        /// RAM of the machine.
        memory: MemorySize,
        /// Size of the pages that map it.
        page_size: PageSize,
        /// Size in bytes of the largest range that could hold them.
        room: u64,
    },

    /// The guest's arguments do not fit.
    #[error("the guest's arguments take {size} bytes, room is for {max}", max = shared_abi::layout::ARGUMENTS_MAX_SIZE)]
    ArgumentsTooLong {
        /// Bytes with one NUL after each argument.
        size: usize,
    },

    /// A guest argument holds the byte that ends one.
    #[error("guest argument {index} holds a NUL byte: {argument:?}")]
    ArgumentWithNul {
        /// Position, from 0.
        index: usize,
        /// The argument.
        argument: String,
    },

    /// The CPU that KVM offers to guests has no 1 GiB pages.
    #[error(
        "this host's KVM offers its guests no 1 GiB pages (CPUID 80000001h:EDX bit 26); use --page-size 2m"
    )]
    NoGigabytePages,

    /// The CPU that KVM offers to guests cannot address all RAM.
    #[error(
        "{memory} of RAM end at {end:#x}, and this host's CPU has {bits} physical address bits (CPUID 80000008h:EAX); \
         give less memory"
    )]
    TooFewAddressBits {
        /// RAM of the machine.
        memory: MemorySize,
        /// End of the highest RAM, a GPA.
        end: u64,
        /// The CPU's physical address bits.
        bits: u32,
    },

    /// KVM accepted register values and then had others.
    #[error(
        "KVM accepted {call} but changed the registers: {difference}; this KVM cannot start a guest in {mode}"
    )]
    RegistersChanged {
        /// The ioctl.
        call: &'static str,
        /// Each register, as set and as read back.
        difference: String,
        /// The CPU mode that was wanted.
        mode: &'static str,
    },

    /// Nobody can press such a line.
    #[error("the machine has no interrupt line {pin}: {}", if *.has_interrupts {
        "lines count from 0 to 23"
    } else {
        "its guest asks for no interrupt controllers; --interrupts on gives it some"
    })]
    NoIrqLine {
        /// The pin of the I/O APIC that the line would lead to.
        pin: u8,
        /// Whether there is an I/O APIC.
        has_interrupts: bool,
    },

    /// The guest's console output cannot be written.
    #[error("cannot write the guest's console output")]
    Console(#[source] io::Error),

    /// What was observed cannot be written.
    #[error("cannot write the {what} to {path}")]
    Observed {
        /// What it is: trace, stats, timeline.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The core file cannot be written.
    #[error("cannot write the core file {path}")]
    CoreFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// The directory that the guest may use cannot be opened.
    #[error("cannot open {path} for the guest")]
    GrantedDirectory {
        /// The directory, as granted.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },

    /// A debugger cannot connect.
    #[error("cannot {action}")]
    Debugger {
        /// What was tried.
        action: String,
        /// The errno.
        #[source]
        source: io::Error,
    },

    /// A machine that cannot be kept as it is.
    #[error("cannot take a snapshot: {0}")]
    NoSnapshot(#[from] Uncapturable),

    /// A snapshot cannot be written to a file, or read from one.
    #[error("cannot use the snapshot {path}")]
    SnapshotFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FileError,
    },

    /// A snapshot of another machine.
    #[error(
        "this snapshot is of another machine; one goes back only to a snapshot of its own or of the one that it comes \
         from"
    )]
    ForeignSnapshot,

    /// KVM does not take a register back.
    #[error(
        "this host's KVM does not take {value:#x} for the model-specific register {index:#x} of a snapshot"
    )]
    MsrRefused {
        /// Its number.
        index: u32,
        /// What it should hold.
        value: u64,
    },

    /// A signal handler or thread that stops guests cannot be set up.
    #[error("cannot {action}")]
    Stop {
        /// What was tried.
        action: &'static str,
        /// The errno.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// The cause, when this is [`Error::Console`].
    pub(crate) fn into_console_failure(self) -> Option<io::Error> {
        match self {
            Self::Console(failure) => Some(failure),
            _ => None,
        }
    }

    /// The error of a failed KVM ioctl.
    pub(crate) fn kvm(call: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Self {
        move |errno| Self::Kvm { call, source: io::Error::from_raw_os_error(errno.errno()) }
    }
}
