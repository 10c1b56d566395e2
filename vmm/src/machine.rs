//! `Machine`: what all vCPUs of a VM share.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use kvm_ioctls::VmFd;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::channel::Channel;
use shared_abi::interrupts::{self, CONSOLE_INPUT, IO_APIC};
use shared_abi::{Gpa, layout, ports};

use crate::arrivals::Arrivals;
use crate::channels::{Channels, Host};
use crate::config::SnapshotCalls;
use crate::console::Console;
use crate::cpus::{VcpuCount, VcpuId};
use crate::crew::Crew;
use crate::devices::bus::{MmioBus, PioBus};
use crate::devices::{DebugConsole, ExitPort, MmioConsole};
use crate::error::{Error, Result};
use crate::guest_space::GuestBuffer;
use crate::hypercall::{Answer, Files, Journal, PanicText, elapsed_ns};
use crate::input::Input;
use crate::interrupts::{IrqLine, MessageLine, SharedIoapic};
use crate::log::{Log, LogRecord};
use crate::memory::GuestMemory;
use crate::memory_slots::MemorySlots;
use crate::next::{Next, StopReason};
use crate::snapshot::Surroundings;
use crate::stop::{StopHandle, StopRequest};
use crate::vcpu::Vcpu;

/// What all vCPUs of a VM share.
#[derive(Debug)]
pub struct Machine {
    // Dropped first: their threads read memory, and the VM maps it.
    channels: Mutex<Channels>,
    vm: Arc<VmFd>,
    slots: Mutex<MemorySlots>,
    /// RAM.
    pub memory: Arc<GuestMemory>,
    /// The I/O ports.
    pub pio: PioBus,
    /// The addresses where devices are.
    pub mmio: MmioBus,
    ioapic: Option<SharedIoapic>,
    /// Stops all of it.
    pub stop: StopHandle,
    /// Who of the vCPUs does what; `None` where there is one.
    pub crew: Option<Crew>,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// Whether the guest speaks our contract and so may make hypercalls.
    pub has_hypercalls: bool,
    arguments: Vec<u8>,
    console: Arc<Mutex<Console>>,
    input: Mutex<Input>,
    /// Tells the guest of input by interrupt, where it has interrupts and input may come later.
    arrivals: Option<Mutex<Arrivals>>,
    log: Log,
    files: Mutex<Files>,
    panic_text: Mutex<PanicText>,
    journal: Mutex<Journal>,
    snapshots: SnapshotCalls,
    /// The vCPUs that have asked for a snapshot and got no number yet.
    askers: Mutex<Vec<VcpuId>>,
    /// A number that no other machine has; 0 until the guest asks.
    identity: Mutex<u64>,
    /// Nanoseconds by which its monotonic time is ahead of this process's.
    clock_offset: AtomicU64,
}

/// What a machine is made of, beside the devices that every machine has.
#[derive(Debug)]
pub struct Parts {
    /// The VM, whose memory slots are in `memory`.
    pub vm: VmFd,
    /// RAM.
    pub memory: GuestMemory,
    /// What KVM knows of it.
    pub slots: MemorySlots,
    /// How many vCPUs there are.
    pub vcpus: VcpuCount,
    /// Whether the VM has local APICs, so that the machine has an I/O APIC.
    pub interrupts: bool,
    /// How long it may run.
    pub time_limit: Option<Duration>,
    /// Whether the guest may make hypercalls.
    pub has_hypercalls: bool,
    /// The guest's arguments as they lie in memory.
    pub arguments: Vec<u8>,
    /// Where console output goes.
    pub console: Console,
    /// Where console input comes from.
    pub input: Input,
    /// What becomes of a guest's wish to be kept.
    pub snapshots: SnapshotCalls,
    /// Where log records go.
    pub log: Log,
    /// The guest's files.
    pub files: Files,
}

