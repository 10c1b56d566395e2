//! `repe scasq`: a search in words, by one instruction.
//!
//! A page table has 512 entries, of which few are used, and whoever frees one looks for these. Where a KVM interprets the
//! kernel a loop over them costs milliseconds; a string instruction is decoded once (Intel SDM vol. 2B, SCAS).

use core::sync::atomic::AtomicU64;

/// The place of the first word that is not 0.
#[cfg(target_os = "none")]
#[must_use]
pub fn first_nonzero(words: &[AtomicU64]) -> Option<usize> {
    if words.is_empty() {
        return None;
    }
    let (end, is_zero): (*const AtomicU64, u8);
    // SAFETY: RDI and RCX describe `words`, which the instruction only reads; aligned words are read whole, as atomics
    // are. It stops behind the first that differs from RAX, or behind the last. The direction flag is clear, as the ABI
    // asks at every call (System V AMD64 ABI, 3.2.1).
    unsafe {
        core::arch::asm!(
            "repe scasq",
            "sete {is_zero}",
            is_zero = out(reg_byte) is_zero,
            inout("rcx") words.len() => _,
            inout("rdi") words.as_ptr() => end,
            in("rax") 0_u64,
            options(nostack, readonly),
        );
    }
    let behind = (end.addr() - words.as_ptr().addr()) / size_of::<AtomicU64>();
    (is_zero == 0).then(|| behind - 1)
}

/// The place of the first word that is not 0.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn first_nonzero(words: &[AtomicU64]) -> Option<usize> {
    words.iter().position(|word| word.load(core::sync::atomic::Ordering::Relaxed) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_test;

    #[guest_test]
    fn the_first_word_that_is_not_zero_is_found() {
        let words = [0, 0, 7, 0, 1].map(AtomicU64::new);
        assert_eq!(first_nonzero(&words), Some(2));
        assert_eq!(first_nonzero(&words[3..]), Some(1));
        assert_eq!(first_nonzero(&words[2..3]), Some(0));
        assert_eq!(first_nonzero(&words[..2]), None);
        assert_eq!(first_nonzero(&words[..0]), None);
    }
}
