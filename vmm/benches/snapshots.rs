//! What it costs to go back to a snapshot and to make machines from one, each beside the limit that was measured in the
//! same run.
//!
//! `cargo xtask bench snapshots` builds the guest and runs this. Measurement and limit take turns, round by round, and the
//! ratio is made within each round.
//!
//! | measurement | its limit |
//! |---|---|
//! | going back in place, after the guest has written to 16 pages | the calls of KVM that set what a guest may have changed, and a copy of 16 pages |
//! | a new machine, up to its first exit | the same by bare calls, of a VM that maps a file with the same RAM |
//! | taking one that a pool has ready, up to its first exit | that, too |
//! | a new machine | one that is built and boots to where the snapshot was taken |
//!
//! Then how many machines a second are made, run to their first exit and dropped, by one thread and by two; and what each
//! of many that live at once takes of the host's memory.

mod told;

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use kvm_bindings::{
    CpuId, Msrs, kvm_debugregs, kvm_msr_entry, kvm_sync_regs, kvm_userspace_memory_region, kvm_xcrs,
    kvm_xsave,
};
use kvm_ioctls::{Kvm, SyncReg, VcpuFd, VmFd};
use serde_json::{Value, json};
use shared_abi::Gpa;
use told::{Pairs, ROUNDS, measured, progress, rounds};
use vmm::snapshot::Pool;
use vmm::snapshot::state::VcpuState;
use vmm::{KernelSource, Snapshot, SnapshotCalls, StopReason, Surroundings, Vm, VmConfig};

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

const TOUCHED: usize = 16;
const PAGE: usize = 4096;

fn main() -> Outcome<()> {
    let guest = std::env::var_os("DUET_BENCH_GUEST").ok_or("start this by `cargo xtask bench`")?;
    let guest = PathBuf::from(guest);
    in_place(&guest)?;
    let (_, snapshot) = kept(&guest)?;
    new_machines(&snapshot)?;
    from_pool(&snapshot)?;
    instead_of_boot(&guest, &snapshot)?;
    machines_a_second(&snapshot)?;
    many_at_once(&snapshot)
}

/// Measures by turns, and tells what was found. What a deed gives is dropped after its time was taken.
fn by_turns<Own, Limit>(
    name: &str,
    limit_name: &'static str,
    goal: &Value,
    mut own: impl FnMut() -> Outcome<(Own, Duration)>,
    mut limit: impl FnMut() -> Outcome<(Limit, Duration)>,
) -> Outcome<()> {
    let rounds = rounds(ROUNDS);
    let mut pairs = Pairs::new(name, limit_name, rounds);
    for _ in 0..rounds {
        let own = own()?.1;
        let limit = limit()?.1;
        pairs.add(own, limit);
    }
    pairs.tell("snapshots", goal);
    Ok(())
}

fn timed<T>(deed: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Duration)> {
    let start = Instant::now();
    let done = deed()?;
    Ok((done, start.elapsed()))
}

/// A guest that writes to 16 pages and asks, again and again, kept where it asks first.
fn kept(guest: &Path) -> Outcome<(Vm, Snapshot)> {
    let mut vm = Vm::build(config(guest))?;
    to_first_exit(&mut vm)?;
    let snapshot = vm.snapshot()?;
    Ok((vm, snapshot))
}

fn config(guest: &Path) -> VmConfig {
    let mut config = VmConfig::new(KernelSource::File(guest.to_owned()));
    config.arguments = vec!["touch".to_owned(), u32::MAX.to_string()];
    config.snapshots = SnapshotCalls::EndTheRun;
    config
}

fn to_first_exit(vm: &mut Vm) -> Outcome<()> {
    match vm.run()?.stop {
        StopReason::SnapshotAsked => Ok(()),
        other => Err(other.to_string().into()),
    }
}

fn surroundings() -> Surroundings {
    Surroundings { snapshots: SnapshotCalls::EndTheRun, ..Surroundings::default() }
}

fn in_place(guest: &Path) -> Outcome<()> {
    let (mut vm, snapshot) = kept(guest)?;
    let mut bare = Bare::new(&snapshot)?;
    let (from, mut to) = (vec![1_u8; TOUCHED * PAGE], vec![0_u8; TOUCHED * PAGE]);
    by_turns(
        "back in place, 16 pages",
        "calls and copy",
        &json!({ "ratio": 1.5, "median": 60_000 }),
        || {
            to_first_exit(&mut vm)?;
            timed(|| Ok(vm.restore(&snapshot)?))
        },
        || {
            bare.vcpu.run()?;
            timed(|| {
                bare.go_back()?;
                to.copy_from_slice(&from);
                Ok(())
            })
        },
    )
}

