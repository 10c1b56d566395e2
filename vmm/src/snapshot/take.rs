//! Taking a snapshot: the machine stands, and is written down.

use kvm_bindings::kvm_sregs;
use kvm_ioctls::Cap;

use super::Snapshot;
use super::state::{State, VcpuState};
use crate::error::Result;
use crate::exit::Exit;
use crate::frozen::FrozenRam;
use crate::hypercall::elapsed_ns;
use crate::machine::Machine;
use crate::next::Next;
use crate::vcpu::Vcpu;
use crate::vm::{Vm, open_kvm};

/// Why a machine cannot be kept as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Uncapturable {
    /// They are open in the host's kernel, with positions.
    #[error("the guest has {0} files or directories of the host open; it must close them first")]
    OpenFiles(usize),
    /// Their ends are rings and threads of the host's.
    #[error("the guest has opened {0} channels to the console, which end in rings and threads of the host's")]
    OpenChannels(usize),
    /// KVM holds more of such a CPU than this VMM reads.
    #[error(
        "the guest has enabled virtualization of its own ({0}), and what KVM keeps of inner guests is not read"
    )]
    InnerGuests(&'static str),
    /// The rest of the access would end the run.
    #[error("the guest is in the middle of an access that nothing answers")]
    Unfinished,
    /// AMX and what may come after it.
    #[error(
        "this host's KVM keeps {0} bytes of floating-point registers of a CPU, and a snapshot has room for 4096"
    )]
    LargeRegisters(i32),
}

impl Vm {
    /// Keeps the machine as it is now. It can go on at once, and go back to this moment as often as wanted; and so can
    /// any number of new machines.
    ///
    /// From now on its RAM is a private mapping of the snapshot's: what it writes to is copied first. What `--thp` asked
    /// for is over with that.
    ///
    /// # Errors
    /// [`Error::NoSnapshot`](crate::Error::NoSnapshot), or what the host could not do.
    pub fn snapshot(&mut self) -> Result<Snapshot> {
        let kvm = open_kvm()?;
        self.check_capturable()?;
        let size = self.machine.vm().check_extension_int(Cap::Xsave2);
        if size > XSAVE_SIZE {
            return Err(Uncapturable::LargeRegisters(size).into());
        }
        self.finish_exits()?;
        let has_apic = self.machine.has_interrupts();
        let life = |vcpu: &Vcpu| self.machine.crew.as_ref().map(|crew| crew.life(vcpu)).transpose();
        let vcpus = self.vcpus().map(|vcpu| VcpuState::of(vcpu, &kvm, has_apic, life(vcpu)?));
        let vcpus = vcpus.collect::<Result<Vec<_>>>()?;
        for vcpu in &vcpus {
            check_inner_guests(vcpu)?;
        }
        let machine = &self.machine;
        let state = State {
            vcpus,
            stopped: self.stopped,
            asked_by: machine.askers().clone(),
            clock: machine.vm().get_clock().ok(),
            monotonic_ns: elapsed_ns().unwrap_or_default().saturating_add(machine.clock_offset()),
            told: machine.slots().chunks(),
            ioapic: machine.ioapic().map(|ioapic| ioapic.state()),
            console: machine.console().waiting().to_vec(),
            awaits_input: machine.awaits_input(),
            panic_text: machine.panic_text().clone(),
            arguments: machine.arguments().to_vec(),
        };
        let ram = FrozenRam::copy(&machine.memory)?;
        machine.memory.become_frozen(&ram)?;
        Ok(Snapshot::new(ram, state, self.lineage.clone()))
    }

    fn check_capturable(&self) -> std::result::Result<(), Uncapturable> {
        match self.machine.files().open_count() {
            0 => self.check_no_channels(),
            count => Err(Uncapturable::OpenFiles(count)),
        }
    }

    pub(super) fn check_no_channels(&self) -> std::result::Result<(), Uncapturable> {
        match self.machine.open_channels() {
            0 => Ok(()),
            count => Err(Uncapturable::OpenChannels(count)),
        }
    }

    /// Has KVM finish what the last exit of each vCPU has begun (Linux Documentation/virt/kvm/api.rst, 5: "userspace must
    /// re-enter the kernel with KVM_RUN" after port and memory accesses).
    pub(super) fn finish_exits(&mut self) -> Result<()> {
        let Self { vcpu, others, machine, .. } = self;
        std::iter::once(vcpu).chain(others).try_for_each(|vcpu| finish_exit(vcpu, machine))
    }
}

/// Bytes of `kvm_xsave`.
const XSAVE_SIZE: i32 = 4096;

/// An access that crosses pages exits once for each part of it, and none has more than these.
const MAX_PARTS: usize = 64;

fn finish_exit(vcpu: &mut Vcpu, machine: &Machine) -> Result<()> {
    if vcpu.crossing().is_none() {
        return Ok(());
    }
    for _ in 0..MAX_PARTS {
        let next = match vcpu.finish_exit() {
            Exit::Interrupted => {
                vcpu.clear_interruption();
                return Ok(());
            }
            Exit::PioIn { port, size, data } => machine.pio.read(port, size, data)?,
            Exit::PioOut { port, size, data } => machine.pio.write(port, size, data)?,
            Exit::MmioRead { gpa, data } => machine.read_mmio(gpa, data)?,
            Exit::MmioWrite { gpa, data } => machine.write_mmio(gpa, data)?,
            _ => break,
        };
        if next != Next::Resume {
            break;
        }
    }
    vcpu.clear_interruption();
    Err(Uncapturable::Unfinished.into())
}

/// Refuses CPUs that may hold a guest of their own: KVM_GET_NESTED_STATE has what is missing.
fn check_inner_guests(vcpu: &VcpuState) -> std::result::Result<(), Uncapturable> {
    can_have_inner_guests(&vcpu.sregs).map_or(Ok(()), |by| Err(Uncapturable::InnerGuests(by)))
}

/// The bit by which a CPU may enter guests of its own, if it may.
pub(crate) fn can_have_inner_guests(special: &kvm_sregs) -> Option<&'static str> {
    const EFER_SVME: u64 = 1 << 12;
    const CR4_VMXE: u64 = 1 << 13;
    if special.efer & EFER_SVME != 0 {
        return Some("EFER.SVME");
    }
    (special.cr4 & CR4_VMXE != 0).then_some("CR4.VMXE")
}
