//! VMX: Intel's hardware virtualization. **Not seen working on this project's machines**: none of their KVMs offers it to a
//! guest. It is written to the manual, and says at each step why it does not go on.
//!
//! It does what [`svm`](super::svm) does, by other means. The virtual CPU (VMCS) is a page that the CPU may keep inside and
//! in whatever form it likes: it is read and written by instructions, field by field ([`vmcs`]). Every bit of control has
//! an MSR that says whether it may be 0 and whether it may be 1. And the state of the hypervisor, which `vmrun` saves by
//! itself, has fields as well: an exit is a jump to where they say.
//!
//! | step | SVM | VMX |
//! |---|---|---|
//! | may I? | CPUID, `VM_CR` | CPUID 1:ECX bit 5, IA32_FEATURE_CONTROL |
//! | make ready | `EFER.SVME`, VM_HSAVE_PA | `CR4.VMXE`, `vmxon` with a page of its own |
//! | a virtual CPU | write the VMCB | `vmclear`, `vmptrld`, `vmwrite` |
//! | enter | `vmrun` | `vmlaunch`, then `vmresume` ([`run`]) |
//! | why did it leave? | EXITCODE | exit reason and qualification |
//!
//! Intel SDM vol. 3C, chapters 24 to 28 and 31; appendices A and B.

pub mod run;
pub mod vmcs;

use core::sync::atomic::{AtomicBool, Ordering};

use vmcs::Field;

use super::inner::{self, Exit, Maker, Pages, Registers};
use super::{control, cpuid, cr3, msr};

/// CPUID 1:ECX bit 5: the CPU has VMX.
const VMX: u32 = 1 << 5;
/// IA32_FEATURE_CONTROL: locked, and VMX allowed outside SMX (24.7).
const FEATURE_CONTROL: u32 = 0x3A;
const LOCKED: u64 = 1 << 0;
const ALLOWED: u64 = 1 << 2;
/// CR4.VMXE.
const VMXE: u64 = 1 << 13;

/// IA32_VMX_BASIC: bits 30 to 0 are the revision; bit 55 says that the "true" MSRs are there (appendix A.1).
const BASIC: u32 = 0x480;
const HAS_TRUE: u64 = 1 << 55;
/// What CR0 and CR4 must and may have set (A.7, A.8).
const CR0_FIXED: [u32; 2] = [0x486, 0x487];
const CR4_FIXED: [u32; 2] = [0x488, 0x489];

static VMXON: Pages<1> = Pages::filled(0);
static VMCS: Pages<1> = Pages::filled(0);
/// The inner guest's stack.
static INNER_STACK: Pages<1> = Pages::filled(0);

/// A kernel that runs a guest.
#[derive(Debug)]
pub struct Hypervisor {
    registers: Registers,
    /// Whether the guest was launched: from then on it is resumed.
    is_launched: bool,
}

/// Whether the CPU offers this kernel VMX; if not, why.
///
/// # Errors
/// The reason, as a clause.
pub fn offered() -> Result<(), &'static str> {
    if cpuid::leaf(1).ecx & VMX == 0 {
        return Err("CPUID 1:ECX bit 5 is 0; kvm_intel with nested=1 sets it");
    }
    let control = msr::read(FEATURE_CONTROL);
    if control & LOCKED != 0 && control & ALLOWED == 0 {
        return Err("IA32_FEATURE_CONTROL is locked without VMX: firmware has turned it off");
    }
    Ok(())
}

/// Exit reasons (appendix C).
mod reason {
    pub(super) const HLT: u64 = 12;
    pub(super) const VMCALL: u64 = 18;
    pub(super) const IO: u64 = 30;
    /// Bit 31: the CPU refused the guest's state, and ran nothing.
    pub(super) const REFUSED: u64 = 1 << 31;
}

/// Bits of the qualification of a port access (table 28-5): IN, not OUT; a string instruction.
const IO_IN: u64 = 1 << 3;
const IO_STRING: u64 = 1 << 4;

