//! SVM: AMD's hardware virtualization, so that this kernel can be a hypervisor itself.
//!
//! What the VMM asks of KVM and KVM of the CPU is here in its smallest form, one level down. The names of the steps are the
//! host's (`vmm/src/vcpu.rs`, `vmm/src/exit.rs`):
//!
//! | step | host | here |
//! |---|---|---|
//! | may I? | `/dev/kvm` | CPUID 80000001h:ECX bit 2, `VM_CR.SVMDIS` |
//! | make ready | KVM_CREATE_VM | `EFER.SVME`, `VM_HSAVE_PA` ([`Hypervisor::start`]) |
//! | a virtual CPU | KVM_CREATE_VCPU, KVM_SET_SREGS | a page of memory: the VMCB ([`vmcb`]) |
//! | which port leaves | ports that nothing in KVM answers | a bitmap of ports |
//! | enter | KVM_RUN | `vmrun` ([`run`]) |
//! | why did it leave? | `kvm_run` | `EXITCODE`, `EXITINFO1`, `EXITINFO2` in the VMCB ([`Exit`]) |
//!
//! AMD64 Architecture Programmer's Manual vol. 2, chapter 15 and appendix B. Intel's VMX does the same by other
//! means: [`vmx`](super::vmx).

pub mod run;
pub mod vmcb;

use core::sync::atomic::{AtomicBool, Ordering};

use vmcb::{Intercepts, Vmcb};

use super::inner::{self, Exit, Maker, Pages, Registers};
use super::{cpuid, cr3, msr};

/// CPUID 80000001h:ECX bit 2: the CPU has SVM.
const SVM: u32 = 1 << 2;
/// EFER, and SVME in it: `vmrun` is an instruction (vol. 2, 3.1.7).
const EFER: u32 = 0xC000_0080;
const SVME: u64 = 1 << 12;
/// VM_CR, and SVMDIS in it: firmware has turned SVM off (15.30.1).
const VM_CR: u32 = 0xC001_0114;
const SVMDIS: u64 = 1 << 4;
/// VM_HSAVE_PA: where `vmrun` keeps the hypervisor's state (15.30.4).
const VM_HSAVE_PA: u32 = 0xC001_0117;

static VMCB: Pages<1> = Pages::filled(0);
static HOST_SAVE: Pages<1> = Pages::filled(0);
/// A bit for each port, 1 = the guest leaves; of 65536 and three more, so of three pages (15.10.1). All of them leave: the
/// machine's ports are the hypervisor's.
static PORT_MAP: Pages<3> = Pages::filled(0xFF);
/// The inner guest's stack.
static INNER_STACK: Pages<1> = Pages::filled(0);

/// A kernel that runs a guest.
#[derive(Debug)]
pub struct Hypervisor {
    vmcb: *mut Vmcb,
    /// The registers that `vmrun` does not switch.
    registers: Registers,
}

/// EXITCODEs (appendix C).
mod exit_code {
    pub(super) const HLT: u64 = 0x78;
    pub(super) const IOIO: u64 = 0x7B;
    pub(super) const VMMCALL: u64 = 0x81;
    /// The CPU found the VMCB wrong, and ran nothing.
    pub(super) const INVALID: u64 = u64::MAX;
}

/// Whether the CPU offers this kernel SVM; if not, why.
///
/// # Errors
/// The reason, as a clause.
pub fn offered() -> Result<(), &'static str> {
    if cpuid::leaf(0x8000_0000).eax < 0x8000_0001 || cpuid::leaf(0x8000_0001).ecx & SVM == 0 {
        return Err("CPUID 80000001h:ECX bit 2 is 0; kvm_amd with nested=1 sets it");
    }
    if msr::read(VM_CR) & SVMDIS != 0 {
        return Err("VM_CR.SVMDIS is 1: firmware has turned it off");
    }
    Ok(())
}