impl Machine {
    /// Puts the parts together.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub fn new(parts: Parts) -> Result<Self> {
        let stop = StopHandle::default();
        let mut console = parts.console;
        console.belong_to(&stop);
        let console = Arc::new(Mutex::new(console));
        let mut pio = PioBus::default();
        let mut mmio = MmioBus::default();
        pio.attach(ports::DEBUG_CONSOLE, Box::new(DebugConsole::new(Arc::clone(&console))));
        pio.attach(ports::EXIT, Box::new(ExitPort));
        if parts.has_hypercalls {
            let device = || Box::new(MmioConsole::new(Arc::clone(&console)));
            mmio.attach(layout::CONSOLE_MMIO, PAGE_SIZE, device());
            mmio.attach(layout::CONSOLE_COALESCED_MMIO, PAGE_SIZE, device());
            pio.attach(ports::CONSOLE_COALESCED, Box::new(DebugConsole::new(Arc::clone(&console))));
        }
        let (vm, memory) = (Arc::new(parts.vm), Arc::new(parts.memory));
        let ioapic = parts.interrupts.then(|| SharedIoapic::new(Arc::clone(&vm), Arc::clone(&memory)));
        if let Some(ioapic) = &ioapic {
            mmio.attach(IO_APIC, interrupts::REGISTERS_SIZE, Box::new(ioapic.clone()));
        }
        let arrivals = arrivals(ioapic.as_ref(), &parts.input)?;
        Ok(Self {
            channels: Mutex::default(),
            vm,
            slots: Mutex::new(parts.slots),
            memory,
            pio,
            mmio,
            ioapic,
            stop,
            crew: Crew::of(parts.vcpus, parts.interrupts),
            time_limit: parts.time_limit,
            has_hypercalls: parts.has_hypercalls,
            arguments: parts.arguments,
            console,
            input: Mutex::new(parts.input),
            arrivals,
            log: parts.log,
            files: Mutex::new(parts.files),
            panic_text: Mutex::default(),
            journal: Mutex::default(),
            snapshots: parts.snapshots,
            askers: Mutex::default(),
            identity: Mutex::default(),
            clock_offset: AtomicU64::new(0),
        })
    }

    /// The reason to stop that somebody outside has given, if any.
    #[must_use]
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.stop.requested().map(|request| match request {
            StopRequest::Interrupt => StopReason::Interrupted,
            StopRequest::ConsoleClosed => StopReason::ConsoleClosed,
            StopRequest::TimeLimit => StopReason::TimedOut { limit: self.time_limit.unwrap_or_default() },
        })
    }

    /// Answers a read where KVM knows no RAM: RAM it has not been told of yet, a device, or nothing.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn read_mmio(&self, gpa: Gpa, data: &mut [u8]) -> Result<Next> {
        if self.memory.read(gpa, data).is_ok() {
            self.register_memory(gpa)?;
            return Ok(Next::Resume);
        }
        self.mmio.read(gpa, data)
    }

    /// Takes a write where KVM knows no RAM: RAM it has not been told of yet, a device, or nothing.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn write_mmio(&self, gpa: Gpa, data: &[u8]) -> Result<Next> {
        if self.memory.write(gpa, data).is_ok() {
            self.register_memory(gpa)?;
            return Ok(Next::Resume);
        }
        self.mmio.write(gpa, data)
    }

    /// That KVM knows it already is no mistake: an access that crosses a page comes in two parts.
    fn register_memory(&self, gpa: Gpa) -> Result<()> {
        locked(&self.slots).register(&self.vm, gpa)
    }

    /// What to do when KVM could not finish an instruction or an exception: once all RAM is registered, the run is over.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn retry_or(&self, reason: StopReason) -> Result<Next> {
        let any = locked(&self.slots).register_all(&self.vm)?;
        Ok(if any { Next::Resume } else { Next::Stop(reason) })
    }

    /// Whether it has interrupt controllers: then a halted guest sleeps in the kernel, and may do so for ever.
    #[must_use]
    pub fn has_interrupts(&self) -> bool {
        self.ioapic.is_some()
    }

    /// The line that leads to `pin`, if there is one.
    pub(crate) fn irq_line(&self, pin: u8) -> Option<IrqLine> {
        self.ioapic.as_ref()?.line(pin)
    }

    /// The way of messages to local APICs, if there are any.
    pub(crate) fn message_line(&self) -> Option<MessageLine> {
        self.ioapic.as_ref().map(SharedIoapic::messages)
    }

    /// The guest has ended an interrupt with this vector, whose line may still be asserted.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn end_interrupt(&self, vector: u8) -> Result<Next> {
        self.ioapic.as_ref().map_or(Ok(()), |ioapic| ioapic.end(vector))?;
        Ok(Next::Resume)
    }

    /// Interrupts the guest once when there is input, where it has interrupts.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub(crate) fn tell_next_arrival(&self) -> Result<()> {
        self.arrivals.as_ref().map_or(Ok(()), |arrivals| locked(arrivals).tell_next())
    }

    /// Opens another way for text out of the guest.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn open_channel(
        &self,
        channel: Channel,
        ring: GuestBuffer,
        vcpu: &mut Vcpu,
    ) -> Result<Answer> {
        let host = Host { vm: &self.vm, console: &self.console, stop: &self.stop };
        locked(&self.channels).open(channel, ring, vcpu, host, &self.memory)
    }

    /// Writes out what console and channels still hold. That nobody reads any more is no error.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub fn flush_console(&self) -> Result<()> {
        locked(&self.channels).drain();
        let mut console = self.console();
        if let Some(failure) = console.take_failure() {
            return Err(Error::Console(failure));
        }
        match console.flush() {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Error::Console(error)),
            _ => Ok(()),
        }
    }

    /// The guest's arguments, each with a NUL behind it.
    #[must_use]
    pub fn arguments(&self) -> &[u8] {
        &self.arguments
    }

    /// Adds a record to the host's log.
    pub fn log(&self, record: &LogRecord) {
        self.log.add(record);
    }

    pub(crate) fn console(&self) -> MutexGuard<'_, Console> {
        locked(&self.console)
    }

    /// The VM itself.
    pub(crate) fn vm(&self) -> &VmFd {
        &self.vm
    }

    /// Its I/O APIC.
    pub(crate) fn ioapic(&self) -> Option<&SharedIoapic> {
        self.ioapic.as_ref()
    }

    /// How many channels the guest has opened.
    pub(crate) fn open_channels(&self) -> usize {
        locked(&self.channels).count()
    }

    /// What becomes of a guest's wish to be kept.
    pub(crate) fn snapshot_calls(&self) -> SnapshotCalls {
        self.snapshots
    }

    /// The vCPU `id` has asked for a snapshot.
    pub(crate) fn asked_for_snapshot(&self, id: VcpuId) {
        locked(&self.askers).push(id);
    }

    /// Those that have, since the machine last went on.
    pub(crate) fn askers(&self) -> MutexGuard<'_, Vec<VcpuId>> {
        locked(&self.askers)
    }

    /// What tells this machine from its copies.
    pub(crate) fn identity(&self) -> MutexGuard<'_, u64> {
        locked(&self.identity)
    }

    /// Nanoseconds by which its monotonic time is ahead of this process's.
    pub(crate) fn clock_offset(&self) -> u64 {
        self.clock_offset.load(Ordering::Relaxed)
    }

    /// Its monotonic time is at least `seen_ns` from now on.
    pub(crate) fn advance_clock(&self, seen_ns: u64) {
        let ahead = seen_ns.saturating_sub(elapsed_ns().unwrap_or_default());
        self.clock_offset.fetch_max(ahead, Ordering::Relaxed);
    }

    /// Puts it among other people and files. Text that waits for the end of its line goes to the new console.
    ///
    /// # Errors
    /// [`Error::Console`], [`Error::GrantedDirectory`].
    pub(crate) fn surround(&mut self, surroundings: Surroundings) -> Result<()> {
        let Surroundings { mut console, input, log, directory, snapshots, timeout } = surroundings;
        *locked(&self.files) = Files::new(directory)?;
        console.belong_to(&self.stop);
        {
            let mut own = self.console();
            console.set_waiting(own.waiting());
            *own = console;
        }
        self.arrivals = arrivals(self.ioapic.as_ref(), &input)?;
        self.input = Mutex::new(input);
        (self.log, self.snapshots, self.time_limit) = (log, snapshots, timeout);
        Ok(())
    }

    /// Whether the guest has ever asked to be told of input.
    pub(crate) fn awaits_input(&self) -> bool {
        self.arrivals.as_ref().is_some_and(|arrivals| locked(arrivals).is_wanted())
    }

    /// What KVM has been told of RAM.
    pub(crate) fn slots(&self) -> MutexGuard<'_, MemorySlots> {
        locked(&self.slots)
    }

    /// Lets code in system-management mode see RAM.
    pub(crate) fn tell_system_management(&self) -> Result<()> {
        self.slots().register_for_system_management(&self.vm)
    }

    /// The input; `None` when another vCPU reads it and the caller will not wait.
    pub(crate) fn input(&self, wait: bool) -> Option<MutexGuard<'_, Input>> {
        if wait {
            return Some(locked(&self.input));
        }
        match self.input.try_lock() {
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Ok(input) => Some(input),
        }
    }

    /// What the guest has said of its own panic.
    pub(crate) fn panic_text(&self) -> MutexGuard<'_, PanicText> {
        locked(&self.panic_text)
    }

    /// What the guest was told, where that is kept.
    pub(crate) fn journal(&self) -> MutexGuard<'_, Journal> {
        locked(&self.journal)
    }

    pub(crate) fn files(&self) -> MutexGuard<'_, Files> {
        locked(&self.files)
    }
}

/// What tells the guest of input, where it has interrupts and input may come later.
fn arrivals(ioapic: Option<&SharedIoapic>, input: &Input) -> Result<Option<Mutex<Arrivals>>> {
    let Some(line) = ioapic.and_then(|ioapic| ioapic.line(CONSOLE_INPUT)) else { return Ok(None) };
    Ok(input.awaited()?.map(|input| Mutex::new(Arrivals::new(input, line))))
}

/// A device whose last user panicked is still a device: what it holds is bytes and numbers.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
