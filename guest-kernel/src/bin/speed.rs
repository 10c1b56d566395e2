//! Computes the same in ring 0 and in ring 3, and tells how long each takes.
//!
//! Where guests run on the CPU, a ring costs nothing, and both take as long. A KVM that interprets ring 0 runs ring 3 on
//! the CPU all the same: there, whoever has much to compute does it in a process. `cargo xtask run speed` tells.

#![cfg_attr(target_os = "none", no_std, no_main)]

use guest_kernel::user::{self, End, Process, Transfer};
use guest_kernel::{entry, println};
use user_library::work::{self, Work};

entry!(main);

fn main() {
    for (number, work) in (0..).zip(Work::ALL) {
        let (result, kernel) = work::timed(work);
        let (result_in_ring_3, program) = in_ring_3(number);
        assert_eq!(result, result_in_ring_3, "both have computed the same");
        let ratio = kernel as f64 / program as f64;
        println!("{work:?}: ring 0 {kernel} cycles, ring 3 {program} cycles, ratio {ratio:.1}");
    }
}

/// The work with this number, done by a process: the result, and how long it took.
fn in_ring_3(number: u64) -> (u64, u64) {
    let (sender, receiver) = user::pipe();
    let process = Process::load(&user::program!("computes")).expect("our build has made it");
    let end = process.with_argument(number).with_sender(sender).run_alone();
    assert_eq!(end, End::Exited(0));

    let mut words = [[0; 8]; 2];
    assert_eq!(receiver.receive(words.as_flattened_mut()), Transfer::Done(16));
    let [result, duration] = words.map(u64::from_le_bytes);
    (result, duration)
}
