//! The last words of a guest that panicked.

use core::panic::PanicInfo;

use shared_abi::exit_code;

/// Prints what went wrong and where, and ends the run with [`exit_code::PANICKED`].
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    // Byte by byte: whatever broke, the port still works.
    crate::println_raw!("{info}");
    crate::power::exit(exit_code::PANICKED)
}
