//! The GDT: the segments of 64-bit mode, and where the TSS is.
//!
//! The VMM has set the hidden parts of the segment registers, so the kernel runs without any table. An exception loads
//! CS from its gate and `iretq` loads CS and SS from the stack, and for that the CPU reads descriptors. This table has,
//! at the selectors that the registers already hold (`vmm/src/boot/cpu_mode.rs`), what the registers already mean.
//!
//! ```text
//! 0x00  null     no segment
//! 0x08  code     64-bit, ring 0
//! 0x10  data     ring 0
//! 0x18  TSS      of the first CPU; two entries: a base of 64 bits needs them
//! 0x28  data     ring 3
//! 0x30  code     64-bit, ring 3
//! 0x40  TSS …    of the others, two entries each
//! ```
//!
//! All CPUs have this one table. The selector in a CPU's task register tells which it is (`guest-kernel/src/cpu/id.rs`).
//!
//! `syscall` and `sysret` read no table: they load what a MSR says, and the selectors must lie as they assume (Intel SDM
//! vol. 3A, 5.8.8). `syscall` takes CS, and SS 8 above it: 0x08 and 0x10. `sysret` takes SS 8 above a base and CS 16
//! above it, so for programs data comes before code; the base is 0x20, where nothing needs to be that it could load.

use super::id::{CpuId, MAX_CPUS};
use super::tss::{self, Tss};

/// The selector of the kernel's code.
pub const CODE: u16 = 0x08;
/// The selector of the kernel's data.
pub const DATA: u16 = 0x10;
/// The selector of the first CPU's TSS.
pub const TSS: u16 = 0x18;
/// The selector of a program's data; its two low bits ask for ring 3.
pub const USER_DATA: u16 = 0x28 | 3;
/// The selector of a program's code.
pub const USER_CODE: u16 = 0x30 | 3;
/// The selector of the second CPU's TSS; the others' follow.
const OTHER_TSS: u16 = 0x40;
/// Bytes of a TSS's descriptor.
#[cfg(any(test, target_os = "none"))]
const TSS_SIZE: u16 = 16;
/// How many entries the table has.
const ENTRIES: usize = OTHER_TSS as usize / 8 + 2 * (MAX_CPUS - 1);

/// The table. Writable: `ltr` marks the TSS as busy.
#[cfg(target_os = "none")]
static mut GDT: Gdt = Gdt::new();

/// The table's entries.
#[repr(C, align(8))]
#[derive(Debug)]
pub struct Gdt([u64; ENTRIES]);

impl Gdt {
    /// The table as it is drawn above.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a table for a static; `Default` is not const")]
    pub const fn new() -> Self {
        let [tss_low, tss_high] = tss_descriptor(tss::ADDRESS, tss::SIZE as u64 - 1);
        let mut table = [0; ENTRIES];
        let first = [
            0,
            code_descriptor(),
            data_descriptor(),
            tss_low,
            tss_high,
            data_descriptor() | RING_3,
            code_descriptor() | RING_3,
        ];
        let mut index = 0;
        while index < first.len() {
            table[index] = first[index];
            index += 1;
        }
        Self(table)
    }
}

/// The selector of a CPU's TSS.
#[cfg(any(test, target_os = "none"))]
const fn tss_of(cpu: CpuId) -> u16 {
    match cpu.number() {
        0 => TSS,
        number => OTHER_TSS + TSS_SIZE * (number as u16 - 1),
    }
}

/// The CPU whose task register holds this selector; before any is loaded the first.
#[cfg(any(test, target_os = "none"))]
#[inline]
pub(super) const fn cpu_of(selector: u16) -> CpuId {
    let number = match selector.checked_sub(OTHER_TSS) {
        Some(offset) => offset / TSS_SIZE + 1,
        None => 0,
    };
    match CpuId::new(number as usize) {
        Some(cpu) => cpu,
        None => CpuId::FIRST,
    }
}

/// Says where the TSS of a CPU is that is about to start, and has not loaded this table yet or will load it anew.
#[cfg(target_os = "none")]
pub(crate) fn set_tss(cpu: CpuId, tss: &'static Tss) {
    let index = usize::from(tss_of(cpu) / 8);
    let descriptor = tss_descriptor(&raw const *tss as u64, tss::SIZE as u64 - 1);
    for (offset, word) in descriptor.into_iter().enumerate() {
        // SAFETY: The two entries are this CPU's, inside the table, and it does not run. The table is never borrowed: the
        // other CPUs read theirs by hardware only.
        unsafe { (&raw mut GDT).cast::<u64>().add(index + offset).write_volatile(word) };
    }
}

