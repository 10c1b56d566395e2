//! Interrupts: what breaks in from outside, and who handles it.
//!
//! A device asserts a line of the I/O APIC; that makes a message of it, with a vector, and the local APIC of a CPU
//! interrupts that CPU through the gate of that vector. [`vectors`] is the map of them. From the gate on, an
//! interrupt looks like an [exception](crate::exceptions), and its handler gets the same [`Frame`].
//!
//! ```no_run,ignore-none
//! use core::sync::atomic::{AtomicU64, Ordering};
//! use guest_kernel::interrupts::{self, BUTTON, Trigger};
//!
//! static PRESSES: AtomicU64 = AtomicU64::new(0);
//!
//! interrupts::on_pin(BUTTON, Trigger::Edge, |_| {
//!     PRESSES.fetch_add(1, Ordering::Relaxed);
//! });
//! while PRESSES.load(Ordering::Relaxed) == 0 {
//!     interrupts::wait();
//! }
//! ```
//!
//! Handlers run on the stack that was interrupted, with interrupts off. A [`Mutex`](crate::sync::Mutex) holds interrupts
//! off, so they may take one. The interrupt is ended at the local APIC before its handler runs, except one of a
//! level-triggered pin: the handler must quiet the device first.
//!
//! A machine has interrupt controllers only if its guest needs them, and it does as soon as it is linked with a function
//! of this module that starts them ([`shared_abi::needs`]). Host side: `vmm/src/interrupts.rs`.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};

use shared_abi::exception::VECTORS;
use shared_abi::hypercall::LogLevel;
pub use shared_abi::interrupts::{BUTTON, CONSOLE_INPUT, PINS, TICK};

pub use crate::cpu::ioapic::{Trigger, set_masked};
use crate::cpu::{apic, flags, halt, ioapic, vectors};
use crate::exceptions::{self, Frame};
use crate::hypercall;

/// What is done about an interrupt.
pub type Handler = fn(&mut Frame);

/// How many vectors are no exceptions.
const COUNT: usize = vectors::COUNT - VECTORS;

/// The handlers, from vector 0x20 on; null where there is none.
static HANDLERS: [AtomicPtr<()>; COUNT] = [const { AtomicPtr::new(core::ptr::null_mut()) }; COUNT];
/// The pins whose interrupts end when their handler has returned: a bit each.
static LEVEL_TRIGGERED: AtomicU32 = AtomicU32::new(0);
/// Vectors without a handler that were told of: a bit each.
static TOLD: [AtomicU32; vectors::COUNT / 32] = [const { AtomicU32::new(0) }; vectors::COUNT / 32];

/// How many interrupts nobody had a handler for.
static UNEXPECTED: AtomicU64 = AtomicU64::new(0);
/// How many were gone when the CPU asked for their vector.
static SPURIOUS: AtomicU64 = AtomicU64::new(0);
/// How many errors local APICs have told of.
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// Turns the controller of this CPU on, if none is, and lets interrupts through.
///
/// # Panics
/// In a machine without interrupt controllers: one that was started with `--interrupts off`.
pub fn enable() {
    start();
    flags::restore_interrupts(flags::Interrupts::Enabled);
}

/// The same the first time; later it leaves interrupts as they are: somebody may have reason to hold them off.
pub(crate) fn start() {
    if !is_enabled() {
        exceptions::INTERRUPTS.set(dispatch);
        apic::enable();
        flags::restore_interrupts(flags::Interrupts::Enabled);
    }
}

/// Whether the controllers are on.
#[inline]
#[must_use]
pub fn is_enabled() -> bool {
    apic::mode().is_some()
}

/// Has `handler` called for every interrupt of this vector, instead of the one before.
///
/// # Panics
/// For the vector of an exception: those are [`exceptions::on`]'s.
pub fn on(vector: u8, handler: Handler) {
    let place = usize::from(vector).checked_sub(VECTORS);
    let own = place.and_then(|place| HANDLERS.get(place));
    let own = own.unwrap_or_else(|| panic!("vector {vector} belongs to an exception"));
    own.store(handler as *mut (), Ordering::Release);
    exceptions::INTERRUPTS.set(dispatch);
}

