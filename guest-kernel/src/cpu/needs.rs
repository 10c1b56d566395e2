//! What this kernel asks of its machine: the note, and how a function comes to have it (`shared-abi/src/needs.rs`).

/// The note. The linker keeps it if a function that it keeps refers to it: it is in no section that is always kept.
#[cfg(target_os = "none")]
#[unsafe(link_section = ".duet.needs")]
static INTERRUPTS: shared_abi::needs::NeedsNote =
    shared_abi::needs::NeedsNote::new(shared_abi::needs::INTERRUPTS);

/// Asks for interrupt controllers, by being called anywhere. It executes nothing: the reference is a relocation that
/// relocates nothing, but leads the linker to the note.
#[cfg(target_os = "none")]
#[inline(always)]
pub(crate) fn interrupts() {
    // SAFETY: No instruction is emitted.
    unsafe {
        core::arch::asm!(
            ".reloc ., R_X86_64_NONE, {note}",
            note = sym INTERRUPTS,
            options(nomem, nostack, preserves_flags),
        );
    }
}

/// Asks for interrupt controllers; on the host there is no machine.
#[cfg(not(target_os = "none"))]
pub(crate) fn interrupts() {}
