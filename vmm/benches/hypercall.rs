//! What a hypercall and a mebibyte of console output cost, each beside the limit that was measured in the same run.
//!
//! `cargo xtask bench` builds the guest and runs this. Measurement and limit take turns, round by round; the ratio is
//! made within each round, and the median of the ratios is what counts, for a machine's speed drifts.
//!
//! | measurement | its limit |
//! |---|---|
//! | hypercall, and the same on a host without KVM_CAP_SYNC_REGS | the same guest loop, run by a bare loop around KVM_RUN that answers nothing |
//! | hypercall with exits added up by line, as for `--stats` | the hypercall that nobody watches |
//! | console write of 1 MiB | `write` of the same bytes to the same pipe by the host, and one exit of that bare loop |

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};
use shared_abi::ports;
use vmm::boot::{self, kernel::KernelImage};
use vmm::memory::GuestMemory;
use vmm::observe::Stats;
use vmm::{Console, KernelSource, StopReason, Vm, VmConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const ROUNDS: usize = 15;
const CALLS: u32 = 20_000;
const MEBIBYTES: u32 = 40;
const MEBIBYTE: usize = 1 << 20;

fn main() -> Outcome<()> {
    let guest = std::env::var_os("DUET_BENCH_GUEST").ok_or("start this by `cargo xtask bench`")?;
    let guest = PathBuf::from(guest);

    let mut calls = Pairs::default();
    let mut outs = Vec::new();
    let mut calls_by_ioctl = Pairs::default();
    let mut watched_calls = Pairs::default();
    for _ in 0..ROUNDS {
        let limit = bare_loop(&guest)? / CALLS;
        let unwatched = hypercalls(&guest, Registers::Synced)? / CALLS;
        calls.add(unwatched, limit);
        watched_calls.add(calls_with_stats(&guest)? / CALLS, unwatched);
        calls_by_ioctl.add(hypercalls(&guest, Registers::ByIoctl)? / CALLS, limit);
        outs.push(limit);
    }
    calls.print("hypercall", "bare OUT exit");
    calls_by_ioctl.print("  registers by ioctl", "bare OUT exit");
    watched_calls.print("  with --stats", "hypercall");

    outs.sort();
    let round_trip = outs[outs.len() / 2];
    let mut writes = Pairs::default();
    for _ in 0..ROUNDS {
        let limit = host_writes()? / MEBIBYTES + round_trip;
        writes.add(console_writes(&guest)? / MEBIBYTES, limit);
    }
    writes.print("console write of 1 MiB", "host's own write + exit");
    Ok(())
}

/// Times of one measurement and its limit, round by round.
#[derive(Default)]
struct Pairs(Vec<(Duration, Duration)>);

impl Pairs {
    fn add(&mut self, measured: Duration, limit: Duration) {
        self.0.push((measured, limit));
    }

    fn print(&self, name: &str, limit_name: &str) {
        let mut measured: Vec<_> = self.0.iter().map(|(measured, _)| *measured).collect();
        let mut limits: Vec<_> = self.0.iter().map(|(_, limit)| *limit).collect();
        let mut ratios: Vec<_> =
            self.0.iter().map(|(measured, limit)| measured.as_secs_f64() / limit.as_secs_f64()).collect();
        measured.sort();
        limits.sort();
        ratios.sort_by(f64::total_cmp);
        let middle = self.0.len() / 2;
        println!(
            "{name:24} {:>9.2?}   {limit_name:24} {:>9.2?}   ratio {:.2} (min {:.2}, max {:.2})",
            measured[middle],
            limits[middle],
            ratios[middle],
            ratios[0],
            ratios[ratios.len() - 1],
        );
    }
}

/// How the host gets at the guest's registers.
#[derive(Clone, Copy, PartialEq)]
enum Registers {
    /// In `kvm_run`, where KVM copies them.
    Synced,
    /// By KVM_GET_REGS and KVM_SET_REGS, as on hosts without KVM_CAP_SYNC_REGS.
    ByIoctl,
}

/// Our VMM, `CALLS` hypercalls.
fn hypercalls(guest: &Path, registers: Registers) -> Outcome<Duration> {
    let mut vm = Vm::build(config(guest, "calls", CALLS))?;
    if registers == Registers::ByIoctl {
        vm.forgo_register_sync()?;
    }
    run(vm)
}

/// The same, and every exit is added up by line.
fn calls_with_stats(guest: &Path) -> Outcome<Duration> {
    let mut vm = Vm::build(config(guest, "calls", CALLS))?;
    let mut stats = Stats::new(&vm);
    let start = Instant::now();
    let report = vm.run_observed(&mut stats)?;
    let elapsed = start.elapsed();
    let total = stats.summary(&vm.symbols()).total.exits;
    if total != report.exits.total() || total <= u64::from(CALLS) {
        return Err(format!("{total} exits were added up: {report}").into());
    }
    Ok(elapsed)
}

fn config(guest: &Path, what: &str, often: u32) -> VmConfig {
    let mut config = VmConfig::new(KernelSource::File(guest.to_owned()));
    config.arguments = vec![what.to_owned(), often.to_string()];
    config
}

/// The time between the machine's first entry and its end.
fn run(mut vm: Vm) -> Outcome<Duration> {
    let start = Instant::now();
    let report = vm.run()?;
    let elapsed = start.elapsed();
    if report.stop != (StopReason::Exited { code: 0 }) {
        return Err(report.to_string().into());
    }
    Ok(elapsed)
}

/// The same guest in a loop that knows KVM_RUN and the exit port and nothing else.
fn bare_loop(guest: &Path) -> Outcome<Duration> {
    let mut bare = BareVm::build(config(guest, "calls", CALLS))?;
    let start = Instant::now();
    loop {
        match bare.vcpu.run()? {
            VcpuExit::IoOut(ports::HYPERCALL, _) => {}
            VcpuExit::IoOut(ports::EXIT, _) => return Ok(start.elapsed()),
            other => return Err(format!("the bare loop met {other:?}").into()),
        }
    }
}

/// A booted guest in the hands of whoever has the vCPU. Fields are dropped in order: the memory goes last.
struct BareVm {
    vcpu: VcpuFd,
    _vm: VmFd,
    _memory: GuestMemory,
}

impl BareVm {
    fn build(config: VmConfig) -> Outcome<Self> {
        let memory = GuestMemory::allocate(config.memory, config.backing)?;
        let mut image = KernelImage::open(&config.kernel)?;
        let boot = boot::prepare(&config, &mut image, &memory)?;
        let kvm = Kvm::new()?;
        let vm = kvm.create_vm()?;
        for (slot, range) in (0..).zip(memory.slots()) {
            let region = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: range.gpa.0,
                memory_size: range.size,
                userspace_addr: range.hva,
            };
            // SAFETY: The range is mapped, and `BareVm` drops the VM before the memory.
            unsafe { vm.set_user_memory_region(region)? };
        }
        let vcpu = vm.create_vcpu(0)?;
        vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
        boot.cpu.set(&vcpu)?;
        Ok(Self { vcpu, _vm: vm, _memory: memory })
    }
}

