//! The registers a vCPU starts with.
//!
//! A CPU comes out of reset in real mode, and an operating system's first thousand lines lead it to 64-bit mode:
//! a GDT, protected mode, page tables, `EFER.LME`, paging, a far jump (Intel SDM vol. 3A, 10.8.5). KVM lets the host
//! set the *result* of that journey: KVM_SET_SREGS writes control registers, EFER and the hidden parts of the
//! segment registers directly. So the guest's first instruction already is a 64-bit one.
//!
//! A KVM may accept registers and drop bits of them without a word. What was set is therefore read back and
//! compared; a difference is an error that names the register.

use kvm_bindings::{kvm_regs, kvm_segment, kvm_sregs};
use kvm_ioctls::VcpuFd;
use shared_abi::{Gpa, Gva, layout};
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use crate::error::{Error, Result};
use crate::origin::Origin;

/// 64-bit mode with four-level paging: the one mode our guest kernels start in, and each of their CPUs.
///
/// | register | value | why |
/// |---|---|---|
/// | `CR0` | `PG`, `PE` | paging and protection: both needed for long mode |
/// | | `WP` | read-only pages are read-only for the kernel too |
/// | | `NE`, `MP`, `ET` | floating-point errors as exceptions; the rest is what every 64-bit CPU has |
/// | `CR3` | the PML4's GPA | |
/// | `CR4` | `PAE` | page-table entries of 64 bits, needed for long mode |
/// | | `OSFXSR`, `OSXMMEXCPT` | SSE instructions work: foreign images use them |
/// | `EFER` | `LME`, `LMA` | long mode enabled, and active |
/// | | `NXE` | pages can be marked "no execute" |
/// | `CS` | 64-bit code, ring 0 | `L` = 1, `D` = 0 |
/// | `DS` `ES` `SS` `FS` `GS` | flat data, ring 0 | |
/// | `TR` | busy 64-bit TSS of no use | VMX refuses to enter a guest without one |
/// | `GDTR`, `IDTR` | base 0, limit 0 | no table: an exception becomes a triple fault until the guest has loaded its own (`guest-kernel/src/cpu/`) |
/// | `RIP` | the image's entry | or what `StartCpu` says, as the two below |
/// | `RSP` | end of the stack | 16-byte aligned, as the ABI asks before a call |
/// | `RDI` | GPA of `BootInfo` | the first argument of a System V function |
/// | `RFLAGS` | bit 1, which is always 1 | interrupts are off |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongMode {
    /// Where execution starts.
    pub entry_gva: Gva,
    /// Where the PML4 lies.
    pub page_tables_gpa: Gpa,
    /// Where the stack ends.
    pub stack_gva: Gva,
    /// What the first function is called with.
    pub argument: u64,
}

/// The lines that set registers.
#[derive(Clone, Copy, Debug)]
pub struct RegisterOrigins {
    /// Control and segment registers, CR3 among them.
    pub special: Origin,
    /// General registers, RIP and RSP among them.
    pub general: Origin,
}

impl LongMode {
    /// The start of a machine's first vCPU.
    #[must_use]
    pub fn at_boot(entry_gva: Gva, page_tables_gpa: Gpa) -> Self {
        let (stack_gva, argument) = (Gva(layout::STACK_END.0), layout::BOOT_INFO.0);
        Self { entry_gva, page_tables_gpa, stack_gva, argument }
    }

    /// Sets the vCPU's registers and checks that KVM kept them.
    ///
    /// # Errors
    /// [`Error::Kvm`], or [`Error::RegistersChanged`] when KVM has other values than were set.
    pub fn set(&self, vcpu: &VcpuFd) -> Result<RegisterOrigins> {
        let sregs = self.sregs(vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?);
        let ((), special) = Origin::of(vcpu.set_sregs(&sregs).map_err(Error::kvm("KVM_SET_SREGS"))?);
        let ((), general) = Origin::of(vcpu.set_regs(&self.regs()).map_err(Error::kvm("KVM_SET_REGS"))?);

        let kept = vcpu.get_sregs().map_err(Error::kvm("KVM_GET_SREGS"))?;
        match difference(&sregs, &kept) {
            None => Ok(RegisterOrigins { special, general }),
            Some(difference) => {
                Err(Error::RegistersChanged { call: "KVM_SET_SREGS", difference, mode: "long mode" })
            }
        }
    }

    /// The special registers; what is not named above stays as `reset` has it.
    fn sregs(&self, reset: kvm_sregs) -> kvm_sregs {
        let data = segment(DATA_SELECTOR, SegmentType::DataReadWriteAccessed);
        let no_table = kvm_bindings::kvm_dtable { base: 0, limit: 0, padding: [0; 3] };
        kvm_sregs {
            cs: segment(CODE_SELECTOR, SegmentType::CodeExecuteReadAccessed),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: segment(0, SegmentType::TssBusy),
            ldt: kvm_segment { unusable: 1, ..kvm_segment::default() },
            gdt: no_table,
            idt: no_table,
            cr0: CR0.bits(),
            cr2: 0,
            cr3: self.page_tables_gpa.0,
            cr4: CR4.bits(),
            efer: EFER.bits(),
            ..reset
        }
    }

