//! The user library: what a program in ring 3 knows of its kernel.
//!
//! A program has no device, no port and no memory but its own. All else it asks for, by the [system calls](calls) whose
//! numbers are in [`abi`]. It is one file in `user-library/src/bin`:
//!
//! ```ignore
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! use user_library::{entry, println};
//!
//! entry!(main);
//!
//! fn main() {
//!     println!("hello from ring 3");
//! }
//! ```
//!
//! `guest-kernel/build.rs` compiles it and links it by `user-library/link.ld`; the kernel takes it in by
//! `user::program!("NAME")`. The kernel's side of every call is `guest-kernel/src/user/calls.rs`.
//!
//! Floating point is turned off in this machine, for programs as for the kernel; the compiler makes none.

#![cfg_attr(target_os = "none", no_std)]

pub mod abi;
pub mod calls;
pub mod console;
pub mod crimes;
pub mod work;

/// Names the function that a program starts with: `entry!(main);`. When it returns, the process ends with exit code 0.
#[macro_export]
macro_rules! entry {
    (main) => {
        #[cfg(target_os = "none")]
        const _: () = {
            /// The first instruction of the program. RSP is as a call would have left it.
            // The name is `_start` for the linker; no other item has it, or linking fails.
            #[unsafe(no_mangle)]
            extern "C" fn _start() -> ! {
                main();
                $crate::calls::exit(0)
            }

            #[panic_handler]
            fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
                $crate::println!("{info}");
                $crate::calls::exit($crate::abi::PANICKED)
            }
        };
    };
}

/// What the host build says when code needs the kernel.
pub const NOT_IN_A_PROCESS: &str =
    "this program runs on the guest kernel only: start it with `cargo xtask run 11_user_mode`";
