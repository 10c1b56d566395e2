//! What a KVM made of registers that it was given.

use kvm_bindings::kvm_sregs;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};

/// Names every register that differs, as set and as kept; `None` when none does.
pub(super) fn between(set: &kvm_sregs, kept: &kvm_sregs) -> Option<String> {
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
