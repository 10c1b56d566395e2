//! The VMM: the host's half of a virtual machine, in user space, on Linux KVM.
//!
//! KVM turns a thread into a CPU: the ioctl KVM_RUN executes guest code until something needs the host. All else is
//! up to the program that calls it. A VMM takes five steps, and this crate has a file for each:
//!
//! 1. Get memory and tell KVM that it is the guest's RAM: [`memory`], [`memory_slots`].
//! 2. Put a program into it, and page tables that a 64-bit CPU needs: [`boot`].
//! 3. Make a vCPU and set its registers: [`vcpu`], [`boot::cpu_mode`].
//! 4. Enter the guest, and answer when it comes out: [`run_loop`], [`devices`], [`hypercall`].
//! 5. Say how it ended: [`next`], [`report`].
//!
//! A machine of several vCPUs has a thread for each: [`crew`].
//!
//! Reading order: [`vm`], [`run_loop`], [`exit`], then whatever makes you curious.
//!
//! # Embedding
//!
//! ```no_run
//! use vmm::{Console, KernelSource, Vm, VmConfig};
//!
//! let (console, output) = Console::capture();
//! let mut config = VmConfig::new(KernelSource::File("kernel.elf".into()));
//! config.console = console;
//! let report = Vm::build(config)?.run()?;
//! println!("{report}: {:?}", output.text());
//! # Ok::<(), vmm::Error>(())
//! ```
//!
//! Several machines may run in one process, each on a thread of its own. The library prints nothing, reads no
//! environment, and keeps two things global: the handler of the first real-time signal, which stops guests,
//! and the moment from which guests count monotonic time.

mod arrivals;
pub mod boot;
pub mod channels;
pub mod config;
pub mod console;
pub mod coverage;
mod cpuid;
pub mod cpus;
pub mod crew;
pub mod debug;
mod descriptor;
pub mod devices;
pub mod doctor;
pub mod error;
pub mod exit;
pub mod explain;
pub mod features;
mod frozen;
pub mod guest_space;
pub mod guest_tests;
mod harmless;
pub mod hypercall;
pub mod input;
pub mod interrupts;
pub mod log;
pub mod machine;
pub mod memory;
pub mod memory_slots;
pub mod next;
pub mod observe;
pub mod origin;
mod output;
pub mod page_walk;
mod program_file;
mod readiness;
pub mod report;
mod reservation;
pub mod run_loop;
pub mod session;
pub mod snapshot;
pub mod stop;
mod tiny_guest;
pub mod touched;
pub mod vcpu;
pub mod vm;

pub use boot::contract::Contract;
pub use boot::cpu_mode::StartMode;
pub use boot::kernel::{Flat, Start};
pub use config::{Backing, CpuidUse, KernelSource, MemorySize, PageSize, SnapshotCalls, VmConfig};
pub use console::{Captured, Console};
pub use cpus::{VcpuCount, VcpuId};
pub use debug::Diagnosis;
pub use error::{Error, Result};
pub use hypercall::{Grant, GrantMode, Limits};
pub use input::Input;
pub use interrupts::{Interrupts, IrqLine, MessageLine};
pub use log::{Log, LogRecord};
pub use next::StopReason;
pub use report::RunReport;
pub use snapshot::{Snapshot, Surroundings};
pub use stop::{StopHandle, StopRequest};
pub use vm::Vm;