impl Hypervisor {
    /// Makes this CPU ready to run a guest, and the guest ready to run: once, as there is one VMCS.
    ///
    /// # Errors
    /// Why there is none, as a clause.
    pub fn start() -> Result<Self, &'static str> {
        static STARTED: AtomicBool = AtomicBool::new(false);
        offered()?;
        if STARTED.swap(true, Ordering::Relaxed) {
            return Err("there is one VMCS, and it is in use");
        }
        let revision = (msr::read(BASIC) & 0x7FFF_FFFF) as u32;
        // SAFETY: Both pages are the CPU's from now on and nothing else uses them. The bits that are set are those that
        // VMX needs, and none that this kernel relies upon to be 0.
        unsafe {
            if msr::read(FEATURE_CONTROL) & LOCKED == 0 {
                msr::write(FEATURE_CONTROL, LOCKED | ALLOWED);
            }
            control::set_cr0(msr::read(CR0_FIXED[0]));
            control::set_cr4(msr::read(CR4_FIXED[0]) | VMXE);
            VMXON.write_word(revision);
            VMCS.write_word(revision);
            run::on(VMXON.gpa()).map_err(|()| "vmxon has failed")?;
            run::load(VMCS.gpa()).map_err(|()| "vmclear or vmptrld has failed")?;
        }
        for (field, value) in
            vmcs::controls(has_true(), msr::read).into_iter().chain(inner_guest()).chain(vmcs::host())
        {
            // SAFETY: The VMCS is loaded, and describes a guest that touches its own stack and text alone.
            unsafe { run::write(field, value) }.map_err(|()| "the CPU has no such field of the VMCS")?;
        }
        Ok(Self { registers: Registers::default(), is_launched: false })
    }

    /// Lets the inner guest run until it leaves.
    ///
    /// CROSSING, one level down: `vmlaunch` or `vmresume` loads the guest's state; an exit loads the hypervisor's, and goes
    /// on where its RIP says.
    pub fn enter_guest(&mut self) -> Exit {
        // SAFETY: VMX is on and a whole VMCS is loaded; what the guest does to registers is undone by `enter`.
        let failed = unsafe { run::enter(&raw mut self.registers, self.is_launched.into()) };
        if failed != 0 {
            return Exit::Refused(run::read(Field::InstructionError));
        }
        self.is_launched = true;
        let (code, info) = (run::read(Field::ExitReason), run::read(Field::ExitQualification));
        match code {
            _ if code & reason::REFUSED != 0 => Exit::Refused(code),
            reason::IO if info & (IO_IN | IO_STRING) == 0 => {
                let value = self.registers.rax & io_mask(info);
                self.step();
                Exit::PioOut { port: (info >> 16) as u16, value: value as u32 }
            }
            reason::VMCALL => Exit::Call,
            reason::HLT => Exit::Halt,
            code => Exit::Other { code, info },
        }
    }

    /// RAX, as the inner guest left it.
    #[must_use]
    pub fn rax(&self) -> u64 {
        self.registers.rax
    }

    /// Goes behind the instruction that left.
    fn step(&mut self) {
        let rip = run::read(Field::GuestRip) + run::read(Field::ExitInstructionLength);
        // SAFETY: A guest may be sent to any of its addresses. The field is there: it was written before.
        let _ = unsafe { run::write(Field::GuestRip, rip) };
    }
}

fn has_true() -> bool {
    msr::read(BASIC) & HAS_TRUE != 0
}

/// The inner guest before its first instruction: in 64-bit mode, with the page tables of this kernel.
fn inner_guest() -> impl Iterator<Item = (Field, u64)> {
    let fixed = |value: u64, [zero, one]: [u32; 2]| (value | msr::read(zero)) & msr::read(one);
    let registers = [
        (Field::GuestCr0, fixed(control::cr0(), CR0_FIXED)),
        (Field::GuestCr3, cr3::read().0),
        (Field::GuestCr4, fixed(control::cr4(), CR4_FIXED)),
        (Field::GuestEfer, msr::read(vmcs::EFER)),
        (Field::GuestRip, inner::entry(Maker::Intel)),
        (Field::GuestRsp, INNER_STACK.gpa() + 4096),
    ];
    registers.into_iter().chain(vmcs::GUEST_64_BIT_MODE)
}

/// The bits of RAX that an OUT of this size writes: bits 2 to 0 are the size less one.
const fn io_mask(info: u64) -> u64 {
    match info & 0b111 {
        0 => 0xFF,
        1 => 0xFFFF,
        _ => 0xFFFF_FFFF,
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn an_out_writes_as_many_bits_as_the_cpu_tells() {
        for (info, mask) in [(0x00E9_0000, 0xFF), (0x00E9_0001, 0xFFFF), (0x00E9_0003, 0xFFFF_FFFF)] {
            assert_eq!(io_mask(info), mask);
        }
    }
}
