//! Other ways for text out of a guest: MMIO, coalesced writes, rings.
//!
//! What they are and what they cost stands in `shared-abi/src/channel.rs`; `cargo xtask lab console` compares them.
//! Host side: `vmm/src/channels/mod.rs`.

use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU64, Ordering};

use shared_abi::channel::{Channel, RING_DATA, Ring};
use shared_abi::{Gpa, Gva, layout, ports};

use crate::cpu::port;
use crate::device_memory;
use crate::hypercall::{self, Hypercall, HypercallError};

/// A console that is a device in memory.
#[derive(Clone, Copy, Debug)]
pub struct MmioConsole {
    register: *mut u64,
}

impl MmioConsole {
    /// The console whose every write is an exit.
    ///
    /// # Errors
    /// When its page cannot be mapped.
    pub fn open() -> Result<Self, HypercallError> {
        Self::at(layout::CONSOLE_MMIO)
    }

    /// The console whose writes KVM keeps until the next exit.
    ///
    /// # Errors
    /// When it cannot be mapped, is open already, or this host's KVM has no such thing.
    pub fn open_coalesced() -> Result<Self, HypercallError> {
        open(Channel::CoalescedMmio, Gva(0), 0)?;
        Self::at(layout::CONSOLE_COALESCED_MMIO)
    }

    fn at(gpa: Gpa) -> Result<Self, HypercallError> {
        device_memory::map_hole().map_err(|_| HypercallError::BadAddress)?;
        Ok(Self { register: gpa.0 as *mut u64 })
    }

    /// Writes `text`, eight bytes at a time and the rest one by one.
    pub fn write(self, text: &[u8]) {
        let words = text.chunks_exact(8);
        let rest = words.remainder();
        for word in words {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            // SAFETY: `at` has mapped the page, and the device takes writes of up to 8 bytes anywhere in it.
            unsafe { self.register.write_volatile(word) };
        }
        for &byte in rest {
            // SAFETY: As above.
            unsafe { self.register.cast::<u8>().write_volatile(byte) };
        }
    }
}

/// A console port whose bytes KVM keeps until the next exit.
#[derive(Clone, Copy, Debug)]
pub struct CoalescedPort(());

impl CoalescedPort {
    /// Opens it.
    ///
    /// # Errors
    /// When it is open already, or this host's KVM has no such thing.
    pub fn open() -> Result<Self, HypercallError> {
        open(Channel::CoalescedPio, Gva(0), 0).map(|()| Self(()))
    }

    /// Writes `text`, byte by byte.
    pub fn write(self, text: &[u8]) {
        for &byte in text {
            port::outb(ports::CONSOLE_COALESCED, byte);
        }
    }
}

/// Memory for a ring of `SIZE` bytes of data: a power of two.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct RingMemory<const SIZE: usize> {
    written: AtomicU64,
    read: AtomicU64,
    padding: [u8; RING_DATA as usize - size_of::<Ring>()],
    data: UnsafeCell<[u8; SIZE]>,
}

// SAFETY: The data is written by the one `RingWriter` there can be (the host opens a ring once), and only where the
// positions say that the host does not read.
unsafe impl<const SIZE: usize> Sync for RingMemory<SIZE> {}

impl<const SIZE: usize> RingMemory<SIZE> {
    /// An empty ring.
    #[must_use]
    pub const fn new() -> Self {
        const { assert!(SIZE.is_power_of_two()) };
        Self {
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            padding: [0; _],
            data: UnsafeCell::new([0; SIZE]),
        }
    }
}

impl<const SIZE: usize> Default for RingMemory<SIZE> {
    fn default() -> Self {
        Self::new()
    }
}

/// The writing end of a ring that a host thread reads.
#[derive(Debug)]
pub struct RingWriter<const SIZE: usize> {
    memory: &'static RingMemory<SIZE>,
    has_doorbell: bool,
}

impl<const SIZE: usize> RingWriter<SIZE> {
    /// A ring whose reader is woken by a doorbell.
    ///
    /// # Errors
    /// When such a ring is open already, or this host's KVM has no such thing.
    pub fn open_with_doorbell(memory: &'static RingMemory<SIZE>) -> Result<Self, HypercallError> {
        Self::open(memory, Channel::RingDoorbell)
    }

    /// A ring whose reader looks all the time.
    ///
    /// # Errors
    /// When such a ring is open already.
    pub fn open_polled(memory: &'static RingMemory<SIZE>) -> Result<Self, HypercallError> {
        Self::open(memory, Channel::RingPolled)
    }

    fn open(memory: &'static RingMemory<SIZE>, channel: Channel) -> Result<Self, HypercallError> {
        open(channel, Gva(&raw const *memory as u64), SIZE as u64)?;
        Ok(Self { memory, has_doorbell: channel == Channel::RingDoorbell })
    }

    /// Writes `text`; waits while the ring is full.
    pub fn write(&mut self, mut text: &[u8]) {
        while !text.is_empty() {
            let (now, later) = text.split_at(text.len().min(self.contiguous_room()));
            self.put(now);
            self.ring();
            text = later;
        }
    }

    /// Waits until the host has read everything.
    pub fn flush(&self) {
        while self.memory.read.load(Ordering::Acquire) != self.memory.written.load(Ordering::Relaxed) {
            core::hint::spin_loop();
        }
    }

    /// How many bytes can be written at once: to the host's position, and to the end of the data.
    fn contiguous_room(&self) -> usize {
        let written = self.memory.written.load(Ordering::Relaxed);
        let waiting = written.wrapping_sub(self.memory.read.load(Ordering::Acquire)) as usize;
        SIZE.saturating_sub(waiting).min(SIZE - (written as usize & (SIZE - 1)))
    }

    /// Puts `bytes`, which fit into the contiguous room.
    fn put(&mut self, bytes: &[u8]) {
        let written = self.memory.written.load(Ordering::Relaxed);
        let start = self.memory.data.get().cast::<u8>();
        // SAFETY: The room from this position on is at least as long as `bytes`, so the copy stays inside the data; the
        // host reads none of it before the position below is stored, and `&mut self` is the only writer.
        unsafe {
            let to = start.add(written as usize & (SIZE - 1));
            to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
        }
        // After the bytes: a host that sees the position sees them.
        self.memory.written.store(written + bytes.len() as u64, Ordering::Release);
    }

    fn ring(&self) {
        if self.has_doorbell {
            port::outb(ports::CONSOLE_DOORBELL, 0);
        }
    }
}

fn open(channel: Channel, ring_gva: Gva, ring_size: u64) -> Result<(), HypercallError> {
    hypercall::call(Hypercall::OpenChannel { channel, ring_gva, ring_size }).map(drop)
}
