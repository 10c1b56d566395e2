//! The VMCB: one page that holds a virtual CPU. AMD64 APM vol. 2, appendix B.
//!
//! ```text
//! 0x000 ┌ control area: what makes the guest leave, and why it has left
//!       │ 0x00C  intercepts: HLT, ports, shutdown, …      what of the guest's doing is an exit
//!       │ 0x010  intercepts: VMRUN, VMMCALL, …            VMRUN must be one, or the CPU refuses
//!       │ 0x040  IOPM_BASE_PA                             a bit for each port
//!       │ 0x058  ASID                                     names the guest's entries in the TLB; 0 is the host's
//!       │ 0x070  EXITCODE, EXITINFO1, EXITINFO2           written by the CPU
//!       │ 0x090  NP_ENABLE                                nested paging; off: the guest's CR3 is a host's
//! 0x400 ├ save area: the guest's registers
//!       │ 0x400  ES, CS, SS, DS, FS, GS, GDTR, LDTR, IDTR, TR    selector, attributes, limit, base
//!       │ 0x4D0  EFER     0x548 CR4, CR3, CR0, DR7, DR6, RFLAGS, RIP
//! 0x698 │ 0x5D8  RSP      0x5F8 RAX, STAR, …     0x668 G_PAT
//!       └ the rest of the page is the CPU's
//! ```
//!
//! All other general registers are not in it: who runs a guest switches them ([`run`](super::run)).

use core::mem::offset_of;

/// A virtual CPU.
#[repr(C, align(4096))]
#[derive(Clone, Copy, Debug)]
pub struct Vmcb {
    /// What makes the guest leave, and why it has left.
    pub control: Control,
    /// The guest's registers.
    pub save: Save,
    rest: [u8; 0x1000 - 0x400 - size_of::<Save>()],
}

/// What makes the guest leave, and why it has left. Fields that we leave at 0 are gaps here.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Control {
    /// Reads and writes of control and debug registers, exceptions: none is intercepted.
    _registers_and_exceptions: [u32; 3],
    /// Instructions and events of the first kind: [`Intercepts`].
    pub intercepts: Intercepts,
    /// Instructions of SVM itself: [`Intercepts`].
    pub intercepts_svm: Intercepts,
    _gap_014: [u32; 11],
    /// IOPM_BASE_PA: the bitmap of ports.
    pub port_map_gpa: u64,
    /// MSRPM_BASE_PA: a bitmap of MSRs, read where MSRs are intercepted.
    pub msr_map_gpa: u64,
    /// TSC_OFFSET: added to what the guest reads.
    pub tsc_offset: u64,
    /// ASID: names the guest in the TLB. Not 0.
    pub asid: u32,
    /// TLB_CONTROL: what to forget before the guest runs; 0 is nothing.
    pub tlb_control: u32,
    /// Virtual interrupts: none.
    _virtual_interrupts: u64,
    /// Whether the guest is behind `sti` or `mov ss`.
    pub interrupt_shadow: u64,
    /// EXITCODE: why it left.
    pub exit_code: u64,
    /// EXITINFO1: the first detail; of a port access the port, direction and size.
    pub exit_info_1: u64,
    /// EXITINFO2: the second; of a port access the RIP behind it.
    pub exit_info_2: u64,
    /// EXITINTINFO: an event whose delivery was interrupted by the exit.
    pub exit_interrupt_info: u64,
    /// NP_ENABLE: bit 0 turns nested paging on.
    pub nested_paging: u64,
    _gap_098: [u64; 2],
    /// EVENTINJ: an event that the guest gets at its next entry.
    pub event: u64,
    /// N_CR3: the tables of nested paging.
    pub nested_cr3: u64,
    _gap_0b8: u64,
    /// VMCB_CLEAN: what has not changed since the last entry; 0 is nothing.
    pub clean: u64,
    /// nRIP: behind the instruction that left, on CPUs that tell.
    pub next_rip: u64,
    _gap_0d0: [u8; 0x400 - 0x0D0],
}

/// What of the guest's doing is an exit.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intercepts(u32);

impl Intercepts {
    /// Of the first kind: `hlt`.
    pub const HLT: Self = Self(1 << 24);
    /// Of the first kind: ports whose bit is set in the bitmap.
    pub const PORTS: Self = Self(1 << 27);
    /// Of the first kind: a shutdown, as of a triple fault.
    pub const SHUTDOWN: Self = Self(1 << 31);
    /// Of SVM: `vmrun`.
    pub const VMRUN: Self = Self(1 << 0);
    /// Of SVM: `vmmcall`.
    pub const VMMCALL: Self = Self(1 << 1);
}

