//! Interrupt controllers, for guests that ask for them: the local APICs in KVM, the I/O APIC here.
//!
//! KVM could have all of it ("full irqchip", KVM_CREATE_IRQCHIP). Here it has only what must be fast, the local APICs
//! with their timers ("split irqchip": Linux Documentation/virt/kvm/api.rst, KVM_CAP_SPLIT_IRQCHIP). Then closing a VM
//! takes a tenth of a millisecond and not ten, as there is no PIT and no PIC; and the I/O APIC is a device that can be
//! read ([`Ioapic`]).
//!
//! ```text
//!   IrqLine::press          Ioapic, with its lock          KVM
//!   any thread ──────────►  pin ── message? ── eventfd ──► irqfd ── route of the pin ──► local APIC ──► guest
//!                            ▲                  write      KVM_IRQFD   KVM_SET_GSI_ROUTING               │ EOI
//!                            └──────────────── Exit::IoapicEoi, for level-triggered pins ◄───────────────┘
//! ```
//!
//! The pin's number is also the number of its route in KVM (GSI). KVM must know routes of level-triggered pins even though
//! we send: their vectors are those whose end it tells.
//!
//! With a local APIC in KVM, HLT is no exit: a vCPU sleeps in the kernel until an interrupt comes, and a guest that waits
//! for nothing is stopped by its time limit.
//!
//! Guest side: `guest-kernel/src/interrupts.rs`.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use kvm_bindings::{
    KVM_CAP_SPLIT_IRQCHIP, KVM_CAP_X2APIC_API, KVM_IRQ_ROUTING_MSI, KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK,
    KVM_X2APIC_API_USE_32BIT_IDS, KvmIrqRouting, kvm_enable_cap, kvm_irq_routing_entry, kvm_irq_routing_msi,
    kvm_msi,
};
use kvm_ioctls::VmFd;
use shared_abi::interrupts::PINS;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::devices::bus::MmioDevice;
use crate::devices::ioapic::{Ioapic, IoapicState, Message, Messages};
use crate::error::{Error, Result};
use crate::memory::GuestMemory;
use crate::next::Next;

/// Whether a machine has interrupt controllers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interrupts {
    /// If the guest's image asks for them ([`shared_abi::needs`]); a foreign one never does.
    #[default]
    AsNeeded,
    /// It has them.
    On,
    /// It has none: HLT ends the run.
    Off,
}

/// Gives a VM, which has no vCPU yet, local APICs: one for each vCPU that it will have.
///
/// # Errors
/// [`Error::Kvm`]; every KVM since Linux 4.5 can.
pub(crate) fn enable_local_apics(vm: &VmFd) -> Result<()> {
    let split =
        kvm_enable_cap { cap: KVM_CAP_SPLIT_IRQCHIP, args: [PINS as u64, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&split).map_err(Error::kvm("KVM_ENABLE_CAP(KVM_CAP_SPLIT_IRQCHIP)"))?;
    // A message's 8 bits of destination are a number, also for CPUs in x2APIC mode: 255 is no broadcast.
    let flags = u64::from(KVM_X2APIC_API_USE_32BIT_IDS | KVM_X2APIC_API_DISABLE_BROADCAST_QUIRK);
    let x2apic = kvm_enable_cap { cap: KVM_CAP_X2APIC_API, args: [flags, 0, 0, 0], ..Default::default() };
    vm.enable_cap(&x2apic).map_err(Error::kvm("KVM_ENABLE_CAP(KVM_CAP_X2APIC_API)"))
}

/// The I/O APIC of a machine, as its vCPUs and all holders of lines share it.
#[derive(Clone, Debug)]
pub(crate) struct SharedIoapic {
    ioapic: Arc<Mutex<Ioapic>>,
    carrier: Arc<Carrier>,
}

impl SharedIoapic {
    /// The I/O APIC of a VM that has [local APICs](enable_local_apics).
    pub(crate) fn new(vm: Arc<VmFd>, memory: Arc<GuestMemory>) -> Self {
        let carrier = Arc::new(Carrier { vm, _memory: memory });
        let (routes, senders) = ([None; PINS], [const { None }; PINS]);
        let messages = KvmMessages { carrier: Arc::clone(&carrier), routes, senders };
        Self { ioapic: Arc::new(Mutex::new(Ioapic::new(Box::new(messages)))), carrier }
    }

    /// The guest has ended an interrupt of a level-triggered pin.
    pub(crate) fn end(&self, vector: u8) -> Result<()> {
        self.locked().end(vector)
    }

    /// The line that leads to `pin`; `None` where no such pin is.
    pub(crate) fn line(&self, pin: u8) -> Option<IrqLine> {
        IrqLine::of(&self.ioapic, pin)
    }

    /// The way of messages past the pins.
    pub(crate) fn messages(&self) -> MessageLine {
        MessageLine { carrier: Arc::downgrade(&self.carrier) }
    }

    /// What it holds.
    pub(crate) fn state(&self) -> IoapicState {
        self.locked().state().clone()
    }

    /// Lets it hold what another one held.
    pub(crate) fn set_state(&self, state: &IoapicState) -> Result<()> {
        self.locked().set_state(state)
    }

    fn locked(&self) -> MutexGuard<'_, Ioapic> {
        locked(&self.ioapic)
    }
}

/// Bytes of a register; those above are no part of it.
const REGISTER_SIZE: usize = 4;

impl MmioDevice for SharedIoapic {
    fn name(&self) -> &'static str {
        "ioapic"
    }

    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<Next> {
        let register = self.locked().read(offset).to_le_bytes();
        data.fill(0);
        data.iter_mut().zip(register).for_each(|(to, from)| *to = from);
        Ok(Next::Resume)
    }

    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Next> {
        let mut register = [0; REGISTER_SIZE];
        register.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        self.locked().write(offset, u32::from_le_bytes(register))?;
        Ok(Next::Resume)
    }
}

