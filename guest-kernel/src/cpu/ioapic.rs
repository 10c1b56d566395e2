//! The I/O APIC: which line of which device becomes which vector at which CPU.
//!
//! It shows one register at a time, through a window. Its other half, a device of the VMM, is
//! `vmm/src/devices/ioapic/mod.rs`, which draws it.

use shared_abi::interrupts::{IO_APIC, PINS};

use crate::sync::Mutex;

/// Choosing a register and using the window are two accesses that belong together.
static WINDOW: Mutex<Window> = Mutex::new(Window);

/// How a pin asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// When its line is asserted, once.
    Edge,
    /// For as long as its line is asserted.
    Level,
}

/// Bits of the low half of a redirection entry (Intel 82093AA data sheet, 3.2.4).
const MASKED: u32 = 1 << 16;
const LEVEL: u32 = 1 << 15;

/// Has `pin` interrupt the CPU with the APIC id `cpu` by `vector`, from now on.
pub fn route(pin: u8, vector: u8, trigger: Trigger, cpu: u8) {
    let level = if trigger == Trigger::Level { LEVEL } else { 0 };
    let mut window = WINDOW.lock();
    // Masked while it is half written.
    window.write(low_of(pin), MASKED);
    window.write(low_of(pin) + 1, u32::from(cpu) << 24);
    window.write(low_of(pin), level | u32::from(vector));
}

/// Lets nothing through from `pin`, or lets it through again. An edge that comes meanwhile is lost; a level is not.
pub fn set_masked(pin: u8, is_masked: bool) {
    let mut window = WINDOW.lock();
    let low = window.read(low_of(pin)) & !MASKED;
    window.write(low_of(pin), if is_masked { low | MASKED } else { low });
}

/// How many pins it has, by its own account.
#[must_use]
pub fn pin_count() -> u32 {
    const VERSION: u32 = 0x01;
    (WINDOW.lock().read(VERSION) >> 16 & 0xFF) + 1
}

/// The number of the register that is the low half of a pin's entry.
fn low_of(pin: u8) -> u32 {
    assert!(usize::from(pin) < PINS, "the I/O APIC has {PINS} pins, and none is number {pin}");
    0x10 + 2 * u32::from(pin)
}

/// The two registers of the controller in memory.
struct Window;

impl Window {
    fn read(&mut self, register: u32) -> u32 {
        // SAFETY: See `registers`; what is read is a number.
        unsafe {
            let (select, window) = registers();
            select.write_volatile(register);
            window.read_volatile()
        }
    }

    fn write(&mut self, register: u32, value: u32) {
        // SAFETY: See `registers`. What the controller does is to interrupt, through gates that lead to code of ours.
        unsafe {
            let (select, window) = registers();
            select.write_volatile(register);
            window.write_volatile(value);
        }
    }
}

/// IOREGSEL and IOWIN, after their page was mapped.
fn registers() -> (*mut u32, *mut u32) {
    super::needs::interrupts();
    crate::device_memory::map_hole().expect("a frame is free for a page table");
    let at = |offset: u64| (IO_APIC.0 + offset) as *mut u32;
    (at(0x00), at(0x10))
}
