//! The guest's arguments: what was typed behind `--`.
//!
//! The host writes them at [`layout::ARGUMENTS`](shared_abi::layout::ARGUMENTS), each with a NUL behind it
//! (`vmm/src/boot/boot_info.rs`).

use crate::boot::boot_info;

/// The arguments, in order.
pub fn arguments() -> impl Iterator<Item = &'static str> {
    let place = boot_info().arguments;
    // SAFETY: The host wrote this many bytes there before the first instruction, and mapped the pages read-only.
    let bytes = unsafe { core::slice::from_raw_parts(place.start as *const u8, place.size() as usize) };
    split(bytes)
}

/// Cuts `bytes` at their NULs. What is not UTF-8, which the host never writes, becomes an empty argument.
fn split(bytes: &[u8]) -> impl Iterator<Item = &str> {
    let terminated = bytes.strip_suffix(&[0]).map(|bytes| bytes.split(|&byte| byte == 0));
    terminated.into_iter().flatten().map(|argument| core::str::from_utf8(argument).unwrap_or_default())
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::split;

    #[test]
    fn arguments_end_with_a_nul_each() {
        assert_eq!(split(b"").count(), 0);
        assert_eq!(split(b"\0").collect::<Vec<_>>(), [""]);
        assert_eq!(split(b"one\0\0two words\0").collect::<Vec<_>>(), ["one", "", "two words"]);
    }
}
