//! Coalesced writes: KVM keeps them in a ring of its own, and the guest goes on without an exit to the VMM.
//!
//! Linux Documentation/virt/kvm/api.rst, 4.116. The ring is one page behind `kvm_run`, shared by the vCPU's threads in
//! kernel and VMM; when it is full, the next write exits like any other. The VMM empties it after every exit, before
//! it answers that exit: so the order of everything the guest did stays as it was.

use std::sync::{Arc, Mutex, PoisonError};

use kvm_bindings::kvm_coalesced_mmio;
use kvm_ioctls::{IoEventAddress, VcpuFd, VmFd};
use shared_abi::channel::Channel;
use shared_abi::{HypercallError, layout, ports};

use crate::console::Console;

/// The coalesced console of a vCPU.
#[derive(Debug)]
pub(crate) struct Coalesced {
    console: Arc<Mutex<Console>>,
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
        vm: &VmFd,
        console: &Arc<Mutex<Console>>,
    ) -> std::result::Result<Self, HypercallError> {
        let registered =
            vcpu.map_coalesced_mmio_ring().and_then(|()| vm.register_coalesced_mmio(address, size));
        match registered {
            Ok(()) => Ok(Self { console: Arc::clone(console) }),
            Err(_) => Err(HypercallError::HostFailed),
        }
    }

    /// Prints what KVM has kept. A console that nobody reads any more is noticed by the next write that exits.
    pub(crate) fn drain(&self, vcpu: &mut VcpuFd) {
        let mut text = Vec::new();
        while let Ok(Some(write)) = vcpu.coalesced_mmio_read() {
            text.extend_from_slice(bytes(&write));
        }
        if !text.is_empty() {
            let _ = self.console.lock().unwrap_or_else(PoisonError::into_inner).write(&text);
        }
    }
}

/// The bytes of one write.
fn bytes(write: &kvm_coalesced_mmio) -> &[u8] {
    write.data.get(..write.len as usize).unwrap_or(&write.data)
}