fn new_machines(snapshot: &Snapshot) -> Outcome<()> {
    let source = Source::new(snapshot)?;
    by_turns(
        "new machine to first exit",
        "bare calls",
        &json!({ "ratio": 1.3 }),
        || timed(|| to_first_exit_of(snapshot.spawn(surroundings())?)),
        || timed(|| source.to_first_exit()),
    )
}

fn from_pool(snapshot: &Snapshot) -> Outcome<()> {
    const READY: usize = 8;
    let source = Source::new(snapshot)?;
    let pool = Pool::new(snapshot.clone(), READY)?;
    by_turns(
        "from a pool to first exit",
        "bare calls",
        &Value::Null,
        || {
            while pool.ready() < READY {
                std::thread::yield_now();
            }
            timed(|| to_first_exit_of(pool.take(surroundings())?))
        },
        || timed(|| source.to_first_exit()),
    )
}

/// A machine that goes on from where one is that boots.
fn instead_of_boot(guest: &Path, snapshot: &Snapshot) -> Outcome<()> {
    by_turns(
        "new machine, not booted",
        "booted",
        &Value::Null,
        || timed(|| Ok(snapshot.spawn(surroundings())?)),
        || timed(|| to_first_exit_of(Vm::build(config(guest))?)),
    )
}

fn to_first_exit_of(mut vm: Vm) -> Outcome<Vm> {
    to_first_exit(&mut vm)?;
    Ok(vm)
}

fn machines_a_second(snapshot: &Snapshot) -> Outcome<()> {
    let rounds = rounds(20);
    for threads in [1, 2] {
        let name = format!("machines on {threads} thread{}", if threads == 1 { "" } else { "s" });
        let mut rates = Vec::new();
        for done in 1..=rounds {
            rates.push(rate(snapshot, threads)?);
            progress(&name, done, rounds);
        }
        measured(json!({ "group": "snapshots", "name": name, "unit": "per_second", "samples": rates }));
    }
    Ok(())
}

/// How many machines a second are made, run to their first exit and dropped.
fn rate(snapshot: &Snapshot, threads: u32) -> Outcome<f64> {
    const MACHINES: u32 = 100;
    let make = || {
        for _ in 0..MACHINES {
            let machine = snapshot.spawn(surroundings()).map_err(|error| error.to_string())?;
            to_first_exit_of(machine).map_err(|error| error.to_string())?;
        }
        Ok::<_, String>(())
    };
    let start = Instant::now();
    std::thread::scope(|scope| {
        let makers: Vec<_> = (0..threads).map(|_| scope.spawn(make)).collect();
        makers.into_iter().try_for_each(|maker| maker.join().map_err(|_| "a maker panicked".to_owned())?)
    })?;
    Ok(f64::from(MACHINES * threads) / start.elapsed().as_secs_f64())
}

/// What each of many that live at once takes of memory, beyond what it has written: when it waits, and when it has run.
fn many_at_once(snapshot: &Snapshot) -> Outcome<()> {
    const MACHINES: usize = 200;
    let rounds = rounds(6);
    let (mut waiting, mut run) = (Vec::new(), Vec::new());
    for done in 1..=rounds {
        let before = proportional_size()?;
        let mut machines =
            (0..MACHINES).map(|_| snapshot.spawn(surroundings())).collect::<Result<Vec<_>, _>>()?;
        waiting.push((proportional_size()? - before) / MACHINES as f64);
        machines.iter_mut().try_for_each(to_first_exit)?;
        let written = machines.iter().map(|vm| vm.memory().own_bytes()).sum::<u64>() as f64;
        run.push((proportional_size()? - before - written).max(0.0) / MACHINES as f64);
        progress("memory of clones", done, rounds);
    }
    for (name, samples) in
        [("memory of a clone that waits", waiting), ("memory of a clone that has run", run)]
    {
        measured(json!({
            "group": "snapshots",
            "name": name,
            "unit": "bytes",
            "samples": samples,
            "goal": { "median": 100 << 10 },
        }));
    }
    Ok(())
}

/// A line of /proc/self/smaps_rollup, in bytes.
fn proportional_size() -> Outcome<f64> {
    let rollup = fs::read_to_string("/proc/self/smaps_rollup")?;
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).ok_or("no Pss")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? * 1024.0)
}

/// What a bare VM is made of.
struct Source {
    kvm: Kvm,
    file: File,
    size: usize,
    cpuid: Option<CpuId>,
    registers: kvm_sync_regs,
}