/// An interrupt line into a machine: any thread may hold one, and it may outlive the machine.
///
/// ```no_run
/// use shared_abi::interrupts::BUTTON;
/// use vmm::{KernelSource, Vm, VmConfig};
///
/// let mut vm = Vm::build(VmConfig::new(KernelSource::File("kernel.elf".into())))?;
/// let button = vm.irq_line(BUTTON)?;
/// std::thread::spawn(move || button.press());
/// vm.run()?;
/// # Ok::<(), vmm::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct IrqLine {
    pin: usize,
    ioapic: Weak<Mutex<Ioapic>>,
}

impl IrqLine {
    pub(crate) fn of(ioapic: &Arc<Mutex<Ioapic>>, pin: u8) -> Option<Self> {
        let pin = usize::from(pin);
        (pin < PINS).then(|| Self { pin, ioapic: Arc::downgrade(ioapic) })
    }

    /// Asserts the line and takes that back at once: one interrupt, if the guest has the pin unmasked. Presses that come
    /// faster than the guest takes them become one: a local APIC keeps a bit for each vector.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn press(&self) -> Result<()> {
        self.with(|ioapic, pin| {
            ioapic.set_line(pin, true)?;
            ioapic.set_line(pin, false)
        })
    }

    /// Asserts the line, or takes that back: a level-triggered pin interrupts for as long as it is asserted.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn set(&self, is_asserted: bool) -> Result<()> {
        self.with(|ioapic, pin| ioapic.set_line(pin, is_asserted))
    }

    /// A machine that is no more needs no interrupts.
    fn with(&self, deed: impl FnOnce(&mut Ioapic, usize) -> Result<()>) -> Result<()> {
        self.ioapic.upgrade().map_or(Ok(()), |ioapic| deed(&mut locked(&ioapic), self.pin))
    }
}

/// Interrupts a machine past its I/O APIC, by messages, as PCI devices do (MSI). Any thread may hold one, and it may
/// outlive the machine.
#[derive(Clone, Debug)]
pub struct MessageLine {
    carrier: Weak<Carrier>,
}

impl MessageLine {
    /// Sends `message`. Which CPU gets it, and by which vector, is in there; on a PCI device the guest would have written
    /// it to a register.
    ///
    /// # Errors
    /// [`Error::Kvm`].
    pub fn send(&self, message: Message) -> Result<()> {
        let Some(carrier) = self.carrier.upgrade() else { return Ok(()) };
        let msi = kvm_msi { address_lo: message.address, data: message.data, ..Default::default() };
        carrier.vm.signal_msi(msi).map(drop).map_err(Error::kvm("KVM_SIGNAL_MSI"))
    }
}

/// What carries messages, and what must be there for as long as it is.
#[derive(Debug)]
struct Carrier {
    // Dropped before the memory that it maps: a line may be the last to let go of both.
    vm: Arc<VmFd>,
    _memory: Arc<GuestMemory>,
}

/// Carries the I/O APIC's messages through KVM.
#[derive(Debug)]
struct KvmMessages {
    carrier: Arc<Carrier>,
    routes: [Option<Message>; PINS],
    /// Writing to one has KVM send the pin's route. Each is made when its pin first sends: most never do.
    senders: [Option<EventFd>; PINS],
}

impl Messages for KvmMessages {
    fn route(&mut self, pin: usize, message: Message) -> Result<()> {
        if let Some(route) = self.routes.get_mut(pin) {
            *route = Some(message);
        }
        // KVM takes all routes or none.
        let routes = self.routes.iter().zip(0..).filter_map(|(route, gsi)| Some(entry(gsi, (*route)?)));
        let routes: Vec<_> = routes.collect();
        let table = KvmIrqRouting::from_entries(&routes).expect("24 routes are fewer than a table may have");
        self.carrier.vm.set_gsi_routing(&table).map_err(Error::kvm("KVM_SET_GSI_ROUTING"))
    }

    fn send(&mut self, pin: usize) -> Result<()> {
        let Some(sender) = self.senders.get_mut(pin) else { return Ok(()) };
        let eventfd = |source| Error::Kvm { call: "eventfd", source };
        if sender.is_none() {
            let made = EventFd::new(EFD_NONBLOCK).map_err(eventfd)?;
            self.carrier.vm.register_irqfd(&made, pin as u32).map_err(Error::kvm("KVM_IRQFD"))?;
            *sender = Some(made);
        }
        match sender.as_ref().map_or(Ok(()), |sender| sender.write(1)) {
            // The counter is full, so KVM has yet to look at it: this one is among those.
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(eventfd(error)),
            _ => Ok(()),
        }
    }
}

/// A message as KVM has it. With KVM_X2APIC_API_USE_32BIT_IDS the address's high half holds more bits of the destination;
/// ours has 8.
fn entry(gsi: u32, message: Message) -> kvm_irq_routing_entry {
    let mut entry = kvm_irq_routing_entry { gsi, type_: KVM_IRQ_ROUTING_MSI, ..Default::default() };
    entry.u.msi =
        kvm_irq_routing_msi { address_lo: message.address, data: message.data, ..Default::default() };
    entry
}

/// A controller whose last user panicked is still a controller: what it holds is numbers.
fn locked(ioapic: &Mutex<Ioapic>) -> MutexGuard<'_, Ioapic> {
    ioapic.lock().unwrap_or_else(PoisonError::into_inner)
}
