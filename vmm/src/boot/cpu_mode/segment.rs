//! The hidden parts of segment registers.
//!
//! A segment register has a selector that programs see, and a descriptor that the CPU loaded when the selector was
//! written: base, limit, rights. Only the descriptor counts, until a selector is loaded anew; so a host that sets it
//! needs no GDT. Intel SDM vol. 3A, 3.4.3.

use kvm_bindings::{kvm_dtable, kvm_segment};

/// Selectors of a GDT that does not exist yet: the CPU looks only at the hidden parts, until one is loaded anew.
const CODE_SELECTOR: u16 = 0x08;
const DATA_SELECTOR: u16 = 0x10;

/// Types of segments and system descriptors (Intel SDM vol. 3A, tables 3-1 and 3-2).
const DATA_READ_WRITE_ACCESSED: u8 = 0b0011;
const CODE_EXECUTE_READ_ACCESSED: u8 = 0b1011;
const TSS_BUSY: u8 = 0b1011;

/// All addresses, in ring 0: the limit counts pages.
const FLAT: kvm_segment = kvm_segment {
    base: 0,
    limit: u32::MAX,
    selector: 0,
    type_: 0,
    present: 1,
    dpl: 0,
    db: 0,
    s: 1, // code or data, not a system segment
    l: 0,
    g: 1,
    avl: 0,
    unusable: 0,
    padding: 0,
};

/// Flat 64-bit code: `L` is 1, and then `D` must be 0.
pub(super) const CODE_64: kvm_segment =
    kvm_segment { selector: CODE_SELECTOR, type_: CODE_EXECUTE_READ_ACCESSED, l: 1, ..FLAT };

/// Flat 32-bit code.
pub(super) const CODE_32: kvm_segment =
    kvm_segment { selector: CODE_SELECTOR, type_: CODE_EXECUTE_READ_ACCESSED, db: 1, ..FLAT };

/// Flat data, with a stack of 32-bit offsets outside 64-bit mode.
pub(super) const DATA: kvm_segment =
    kvm_segment { selector: DATA_SELECTOR, type_: DATA_READ_WRITE_ACCESSED, db: 1, ..FLAT };

/// A busy TSS of no use: VMX refuses to enter a guest without one. Its limit is the last byte of one without an I/O
/// permission bitmap (Intel SDM vol. 3A, 8.7).
pub(super) const TSS: kvm_segment = kvm_segment { limit: 0x67, type_: TSS_BUSY, s: 0, g: 0, ..FLAT };

/// No segment.
pub(super) const UNUSABLE: kvm_segment =
    kvm_segment { limit: 0, present: 0, s: 0, g: 0, unusable: 1, ..FLAT };

/// No table: an exception becomes a triple fault until the guest has loaded its own.
pub(super) const NO_TABLE: kvm_dtable = kvm_dtable { base: 0, limit: 0, padding: [0; 3] };

/// 64 KiB from `selector` · 16 on: what a segment is in real mode.
pub(super) fn real(selector: u16, is_code: bool) -> kvm_segment {
    let type_ = if is_code { CODE_EXECUTE_READ_ACCESSED } else { DATA_READ_WRITE_ACCESSED };
    kvm_segment { base: u64::from(selector) << 4, limit: 0xFFFF, selector, type_, g: 0, ..FLAT }
}