impl Source {
    /// The RAM and the registers that a machine of `snapshot` starts with. It is one of its own that is read, for whoever
    /// reads all of RAM has all its pages.
    fn new(snapshot: &Snapshot) -> Outcome<Self> {
        let vm = snapshot.spawn(surroundings())?;
        let mut ram = vec![0; vm.memory().size().bytes() as usize];
        vm.memory().read(Gpa(0), &mut ram)?;
        // SAFETY: The name ends with a NUL; the descriptor is new, so nobody else owns it.
        let file = unsafe { File::from_raw_fd(libc::memfd_create(c"bare".as_ptr(), libc::MFD_CLOEXEC)) };
        io::Write::write_all(&mut &file, &ram)?;
        let VcpuState { cpuid, regs, sregs, events, .. } = &snapshot.state().vcpus[0];
        let cpuid =
            (!cpuid.is_empty()).then(|| CpuId::from_entries(cpuid)).transpose().map_err(|_| "many leaves")?;
        let registers = kvm_sync_regs { regs: *regs, sregs: *sregs, events: *events };
        Ok(Self { kvm: Kvm::new()?, file, size: ram.len(), cpuid, registers })
    }

    /// By bare calls: a VM that maps the file, and a vCPU that is about to go on.
    fn bare(&self) -> Outcome<Bare> {
        let ram = Ram::map(&self.file, self.size)?;
        let vm = self.kvm.create_vm()?;
        let region = kvm_userspace_memory_region {
            slot: 0,
            flags: 0,
            guest_phys_addr: 0,
            memory_size: self.size as u64,
            userspace_addr: ram.start as u64,
        };
        // SAFETY: The range is mapped, and `Bare` drops the VM before it.
        unsafe { vm.set_user_memory_region(region)? };
        let vcpu = vm.create_vcpu(0)?;
        if let Some(cpuid) = &self.cpuid {
            vcpu.set_cpuid2(cpuid)?;
        }
        vcpu.set_sregs(&self.registers.sregs)?;
        vcpu.set_regs(&self.registers.regs)?;
        Ok(Bare { vcpu, _vm: vm, _ram: ram, registers: self.registers, others: None })
    }

    /// One that has run to its first exit.
    fn to_first_exit(&self) -> Outcome<Bare> {
        let mut bare = self.bare()?;
        bare.vcpu.run()?;
        Ok(bare)
    }
}

/// A guest in the hands of whoever has the vCPU. Fields are dropped in order.
struct Bare {
    vcpu: VcpuFd,
    _vm: VmFd,
    _ram: Ram,
    registers: kvm_sync_regs,
    others: Option<Others>,
}

/// What a guest may have changed without an exit.
struct Others {
    xsave: kvm_xsave,
    xcrs: kvm_xcrs,
    debug: kvm_debugregs,
    msrs: Msrs,
}

impl Bare {
    fn new(snapshot: &Snapshot) -> Outcome<Self> {
        let mut bare = Source::new(snapshot)?.bare()?;
        let kept: &[kvm_msr_entry] = &snapshot.state().vcpus[0].msrs;
        bare.others = Some(Others {
            xsave: bare.vcpu.get_xsave()?,
            xcrs: bare.vcpu.get_xcrs()?,
            debug: bare.vcpu.get_debug_regs()?,
            msrs: Msrs::from_entries(kept).map_err(|_| "too many registers")?,
        });
        Ok(bare)
    }

    /// The calls that cannot be left out: the last exit is finished, then all is set that the guest may have changed.
    fn go_back(&mut self) -> Outcome<()> {
        self.enter_at_once()?;
        let Others { xsave, xcrs, debug, msrs } = self.others.as_ref().ok_or("it was made to go back")?;
        self.vcpu.set_xcrs(xcrs)?;
        // SAFETY: No larger state was asked for by arch_prctl, so KVM reads 4096 bytes.
        unsafe { self.vcpu.set_xsave(xsave)? };
        self.vcpu.set_debug_regs(debug)?;
        self.vcpu.set_msrs(msrs)?;
        *self.vcpu.sync_regs_mut() = self.registers;
        for part in [SyncReg::Register, SyncReg::SystemRegister, SyncReg::VcpuEvents] {
            self.vcpu.set_sync_dirty_reg(part);
        }
        self.enter_at_once()
    }

    fn enter_at_once(&mut self) -> Outcome<()> {
        self.vcpu.set_kvm_immediate_exit(1);
        let entered = self.vcpu.run().map(drop);
        self.vcpu.set_kvm_immediate_exit(0);
        match entered {
            Err(error) if error.errno() == libc::EINTR => Ok(()),
            other => Err(format!("{other:?}").into()),
        }
    }
}

/// A private mapping.
struct Ram {
    start: *mut libc::c_void,
    size: usize,
}

impl Ram {
    fn map(file: &File, size: usize) -> io::Result<Self> {
        let (rights, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_NORESERVE);
        // SAFETY: A new mapping at an address the kernel chooses touches no existing memory.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), size, rights, flags, file.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(Self { start, size }) }
    }
}

impl Drop for Ram {
    fn drop(&mut self) {
        // SAFETY: `map` mapped just this range, and the VM that knows of it is gone.
        unsafe { libc::munmap(self.start, self.size) };
    }
}
