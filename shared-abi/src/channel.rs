//! Channels: the ways for text out of a guest that need more than an exit a byte or a call a line.
//!
//! | way | what the guest does | exits to the VMM |
//! |---|---|---|
//! | port 0xE9, [`ports::DEBUG_CONSOLE`] | `outb` | one a byte |
//! | [`layout::CONSOLE_MMIO`] | writes 1 to 8 bytes to the address | one a write |
//! | [`Channel::CoalescedPio`] | `outb` to [`ports::CONSOLE_COALESCED`] | one when KVM's page of kept writes is full: 170 writes |
//! | [`Channel::CoalescedMmio`] | writes to [`layout::CONSOLE_COALESCED_MMIO`] | as above; a write carries up to 8 bytes |
//! | [`Channel::RingDoorbell`] | writes into a [`Ring`], then to [`ports::CONSOLE_DOORBELL`] | none: KVM wakes a host thread |
//! | [`Channel::RingPolled`] | writes into a [`Ring`] | none: a host thread looks all the time |
//!
//! Port and MMIO are always there; the others are opened by [`Hypercall::OpenChannel`]. Coalesced writes and rings are
//! shown at the next exit at the latest, so no text is lost when a guest stops.
//!
//! A channel is one CPU's, or is used behind a lock. The coalesced ones are shown at the next exit of the CPU that has
//! opened them, whoever writes; a ring has one writer. [`Hypercall::ConsoleWrite`] is everybody's at any time.
//!
//! Host side: `vmm/src/channels/mod.rs`. Guest side: `guest-kernel/src/channel.rs`.
//!
//! [`ports::DEBUG_CONSOLE`]: crate::ports::DEBUG_CONSOLE
//! [`ports::CONSOLE_COALESCED`]: crate::ports::CONSOLE_COALESCED
//! [`ports::CONSOLE_DOORBELL`]: crate::ports::CONSOLE_DOORBELL
//! [`layout::CONSOLE_MMIO`]: crate::layout::CONSOLE_MMIO
//! [`layout::CONSOLE_COALESCED_MMIO`]: crate::layout::CONSOLE_COALESCED_MMIO
//! [`Hypercall::OpenChannel`]: crate::Hypercall::OpenChannel
//! [`Hypercall::ConsoleWrite`]: crate::Hypercall::ConsoleWrite

use crate::define::{shared_enum, shared_struct};

shared_enum! {
    /// A channel that is opened before it is used.
    pub enum Channel {
        /// Port writes that KVM keeps until the next exit.
        CoalescedPio = 1,
        /// MMIO writes that KVM keeps until the next exit.
        CoalescedMmio = 2,
        /// A ring, and a doorbell that wakes a host thread.
        RingDoorbell = 3,
        /// A ring that a host thread watches all the time.
        RingPolled = 4,
    }
}

shared_struct! {
    /// The head of a ring of bytes; its data follows at [`RING_DATA`].
    ///
    /// Both positions count bytes from the start and never go back. The byte at position `p` lies at `p` modulo the
    /// size of the data. The guest writes at `written`, as long as `written - read` stays within that size; the host
    /// reads at `read`. Each side stores its position after the bytes it speaks of.
    pub struct Ring {
        /// Bytes written so far. Stored by the guest.
        pub written: u64,
        /// Bytes read so far. Stored by the host.
        pub read: u64,
    }
}

/// Where a ring's data starts, in bytes from its head: on a cache line of its own.
pub const RING_DATA: u64 = 64;
/// The largest data of a ring, in bytes; every size is a power of two.
pub const RING_MAX: u64 = 1 << 20;
