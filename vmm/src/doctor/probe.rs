//! `KvmFacts`: what KVM answers when it is asked, each question after the one before it went well.

use kvm_ioctls::{Cap, Kvm};

use super::guest::{self, GuestFacts};
use crate::vm::KVM_API_VERSION;

/// What KVM answered. `None` is a question that was not asked, because an answer before it was bad.
#[derive(Clone, Debug)]
pub(super) struct KvmFacts {
    /// What opening /dev/kvm for reading and writing gave; an errno if it failed.
    pub(super) opened: Result<(), i32>,
    /// What KVM_GET_API_VERSION gave; negative if the call failed.
    pub(super) api_version: Option<i32>,
    /// Those of [`CAPABILITIES`] that KVM_CHECK_EXTENSION denied.
    pub(super) missing: Option<Vec<&'static Capability>>,
    /// What KVM_CREATE_VM gave; an errno if it failed.
    pub(super) vm_created: Option<Result<(), i32>>,
    /// How the smallest guest fared.
    pub(super) guest: Option<GuestFacts>,
}

/// A capability of KVM (Linux Documentation/virt/kvm/api.rst, 4.4).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Capability {
    pub(super) number: Cap,
    pub(super) name: &'static str,
    pub(super) need: Need,
}

/// How much depends on a capability.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Need {
    /// The VMM calls it for every guest.
    Required,
    /// Guests run without it.
    Optional,
}

/// What the VMM asks of KVM.
pub(super) const CAPABILITIES: [Capability; 7] = {
    use Need::{Optional, Required};
    const fn capability(number: Cap, name: &'static str, need: Need) -> Capability {
        Capability { number, name, need }
    }
    [
        // Guest RAM is the VMM's own memory: KVM_SET_USER_MEMORY_REGION.
        capability(Cap::UserMemory, "KVM_CAP_USER_MEMORY", Required),
        // The guest sees a CPU with features: KVM_SET_CPUID2.
        capability(Cap::ExtCpuid, "KVM_CAP_EXT_CPUID", Required),
        // A guest can be stopped at any moment: `kvm_run.immediate_exit`.
        capability(Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT", Required),
        // Registers come along with an exit, without ioctls.
        capability(Cap::SyncRegs, "KVM_CAP_SYNC_REGS", Optional),
        // Writes to a port wait for each other and cost one exit together.
        capability(Cap::CoalescedPio, "KVM_CAP_COALESCED_PIO", Optional),
        // A write wakes another thread and the guest goes on.
        capability(Cap::Ioeventfd, "KVM_CAP_IOEVENTFD", Optional),
        // Interrupt controllers inside KVM.
        capability(Cap::Irqchip, "KVM_CAP_IRQCHIP", Optional),
    ]
};

impl KvmFacts {
    /// Asks this host's KVM, as far as it answers.
    pub(super) fn probe() -> Self {
        match Kvm::new() {
            Ok(kvm) => {
                let mut facts = Self::after_opening(Ok(()));
                facts.ask(&kvm);
                facts
            }
            Err(error) => Self::after_opening(Err(error.errno())),
        }
    }

    /// The facts when opening the device gave `opened` and nothing was asked yet.
    pub(super) fn after_opening(opened: Result<(), i32>) -> Self {
        Self { opened, api_version: None, missing: None, vm_created: None, guest: None }
    }

    fn ask(&mut self, kvm: &Kvm) {
        let version = kvm.get_api_version();
        self.api_version = Some(version);
        if version != KVM_API_VERSION {
            return;
        }
        self.missing =
            Some(CAPABILITIES.iter().filter(|capability| !kvm.check_extension(capability.number)).collect());
        let created = kvm.create_vm().map(drop).map_err(|error| error.errno());
        self.vm_created = Some(created);
        if created.is_ok() {
            self.guest = Some(guest::run());
        }
    }
}
