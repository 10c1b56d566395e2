//! Tests that fail, each in its own way: `tests/guest_tests.rs` looks whether they do.
//!
//! Cargo leaves this file out unless asked for it: `cargo test --target x86_64-unknown-none --test failing`.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::black_box;

use guest_kernel::cpu::{idt, provoke};
use guest_kernel::{Gva, guest_test, power, println};

guest_kernel::test_main!();

#[guest_test]
fn wrong_assertion() {
    println!("so far so good");
    assert_eq!(1 + 1, 3);
}

#[guest_test(should_panic)]
fn forgotten_panic() {}

#[guest_test(should_panic, prints = "this one")]
fn other_panic() {
    panic!("that one");
}

#[guest_test]
fn returned_error() -> Result<(), &'static str> {
    Err("a reason")
}

#[guest_test(exit_code = 7)]
fn wrong_exit_code() {
    power::exit(8);
}

#[guest_test(max_exits = 1)]
fn too_many_exits() {
    println!("one");
    println!("two");
}

#[guest_test(max_instructions = 100)]
fn too_many_instructions() {
    for number in 0..100 {
        black_box(number);
    }
}

#[guest_test(timeout_ms = 50)]
fn endless_loop() {
    loop {
        core::hint::spin_loop();
    }
}

#[guest_test(should_fault)]
fn survived_fault() {}

#[guest_test]
fn unwanted_fault() {
    let _ = provoke::read(Gva(black_box(8)));
}

#[guest_test(should_fault = PageFault)]
fn other_fault() {
    let _ = provoke::read(Gva(black_box(1 << 47)));
}

#[guest_test(should_fault = PageFault, address = 0x8)]
fn fault_elsewhere() {
    let _ = provoke::read(Gva(black_box(0x10)));
}

#[guest_test(should_fault = InvalidOpcode)]
fn triple_fault() {
    idt::unload();
    provoke::invalid_opcode();
}

#[guest_test(ignore)]
fn ignored_failure() {
    panic!("asked for");
}

#[guest_test]
fn the_one_that_holds() {}