/// Has `handler` called on this CPU when the line of `pin` asks. The first time this lets interrupts through.
///
/// # Panics
/// As [`enable`], and when there is no such pin.
pub fn on_pin(pin: u8, trigger: Trigger, handler: Handler) {
    let vector = vectors::of_pin(pin);
    on(vector, handler);
    match trigger {
        Trigger::Edge => LEVEL_TRIGGERED.fetch_and(!(1 << pin), Ordering::Relaxed),
        Trigger::Level => LEVEL_TRIGGERED.fetch_or(1 << pin, Ordering::Relaxed),
    };
    start();
    ioapic::route(pin, vector, trigger, apic::id() as u8);
}

/// Waits for an interrupt: the CPU halts, and goes on behind the handler. One that comes between the caller's last look and
/// this is *not* waited for, if the caller looked with interrupts off; see [`wait_while`].
pub fn wait() {
    enable();
    halt::wait_for_interrupt();
}

/// Waits until `condition` no longer holds, which an interrupt handler brings about. Looks with interrupts off, and halts
/// in the instruction behind the one that turns them on: so none comes in between and is missed.
pub fn wait_while(mut condition: impl FnMut() -> bool) {
    enable();
    loop {
        let before = flags::disable_interrupts();
        if !condition() {
            return flags::restore_interrupts(before);
        }
        halt::wait_for_interrupt();
    }
}

/// How many interrupts came for vectors that nobody had a handler for.
#[must_use]
pub fn unexpected() -> u64 {
    UNEXPECTED.load(Ordering::Relaxed)
}

/// How many interrupts were spurious: gone when the CPU asked for their vector (Intel SDM vol. 3A, 12.9).
#[must_use]
pub fn spurious() -> u64 {
    SPURIOUS.load(Ordering::Relaxed)
}

/// How many times local APICs have told of errors, such as a vector below 16.
#[must_use]
pub fn errors() -> u64 {
    ERRORS.load(Ordering::Relaxed)
}

/// What the entries lead to, through [`exceptions`](crate::exceptions), when the vector is no exception's.
pub(crate) fn dispatch(frame: &mut Frame) {
    let vector = frame.vector as u8;
    match vector {
        vectors::SPURIOUS => {
            SPURIOUS.fetch_add(1, Ordering::Relaxed);
            // Nothing is being served, and so nothing ends; unless somebody has sent this vector as an interrupt.
            if apic::serves_spurious() {
                apic::end_of_interrupt();
            }
            return;
        }
        vectors::ERROR => {
            ERRORS.fetch_add(1, Ordering::Relaxed);
        }
        _ => {}
    }
    let ends_late = is_level_triggered(vector);
    if !ends_late {
        apic::end_of_interrupt();
    }
    match handler_of(vector) {
        Some(handler) => handler(frame),
        None if vector == vectors::ERROR => {}
        None => tell_unexpected(vector),
    }
    if ends_late {
        apic::end_of_interrupt();
    }
}

fn is_level_triggered(vector: u8) -> bool {
    let pin = vector.wrapping_sub(vectors::PIN_0);
    usize::from(pin) < PINS && LEVEL_TRIGGERED.load(Ordering::Relaxed) >> pin & 1 != 0
}

fn handler_of(vector: u8) -> Option<Handler> {
    let handler = HANDLERS.get(usize::from(vector) - VECTORS)?.load(Ordering::Acquire);
    // SAFETY: Null, which is `None` (core::option, "Representation"), or what `on` has stored: a `Handler`.
    unsafe { core::mem::transmute::<*mut (), Option<Handler>>(handler) }
}

/// Counts it, and tells the host's log the first time: a device that nobody listens to may go on and on.
fn tell_unexpected(vector: u8) {
    UNEXPECTED.fetch_add(1, Ordering::Relaxed);
    let (word, bit) = (usize::from(vector / 32), 1 << (vector % 32));
    let was_told = TOLD.get(word).is_some_and(|told| told.fetch_or(bit, Ordering::Relaxed) & bit != 0);
    if !was_told && hypercall::is_offered() {
        let mut text = *b"nobody handles interrupts of vector 0x00";
        let [.., high, low] = &mut text;
        let digit = |value: u8| b"0123456789abcdef"[usize::from(value & 0xF)];
        (*high, *low) = (digit(vector >> 4), digit(vector));
        let text = core::str::from_utf8(&text).expect("digits are ASCII");
        let _ = hypercall::log(LogLevel::Warn, "interrupts", text);
    }
}
