//! Which tables and system segments this CPU has loaded: what a hypervisor must give back to itself.

/// Selectors and bases, as the CPU has them now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    /// CS.
    pub cs: u16,
    /// SS.
    pub ss: u16,
    /// TR.
    pub tr: u16,
    /// The first byte of the TSS.
    pub tr_base: u64,
    /// The first byte of the GDT.
    pub gdt_base: u64,
    /// The first byte of the IDT.
    pub idt_base: u64,
}

/// What `sgdt` and `sidt` write.
#[cfg(target_os = "none")]
#[repr(C, packed)]
#[derive(Clone, Copy)]
struct Register {
    limit: u16,
    base: u64,
}

/// Reads them.
#[cfg(target_os = "none")]
#[must_use]
pub fn read() -> Tables {
    let (mut gdt, mut idt) = (Register { limit: 0, base: 0 }, Register { limit: 0, base: 0 });
    let (cs, ss, tr): (u16, u16, u16);
    // SAFETY: Both instructions write ten bytes, where they are told to; the others read registers.
    unsafe {
        core::arch::asm!(
            "sgdt [{gdt}]",
            "sidt [{idt}]",
            "mov {cs:x}, cs",
            "mov {ss:x}, ss",
            "str {tr:x}",
            gdt = in(reg) &raw mut gdt,
            idt = in(reg) &raw mut idt,
            cs = out(reg) cs,
            ss = out(reg) ss,
            tr = out(reg) tr,
            options(nostack, preserves_flags),
        );
    }
    let descriptor = gdt.base + u64::from(tr & !7);
    // SAFETY: The CPU has loaded TR from there, so a descriptor of 16 bytes is there and can be read.
    let [low, high] = unsafe { (descriptor as *const [u64; 2]).read_unaligned() };
    Tables { cs, ss, tr, tr_base: base(low, high), gdt_base: gdt.base, idt_base: idt.base }
}

/// Reads them; on the host they are not ours to read.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn read() -> Tables {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// The base in a descriptor of 16 bytes: in four pieces (Intel SDM vol. 3A, figure 8-4).
#[cfg(any(target_os = "none", test))]
const fn base(low: u64, high: u64) -> u64 {
    (low >> 16 & 0xFF_FFFF) | (low >> 56 & 0xFF) << 24 | high << 32
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn a_base_is_put_together_of_four_pieces() {
        assert_eq!(base(0x550A_8966_7788_BCDE, 0x1122_3344), 0x1122_3344_5566_7788);
    }
}