/// Says where the TSS of a CPU is; on the host there is none.
#[cfg(not(target_os = "none"))]
pub(crate) fn set_tss(_cpu: CpuId, _tss: &'static Tss) {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Loads the table, and the task register of `cpu` from it.
#[cfg(target_os = "none")]
pub(super) fn load(cpu: CpuId) {
    static TABLE: super::TableRegister = super::TableRegister::new(size_of::<Gdt>(), (&raw const GDT).cast());
    // SAFETY: The table lives as long as the kernel and describes the segments as they are, so nothing changes for code
    // that runs. The linker has put the TSS where its descriptor says. `ltr` writes the descriptor, which is in writable
    // memory that nothing else touches, and runs once for each descriptor: a busy TSS it would refuse.
    unsafe {
        core::arch::asm!(
            "lgdt [{table}]",
            "ltr {selector:x}",
            table = in(reg) &raw const TABLE,
            selector = in(reg) tss_of(cpu),
            options(nostack, preserves_flags),
        );
    }
}

/// Bits of a descriptor (Intel SDM vol. 3A, 3.4.5 and figure 3-8).
const PRESENT: u64 = 1 << 47;
/// `S`: code or data, not a system segment.
const CODE_OR_DATA: u64 = 1 << 44;
/// `DPL`: who may use it. Ring 0 is 0.
const RING_3: u64 = 0b11 << 45;
/// `L`: 64-bit code.
const LONG: u64 = 1 << 53;
/// `D/B`: 32-bit data; without meaning in 64-bit mode.
const BIG: u64 = 1 << 54;
/// `G`: the limit counts pages; without meaning in 64-bit mode.
const GRANULARITY: u64 = 1 << 55;
/// All ones in both parts of the limit.
const FLAT: u64 = 0xF << 48 | 0xFFFF;
/// Types (Intel SDM vol. 3A, tables 3-1 and 3-2). "Accessed" is set, so that the CPU never has to.
const CODE_READ_ACCESSED: u64 = 0b1011 << 40;
const DATA_WRITE_ACCESSED: u64 = 0b0011 << 40;
const TSS_AVAILABLE: u64 = 0b1001 << 40;

const fn code_descriptor() -> u64 {
    PRESENT | CODE_OR_DATA | CODE_READ_ACCESSED | LONG | GRANULARITY | FLAT
}

const fn data_descriptor() -> u64 {
    PRESENT | CODE_OR_DATA | DATA_WRITE_ACCESSED | BIG | GRANULARITY | FLAT
}

/// Intel SDM vol. 3A, figure 8-4: the base is in four pieces, the limit in two.
const fn tss_descriptor(base: u64, limit: u64) -> [u64; 2] {
    let low =
        (limit & 0xFFFF) | (base & 0xFF_FFFF) << 16 | (limit >> 16 & 0xF) << 48 | (base >> 24 & 0xFF) << 56;
    [low | PRESENT | TSS_AVAILABLE, base >> 32]
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn segments_are_those_that_every_64_bit_kernel_has() {
        // Access byte and flags: present, ring 0, code or data, accessed; G with L or D.
        assert_eq!(code_descriptor(), 0x00AF_9B00_0000_FFFF);
        assert_eq!(data_descriptor(), 0x00CF_9300_0000_FFFF);
    }

    #[test]
    fn a_tss_descriptor_has_its_base_in_four_pieces() {
        let [low, high] = tss_descriptor(0x1122_3344_5566_7788, 0xA_BCDE);
        assert_eq!(low, 0x550A_8966_7788_BCDE);
        assert_eq!(high, 0x1122_3344);
    }

    #[test]
    fn the_selectors_are_the_places_in_the_table() {
        let Gdt(table) = Gdt::new();
        let [low, high] = tss_descriptor(tss::ADDRESS, 0x67);
        let at = |selector: u16| table[usize::from(selector / 8)];
        assert_eq!(
            [at(0), at(CODE), at(DATA), at(TSS), at(TSS + 8)],
            [0, code_descriptor(), data_descriptor(), low, high]
        );
    }

    #[test]
    fn a_cpu_is_told_by_the_selector_of_its_tss() {
        for cpu in (0..MAX_CPUS).filter_map(CpuId::new) {
            assert_eq!(cpu_of(tss_of(cpu)), cpu);
            assert!(usize::from(tss_of(cpu) / 8) + 1 < ENTRIES);
        }
        assert_eq!((tss_of(CpuId::FIRST), cpu_of(0)), (TSS, CpuId::FIRST));
    }
}