/// Our VMM, `MEBIBYTES` console writes to a pipe that somebody empties.
fn console_writes(guest: &Path) -> Outcome<Duration> {
    let (reader, writer) = io::pipe()?;
    let drain = thread::spawn(move || empty(reader));
    let mut config = config(guest, "mebibytes", MEBIBYTES);
    config.console = Console::to_file(File::from(std::os::fd::OwnedFd::from(writer)));
    let elapsed = run(Vm::build(config)?)?;
    expect_all(drain)?;
    Ok(elapsed)
}

/// The host's own writes to such a pipe.
fn host_writes() -> Outcome<Duration> {
    let (reader, mut writer) = io::pipe()?;
    let drain = thread::spawn(move || empty(reader));
    let text = vec![b'.'; MEBIBYTE];
    let start = Instant::now();
    for _ in 0..MEBIBYTES {
        writer.write_all(&text)?;
    }
    let elapsed = start.elapsed();
    drop(writer);
    expect_all(drain)?;
    Ok(elapsed)
}

/// Reads to the end and counts.
fn empty(mut reader: io::PipeReader) -> io::Result<usize> {
    let mut buffer = vec![0; 64 << 10];
    let mut total = 0;
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(total),
            count => total += count,
        }
    }
}

fn expect_all(drain: thread::JoinHandle<io::Result<usize>>) -> Outcome<()> {
    let total = drain.join().map_err(|_| "the reader panicked")??;
    if total != MEBIBYTE * MEBIBYTES as usize {
        return Err(format!("{total} bytes arrived").into());
    }
    Ok(())
}