    fn regs(&self) -> kvm_regs {
        kvm_regs {
            rip: self.entry_gva.0,
            rsp: self.stack_gva.0,
            rdi: self.argument,
            rflags: RESERVED_RFLAGS,
            ..kvm_regs::default()
        }
    }
}

const CR0: Cr0Flags = Cr0Flags::PAGING
    .union(Cr0Flags::PROTECTED_MODE_ENABLE)
    .union(Cr0Flags::WRITE_PROTECT)
    .union(Cr0Flags::NUMERIC_ERROR)
    .union(Cr0Flags::MONITOR_COPROCESSOR)
    .union(Cr0Flags::EXTENSION_TYPE);
const CR4: Cr4Flags =
    Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.union(Cr4Flags::OSFXSR).union(Cr4Flags::OSXMMEXCPT_ENABLE);
const EFER: EferFlags =
    EferFlags::LONG_MODE_ENABLE.union(EferFlags::LONG_MODE_ACTIVE).union(EferFlags::NO_EXECUTE_ENABLE);

/// Bit 1 of RFLAGS is reserved and always 1 (Intel SDM vol. 1, 3.4.3).
const RESERVED_RFLAGS: u64 = 1 << 1;
const _: () = assert!(!RFlags::INTERRUPT_FLAG.contains(RFlags::from_bits_retain(RESERVED_RFLAGS)));

/// Selectors of a GDT that does not exist yet: the CPU looks only at the hidden parts, until one is loaded anew.
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;

/// Segment and system-descriptor types (Intel SDM vol. 3A, tables 3-1 and 3-2).
#[derive(Clone, Copy, PartialEq, Eq)]
enum SegmentType {
    DataReadWriteAccessed = 0b0011,
    CodeExecuteReadAccessed = 0b1011,
    TssBusy = 0b1011 | SYSTEM,
}

/// Marks system descriptors in [`SegmentType`]; the CPU has this as the bit `S` = 0.
const SYSTEM: isize = 1 << 4;

/// The hidden part of a flat ring-0 segment register.
fn segment(selector: u16, kind: SegmentType) -> kvm_segment {
    let system = kind == SegmentType::TssBusy;
    let code = kind == SegmentType::CodeExecuteReadAccessed;
    kvm_segment {
        base: 0,
        limit: if system { TSS_LIMIT } else { u32::MAX },
        selector,
        type_: (kind as isize & 0b1111) as u8,
        present: 1,
        dpl: 0,
        db: u8::from(!code && !system), // 32-bit stack and offsets outside 64-bit mode
        s: u8::from(!system),           // code or data, not a system segment
        l: u8::from(code),              // 64-bit code
        g: u8::from(!system),           // the limit counts pages
        avl: 0,
        unusable: 0,
        padding: 0,
    }
}

/// The last byte of a TSS without an I/O permission bitmap (Intel SDM vol. 3A, 8.7).
const TSS_LIMIT: u32 = 0x67;

/// Names every register that differs, as set and as kept; `None` when none does.
fn difference(set: &kvm_sregs, kept: &kvm_sregs) -> Option<String> {
    let registers = [
        ("CR0", set.cr0, kept.cr0, bit_names(Cr0Flags::from_bits_retain(set.cr0 ^ kept.cr0).iter_names())),
        ("CR3", set.cr3, kept.cr3, String::new()),
        ("CR4", set.cr4, kept.cr4, bit_names(Cr4Flags::from_bits_retain(set.cr4 ^ kept.cr4).iter_names())),
        (
            "EFER",
            set.efer,
            kept.efer,
            bit_names(EferFlags::from_bits_retain(set.efer ^ kept.efer).iter_names()),
        ),
        ("CS.base", set.cs.base, kept.cs.base, String::new()),
        ("CS.selector", set.cs.selector.into(), kept.cs.selector.into(), String::new()),
        ("CS.L", set.cs.l.into(), kept.cs.l.into(), String::new()),
        ("CS.D", set.cs.db.into(), kept.cs.db.into(), String::new()),
        ("CS.DPL", set.cs.dpl.into(), kept.cs.dpl.into(), String::new()),
        ("IDTR.limit", set.idt.limit.into(), kept.idt.limit.into(), String::new()),
        ("GDTR.limit", set.gdt.limit.into(), kept.gdt.limit.into(), String::new()),
    ];
    let different: Vec<String> = registers
        .into_iter()
        .filter(|(_, set, kept, _)| set != kept)
        .map(|(name, set, kept, bits)| format!("{name} set to {set:#x}, kept as {kept:#x}{bits}"))
        .collect();
    if different.is_empty() { None } else { Some(different.join("; ")) }
}

fn bit_names<T>(names: impl Iterator<Item = (&'static str, T)>) -> String {
    let names: Vec<_> = names.map(|(name, _)| name).collect();
    if names.is_empty() { String::new() } else { format!(" (differs in {})", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_bit_is_named() {
        let mode = LongMode::at_boot(Gva(0x10_0000), Gpa(0x8_0000));
        let set = mode.sregs(kvm_sregs::default());
        let mut kept = set;
        assert_eq!(difference(&set, &kept), None);

        kept.cr0 &= !Cr0Flags::PAGING.bits();
        let difference = difference(&set, &kept).expect("CR0 differs");
        assert!(
            difference.contains("CR0 set to 0x80010033, kept as 0x10033 (differs in PAGING)"),
            "{difference}"
        );
    }
}
