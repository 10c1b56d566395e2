//! The guest kernel: what runs inside the machine that the VMM makes.
//!
//! Boot order: the VMM enters `_start` ([`boot`]) with a stack, identity-mapped memory and long mode on; `_start`
//! calls Rust, which calls the program's `main`; when `main` returns the guest ends with exit code 0.
//!
//! | module | what it is |
//! |---|---|
//! | [`boot`] | the first instruction in the machine, then Rust |
//! | [`arguments`](mod@arguments) | what was typed behind `--` |
//! | [`console`] | `println!` in one exit; `println_raw!` through port 0xE9 |
//! | [`hypercall`] | asking the host |
//! | [`channel`] | other ways out: MMIO, coalesced writes, rings |
//! | [`mark`] | named spans, for timelines of a run |
//! | [`device_memory`] | makes the addresses of devices usable |
//! | [`exceptions`] | what the CPU cannot do, and who handles it |
//! | [`interrupts`] | what interrupts the CPU, and who handles it |
//! | [`time`] | `Instant`, `sleep`, alarms |
//! | [`task`] | `async` functions that wait for several things at once |
//! | [`files`] | the host's files, as far as granted |
//! | [`io`] | `Read`, `Write`, `Seek`, as in `std` |
//! | [`memory`] | free frames, page tables, the heap, stacks |
//! | [`prelude`] | `Vec`, `String`, `format!` and the like |
//! | [`i8080`] | an 8080 in software, and programs for it |
//! | [`power`] | how a guest ends |
//! | [`cpu`] | one hardware thing a file; the assembly |
//! | [`smp`] | more CPUs: starting them, giving them work |
//! | [`snapshot`] | the machine kept as it is |
//! | [`sync`] | what one CPU has at a time, and where several meet |
//! | [`user`] | programs in ring 3: processes, system calls, pipes |
//! | [`testing`] | `#[guest_test]`: a test in a machine of its own |
//! | `panic` | the last words |
//!
//! A program is one file in `src/bin`:
//!
//! ```ignore-none
//! #![cfg_attr(target_os = "none", no_std, no_main)]
//! use guest_kernel::{entry, println};
//!
//! entry!(main);
//!
//! fn main() {
//! # if cfg!(target_os = "none") {
//!     println!("hello from the guest");
//! # }
//! }
//! ```
//!
//! On the host (`cargo test`, an editor) this crate builds with `std`: pure logic is tested there, and what only
//! exists in the machine panics with a sentence that says so.

#![cfg_attr(target_os = "none", no_std)]
#![cfg_attr(all(test, target_os = "none"), no_main)]

// So that what macros write has the same name in here as elsewhere.
extern crate self as guest_kernel;

/// What lives on the [heap](memory::heap): `Vec`, `String`, `Box`, `format!`, `BTreeMap`.
pub extern crate alloc;

pub mod arguments;
pub mod boot;
pub mod channel;
pub mod console;
pub mod cpu;
pub mod device_memory;
pub mod exceptions;
pub mod files;
pub mod hypercall;
pub mod i8080;
pub mod interrupts;
pub mod io;
pub mod mark;
pub mod memory;
#[cfg(target_os = "none")]
mod panic;
pub mod power;
pub mod prelude;
pub mod smp;
pub mod snapshot;
pub mod sync;
pub mod task;
pub mod testing;
pub mod time;
pub mod user;

pub use arguments::arguments;
pub use boot::boot_info;
pub use guest_kernel_macros::guest_test;
pub use shared_abi::{BootInfo, Gpa, Gva};

/// Names the function that a program starts with: `entry!(main);`.
///
/// In the machine it makes the symbol that `_start` calls. On the host it keeps the program a valid program, so
/// that editors and `cargo build --workspace` see nothing unusual. In an image of [tests](testing) the program does not
/// run, and one of its tests does.
#[macro_export]
macro_rules! entry {
    (main) => {
        $crate::entry!(@symbol main);
    };
    ($main:path) => {
        $crate::entry!(@symbol $main);

        #[cfg(not(target_os = "none"))]
        fn main() {
            $main()
        }
    };
    (@symbol $main:path) => {
        $crate::test_main!();

        #[cfg(all(target_os = "none", test))]
        const _: fn() = $main;

        #[cfg(all(target_os = "none", not(test)))]
        const _: () = {
            // The name is `guest_main` for the linker; no other item has it, or linking fails.
            #[unsafe(no_mangle)]
            extern "C" fn guest_main() {
                let main: fn() = $main;
                main();
            }
        };
    };
}

// The tests in this library's own modules.
test_main!();
