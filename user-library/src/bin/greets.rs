//! Says hello from ring 3, and asks the kernel for its number by both ways there are.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::abi::SystemCall;
use user_library::calls::{Way, call_by, process_id};
use user_library::{entry, println};

entry!(main);

fn main() {
    println!("hello from ring 3: I am process {}", process_id());
    let id = call_by(Way::Interrupt, SystemCall::ProcessId as u64, [0; 3]);
    println!("asked by `int 0x80`, the kernel says {id:?}");
    println!("asked for what it does not know, it says {:?}", call_by(Way::Syscall, 1000, [0; 3]));
}
