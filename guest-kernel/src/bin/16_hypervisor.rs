//! Runs a guest inside this guest: the kernel is a hypervisor itself, by AMD's SVM.
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
//! `guest-kernel/src/cpu/svm/inner.rs` the guest in the guest. Host: it sees nothing of all this but the lines that are
//! printed. Each `vmrun` here is an exit to KVM, which runs the inner guest in its place.
//!
//! # Exercises
//!
//! 1. Count how long an exit takes here, and compare with `cargo xtask bench`: each is several exits of the machine.
//! 2. Take `Intercepts::PORTS` out of the VMCB. Who prints now, and where does `inner>` go?
//! 3. Have the inner guest execute `ud2` instead of `vmmcall`. It has no IDT: which EXITCODE is a shutdown?
//! 4. Answer an `in` from port 0xE9: `EXITINFO1` bit 0 says that it is one, and RAX is in the VMCB.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::cpu::svm::{self, Exit, Hypervisor};
use guest_kernel::{entry, print, println};
use shared_abi::ports;

entry!(main);

fn main() {
    print!("does the CPU offer this kernel SVM? ");
    if let Err(why) = svm::offered() {
        println!("no: {why}");
        return;
    }
    println!("yes");
    match Hypervisor::start() {
        Ok(mut hypervisor) => run(&mut hypervisor),
        Err(why) => println!("and yet it does not start: {why}"),
    }
}

fn run(inner: &mut Hypervisor) {
    let mut outs = 0;
    print!("inner> ");
    loop {
        match inner.enter_guest() {
            Exit::PioOut { port: ports::DEBUG_CONSOLE, value } => {
                outs += 1;
                print!("{}", char::from(value as u8));
            }
            Exit::Vmmcall => break,
            other => {
                println!("\nit left by {other:x?}, which this hypervisor has no answer to");
                return;
            }
        }
    }
    println!("it left {outs} times by an OUT, and then by VMMCALL, with {} in RAX", inner.rax());
}
