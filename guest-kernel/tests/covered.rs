//! Tests of which `tests/coverage.rs` knows what they reach: the comment of a line says it.
//!
//! Cargo leaves this file out unless asked for it: `cargo test --target x86_64-unknown-none --test covered`.

#![cfg_attr(target_os = "none", no_std, no_main)]

use core::hint::{black_box, spin_loop};

use guest_kernel::{guest_test, println};

guest_kernel::test_main!();

#[inline(never)]
fn choose(way: u32) -> u32 {
    let way = black_box(way); // reached
    if way == 1 {
        // reached above
        println!("the first way"); // reached
        black_box(10) // reached
    } else if way == 2 {
        println!("the second way"); // not reached
        black_box(20) // not reached
    } else {
        black_box(30) // reached
    }
}

/// Compiled for two types, of which one takes each way.
#[inline(never)]
fn is_small<T: Into<u64>>(value: T) -> bool {
    let value: u64 = value.into(); // reached
    if black_box(value) < 10 {
        black_box(true) // reached
    } else {
        black_box(false) // reached
    }
}

#[guest_test(prints = "the first way\n", max_exits = 1)]
fn the_first_way_is_reached() {
    assert_eq!(choose(1), 10); // reached
}

#[guest_test]
fn the_third_way_is_reached() {
    assert_eq!(choose(3), 30); // reached
    assert!(is_small(3u8) && !is_small(300u32)); // reached
}

#[guest_test(ignore)]
fn the_second_way_is_not_asked_for() {
    assert_eq!(choose(2), 20); // not reached
}

#[guest_test(should_panic, prints = "on purpose")]
fn a_panic() {
    println!("before the panic"); // reached
    if black_box(true) {
        panic!("on purpose"); // reached
    }
    println!("after the panic"); // not reached
}

#[guest_test(should_fault)]
fn a_fault() {
    println!("before the fault"); // reached
    // SAFETY: None: this is the crime. Nothing is mapped there, so the read faults.
    black_box(unsafe { black_box(8 as *const u64).read_volatile() }); // reached
    println!("after the fault"); // not reached
}

#[guest_test(timeout_ms = 50)]
fn an_endless_loop() {
    println!("before the loop"); // reached
    while black_box(true) {
        spin_loop(); // reached
    }
    println!("after the loop"); // not reached
}