impl Hypervisor {
    /// Makes this CPU ready to run a guest, and the guest ready to run: once, as there is one VMCB.
    ///
    /// # Errors
    /// Why there is none, as a clause.
    pub fn start() -> Result<Self, &'static str> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        offered()?;
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err("there is one VMCB, and it is in use");
        }
        // SAFETY: SVME makes instructions valid that were not. The page of VM_HSAVE_PA is the CPU's from now on, and nothing
        // else uses it.
        unsafe {
            msr::write(EFER, msr::read(EFER) | SVME);
            msr::write(VM_HSAVE_PA, HOST_SAVE.gpa());
        }
        let vmcb = VMCB.gpa() as *mut Vmcb;
        // SAFETY: The page is as large as a VMCB and aligned for it, and this hypervisor, the only one, is its owner.
        unsafe { vmcb.write(Self::inner_guest()) };
        Ok(Self { vmcb, registers: Registers::default() })
    }

    /// The inner guest before its first instruction: in 64-bit mode, with the page tables of this kernel.
    fn inner_guest() -> Vmcb {
        let mut vmcb = Vmcb::zeroed();
        vmcb.control.intercepts = Intercepts::PORTS | Intercepts::HLT | Intercepts::SHUTDOWN;
        vmcb.control.intercepts_svm = Intercepts::VMRUN | Intercepts::VMMCALL;
        vmcb.control.port_map_gpa = PORT_MAP.gpa();
        vmcb.control.asid = 1;
        vmcb.save.enter_64_bit_mode(inner::entry(Maker::Amd), INNER_STACK.gpa() + 4096);
        vmcb.save.efer = msr::read(EFER);
        vmcb.save.cr3 = cr3::read().0;
        vmcb
    }

    /// Lets the inner guest run until it leaves.
    ///
    /// CROSSING, one level down: `vmrun` loads the guest's registers and goes on at its RIP; with the next exit the CPU
    /// continues behind it, as if it had been a long instruction.
    pub fn enter_guest(&mut self) -> Exit {
        // SAFETY: SVM is on; the VMCB describes a guest that touches its own stack and text alone; what it does to registers
        // is undone by `enter`.
        unsafe { run::enter(self.vmcb as u64, &raw mut self.registers) };
        let (control, save) = self.parts();
        let (code, info) = (control.exit_code, control.exit_info_1);
        match code {
            exit_code::IOIO if info & IOIO_IN == 0 && info & IOIO_STRING == 0 => {
                let value = save.rax & ioio_mask(info);
                // EXITINFO2 is the RIP behind the instruction, which is done now.
                self.set_rip(control.exit_info_2);
                Exit::PioOut { port: (info >> 16) as u16, value: value as u32 }
            }
            exit_code::VMMCALL => Exit::Call,
            exit_code::INVALID => Exit::Refused(code),
            exit_code::HLT => Exit::Halt,
            code => Exit::Other { code, info },
        }
    }

    /// RAX, as the inner guest left it.
    #[must_use]
    pub fn rax(&self) -> u64 {
        self.parts().1.rax
    }

    fn parts(&self) -> (vmcb::Control, vmcb::Save) {
        // SAFETY: The VMCB is ours and initialised, and the CPU writes to it in `enter` only.
        let vmcb = unsafe { self.vmcb.read_volatile() };
        (vmcb.control, vmcb.save)
    }

    fn set_rip(&mut self, rip: u64) {
        // SAFETY: As above; a guest may be sent to any of its addresses.
        unsafe { (&raw mut (*self.vmcb).save.rip).write_volatile(rip) };
    }
}

/// Bits of EXITINFO1 of an IOIO exit (15.10.2): IN, not OUT; a string instruction; sizes in bits 4 to 6.
const IOIO_IN: u64 = 1 << 0;
const IOIO_STRING: u64 = 1 << 2;

/// The bits of RAX that an OUT of this size writes.
const fn ioio_mask(info: u64) -> u64 {
    match info >> 4 & 0b111 {
        0b001 => 0xFF,
        0b010 => 0xFFFF,
        _ => 0xFFFF_FFFF,
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn an_out_writes_as_many_bits_as_the_cpu_tells() {
        for (info, mask) in [(0x00E9_0010, 0xFF), (0x00E9_0020, 0xFFFF), (0x00E9_0040, 0xFFFF_FFFF)] {
            assert_eq!(ioio_mask(info), mask);
        }
    }
}
