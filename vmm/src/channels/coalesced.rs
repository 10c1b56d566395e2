//! Coalesced writes: KVM keeps them in a ring of its own, and the guest goes on without an exit to the VMM.
//!
//! Linux Documentation/virt/kvm/api.rst, 4.116. The ring is one page behind `kvm_run`, shared by the vCPU's threads in
//! kernel and VMM; when it is full, the next write exits like any other. The VMM empties it after every exit, before
//! it answers that exit: so the order of everything the guest did stays as it was.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_coalesced_mmio;
use kvm_ioctls::{IoEventAddress, VcpuFd};
use shared_abi::channel::Channel;
use shared_abi::{HypercallError, layout, ports};

use super::Host;
use crate::console::Console;
use crate::next::Next;
use crate::stop::{StopHandle, StopRequest};

/// The coalesced console of a vCPU.
#[derive(Debug)]
pub(crate) struct Coalesced {
    console: Arc<Mutex<Console>>,
    stop: StopHandle,
}

impl Coalesced {
    /// Where the writes of `channel` go: first byte and size.
    pub(crate) fn zone(channel: Channel) -> (IoEventAddress, u32) {
        match channel {
            Channel::CoalescedPio => (IoEventAddress::Pio(ports::CONSOLE_COALESCED.into()), 1),
            _ => (IoEventAddress::Mmio(layout::CONSOLE_COALESCED_MMIO.0), 8),
        }
    }

    /// Lets KVM keep the writes to `zone`.
    pub(crate) fn register(
        (address, size): (IoEventAddress, u32),
        vcpu: &mut VcpuFd,
        host: Host<'_>,
    ) -> std::result::Result<Self, HypercallError> {
        let registered =
            vcpu.map_coalesced_mmio_ring().and_then(|()| host.vm.register_coalesced_mmio(address, size));
        match registered {
            Ok(()) => Ok(Self { console: Arc::clone(host.console), stop: host.stop.clone() }),
            Err(_) => Err(HypercallError::HostFailed),
        }
    }

    /// Prints what KVM has kept. The guest has gone on long since, so a failure stops the machine from outside.
    pub(crate) fn drain(&self, vcpu: &mut VcpuFd) {
        let mut text = Vec::new();
        while let Ok(Some(write)) = vcpu.coalesced_mmio_read() {
            text.extend_from_slice(bytes(&write));
        }
        if text.is_empty() {
            return;
        }
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match console.write(&text) {
            Ok(Next::Resume | Next::Stand) => return,
            Ok(Next::Stop(_)) => None,
            Err(error) => error.into_console_failure(),
        };
        failure.into_iter().for_each(|failure| console.remember(failure));
        self.stop.stop(StopRequest::ConsoleClosed);
    }
}

/// The bytes of one write.
fn bytes(write: &kvm_coalesced_mmio) -> &[u8] {
    write.data.get(..write.len as usize).unwrap_or(&write.data)
}
