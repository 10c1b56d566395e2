//! Channels: the ways for text out of a guest that a guest opens when it wants them.
//!
//! The contract is `shared-abi/src/channel.rs`. Nothing here exists until the first channel is opened, so a guest that
//! opens none pays nothing.

mod coalesced;
mod ring;

use std::sync::{Arc, Mutex};

use kvm_ioctls::VmFd;
use shared_abi::channel::{Channel, RING_DATA, RING_MAX};
use shared_abi::hypercall::Answer;
use shared_abi::{Gva, HypercallError};

use crate::console::Console;
use crate::error::Result;
use crate::guest_space::{Access, GuestBuffer, GuestSpace};
use crate::stop::StopHandle;
use crate::vcpu::Vcpu;

pub(crate) use coalesced::Coalesced;
use ring::{RingReader, RingThread, Wake};

/// The channels that the guest has opened.
#[derive(Debug, Default)]
pub struct Channels {
    open: Vec<Channel>,
    rings: Vec<RingThread>,
}

/// What channels are made with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Host<'a> {
    pub(crate) vm: &'a VmFd,
    pub(crate) console: &'a Arc<Mutex<Console>>,
    pub(crate) stop: &'a StopHandle,
}

impl Channels {
    /// Opens `channel`.
    ///
    /// # Errors
    /// Only what the host cannot do at all; that its KVM has no such channel is an answer.
    pub(crate) fn open(
        &mut self,
        channel: Channel,
        ring: GuestBuffer,
        vcpu: &mut Vcpu,
        host: Host<'_>,
        memory: &Arc<crate::memory::GuestMemory>,
    ) -> Result<Answer> {
        if self.open.contains(&channel) {
            return Ok(Err(HypercallError::AlreadyExists));
        }
        let opened = match channel {
            Channel::CoalescedPio | Channel::CoalescedMmio => vcpu.coalesce(Coalesced::zone(channel), host),
            Channel::RingDoorbell | Channel::RingPolled => {
                let space = GuestSpace::of(vcpu, memory)?;
                ring_reader(&space, ring, memory, host)
                    .and_then(|reader| RingThread::start(reader, wake(channel), host.vm))
                    .map(|thread| self.rings.push(thread))
            }
        };
        Ok(opened.map(|()| {
            self.open.push(channel);
            0
        }))
    }

    /// How many are open.
    pub(crate) fn count(&self) -> usize {
        self.open.len()
    }

    /// Shows what lies in the rings, when the guest has stopped or asks for input.
    pub(crate) fn drain(&self) {
        self.rings.iter().for_each(RingThread::drain);
    }
}

fn wake(channel: Channel) -> Wake {
    if channel == Channel::RingDoorbell { Wake::Doorbell } else { Wake::Poll }
}

/// Checks a ring that the guest named: one piece of writable RAM, of a size that positions can be cut by.
fn ring_reader(
    space: &GuestSpace<'_>,
    ring: GuestBuffer,
    memory: &Arc<crate::memory::GuestMemory>,
    host: Host<'_>,
) -> std::result::Result<RingReader, HypercallError> {
    if !ring.size.is_power_of_two() || ring.size > RING_MAX || !ring.gva.0.is_multiple_of(8) {
        return Err(HypercallError::BadArgument);
    }
    let all = GuestBuffer { gva: Gva(ring.gva.0), size: RING_DATA + ring.size };
    space.check(all, Access::Write)?;
    let piece = space.pieces(all, Access::Write).next().ok_or(HypercallError::BadArgument)??;
    if piece.size != all.size {
        return Err(HypercallError::BadArgument);
    }
    Ok(RingReader::new(piece.gpa, ring.size, Arc::clone(memory), Arc::clone(host.console), host.stop.clone()))
}
