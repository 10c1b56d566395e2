//! Runs a guest inside this guest: the kernel is a hypervisor itself, by AMD's SVM or Intel's VMX.
//!
//! # What you will see
//!
//! ```console
//! does the CPU offer this kernel SVM? …
//! ```
//!
//! On a KVM that lets its guests be hosts, such as `kvm_amd` with `nested=1`, the rest is
//!
//! ```text
//! does the CPU offer this kernel SVM? yes
//! inner> hello from the guest in the guest
//! it left 34 times by an OUT, and then by VMMCALL, with 42 in RAX
//! ```
//!
//! `cargo xtask run --kvm qemu 16_hypervisor` shows that anywhere.
//!
//! # Where to look
//!
//! The loop below is the VMM's (`vmm/src/run_loop.rs`), one level down: enter, look why the guest came out, answer, again.
//! Guest: `guest-kernel/src/cpu/svm/vmcb.rs` draws the page of memory that is a virtual CPU, field by field;
//! `guest-kernel/src/cpu/svm/run.rs` has the instruction `vmrun` and what stands around it, and
//! `guest-kernel/src/cpu/inner.rs` the guest in the guest. `guest-kernel/src/cpu/vmx/mod.rs` does it Intel's way. Host: it sees nothing of all this but the lines that are
//! printed. Each `vmrun` here is an exit to KVM, which runs the inner guest in its place.
//!
//! # Exercises
//!
//! 1. Count how long an exit takes here, and compare with `cargo xtask bench`: each is several exits of the machine.
//! 2. Take `Intercepts::PORTS` out of the VMCB. Who prints now, and where does `inner>` go?
//! 3. Have the inner guest execute `ud2` instead of `vmmcall`. It has no IDT: which EXITCODE is a shutdown?
//! 4. Answer an `in` from port 0xE9: `EXITINFO1` bit 0 says that it is one, and RAX is in the VMCB.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::cpu::inner::Exit;
use guest_kernel::cpu::{svm, vmx};
use guest_kernel::{entry, print, println};
use shared_abi::ports;

entry!(main);

fn main() {
    print!("does the CPU offer this kernel SVM? ");
    match svm::offered() {
        Ok(()) => match svm::Hypervisor::start() {
            Ok(mut hypervisor) => {
                println!("yes");
                run(|| hypervisor.enter_guest());
                println!("VMMCALL, with {} in RAX", hypervisor.rax());
            }
            Err(why) => println!("yes, and yet it does not start: {why}"),
        },
        Err(why) => {
            println!("no: {why}");
            by_vmx();
        }
    }
}

/// The same by Intel's means; not seen working yet.
fn by_vmx() {
    print!("does it offer VMX? ");
    match vmx::offered().and_then(|()| vmx::Hypervisor::start()) {
        Ok(mut hypervisor) => {
            println!("yes");
            run(|| hypervisor.enter_guest());
            println!("VMCALL, with {} in RAX", hypervisor.rax());
        }
        Err(why) => println!("no: {why}"),
    }
}

/// Runs the inner guest until it calls, or does what this hypervisor has no answer to.
fn run(mut enter_guest: impl FnMut() -> Exit) {
    let mut outs = 0;
    print!("inner> ");
    loop {
        match enter_guest() {
            Exit::PioOut { port: ports::DEBUG_CONSOLE, value } => {
                outs += 1;
                print!("{}", char::from(value as u8));
            }
            Exit::Call => break print!("it left {outs} times by an OUT, and then by "),
            other => {
                break print!("\nit left by {other:x?}, which this hypervisor has no answer to, not by ");
            }
        }
    }
}