impl core::ops::BitOr for Intercepts {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// A segment register with its hidden part.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// What programs see.
    pub selector: u16,
    /// Bits 47 to 40 and 55 to 52 of a descriptor, side by side: type, S, DPL, P, AVL, L, D/B, G.
    pub attributes: u16,
    /// The last byte.
    pub limit: u32,
    /// The first byte.
    pub base: u64,
}

impl Segment {
    /// Flat 64-bit code, ring 0: present, code, readable, accessed, L, G.
    const CODE: Self = Self { selector: 0x08, attributes: 0xA9B, limit: u32::MAX, base: 0 };
    /// Flat data, ring 0: present, writable, accessed, B, G.
    const DATA: Self = Self { selector: 0x10, attributes: 0xC93, limit: u32::MAX, base: 0 };
}

/// The guest's registers, as far as `vmrun` switches them.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Save {
    /// ES, CS, SS, DS, FS, GS.
    pub segments: [Segment; 6],
    /// GDTR, LDTR, IDTR, TR: no tables, so that an exception is a shutdown.
    pub tables: [Segment; 4],
    _gap_4a0: [u8; 0x2B],
    /// CPL: the ring.
    pub ring: u8,
    _gap_4cc: u32,
    /// EFER. SVME must be set, or the CPU refuses.
    pub efer: u64,
    _gap_4d8: [u64; 14],
    /// CR4.
    pub cr4: u64,
    /// CR3.
    pub cr3: u64,
    /// CR0.
    pub cr0: u64,
    /// DR7.
    pub dr7: u64,
    /// DR6.
    pub dr6: u64,
    /// RFLAGS.
    pub rflags: u64,
    /// RIP.
    pub rip: u64,
    _gap_580: [u64; 11],
    /// RSP.
    pub rsp: u64,
    _gap_5e0: [u64; 3],
    /// RAX, the one general register that is here.
    pub rax: u64,
    /// STAR to SYSENTER_EIP, which `vmload` and `vmsave` switch, and CR2.
    _msrs_600: [u64; 13],
    /// G_PAT: memory types, read with nested paging alone.
    pub pat: u64,
}

const _: () = assert!(size_of::<Vmcb>() == 0x1000 && size_of::<Control>() == 0x400);
const _: () = assert!(offset_of!(Control, intercepts) == 0x00C && offset_of!(Control, port_map_gpa) == 0x040);
const _: () = assert!(offset_of!(Control, asid) == 0x058 && offset_of!(Control, exit_code) == 0x070);
const _: () = assert!(offset_of!(Control, nested_paging) == 0x090 && offset_of!(Control, event) == 0x0A8);
const _: () = assert!(offset_of!(Control, nested_cr3) == 0x0B0 && offset_of!(Control, clean) == 0x0C0);
const _: () = assert!(offset_of!(Save, tables) == 0x060 && offset_of!(Save, ring) == 0x0CB);
const _: () = assert!(offset_of!(Save, efer) == 0x0D0 && offset_of!(Save, cr4) == 0x148);
const _: () = assert!(offset_of!(Save, rip) == 0x178 && offset_of!(Save, rsp) == 0x1D8);
const _: () = assert!(offset_of!(Save, rax) == 0x1F8 && offset_of!(Save, pat) == 0x268);

/// CR0: PG, WP, NE, ET, PE. CR4: PAE. As the VMM starts this kernel (`vmm/src/boot/cpu_mode/long.rs`).
const CR0: u64 = 1 << 31 | 1 << 16 | 1 << 5 | 1 << 4 | 1;
const CR4: u64 = 1 << 5;
/// Bit 1, which is always 1; interrupts are off.
const RFLAGS: u64 = 1 << 1;
/// The PAT after reset (vol. 2, 7.8.2).
const PAT: u64 = 0x0007_0406_0007_0406;

impl Vmcb {
    /// All zeros: a CPU that can do nothing.
    pub(super) fn zeroed() -> Self {
        // SAFETY: All fields are integers, of which zeros are values.
        unsafe { core::mem::zeroed() }
    }
}

impl Save {
    /// Sets the registers of a CPU in 64-bit mode, ring 0, about to fetch at `rip`. Paging is set by CR3 and EFER besides.
    pub(super) fn enter_64_bit_mode(&mut self, rip: u64, rsp: u64) {
        self.segments = [Segment::DATA; 6];
        let [_, cs, ..] = &mut self.segments;
        *cs = Segment::CODE;
        (self.cr0, self.cr4, self.rflags, self.pat) = (CR0, CR4, RFLAGS, PAT);
        (self.rip, self.rsp) = (rip, rsp);
    }
}
