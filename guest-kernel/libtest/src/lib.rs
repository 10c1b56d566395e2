//! The crate `test` of a target that has none.
//!
//! `cargo test` compiles with `rustc --test`, which collects the functions marked `#[test]` and writes a `main` that
//! hands them to `test::test_main_static`. That crate is libtest, it needs `std`, and `x86_64-unknown-none` does not
//! have it: "can't find crate for `test`". But nothing says whose crate `test` is. `guest-kernel` names this one so,
//! for that target only, and then plain `cargo test --target x86_64-unknown-none` works on stable.
//!
//! The `main` is never called: a guest starts at `_start`, and its tests are found in another way (`guest-kernel/src/
//! testing.rs`). A function marked `#[test]` does not compile for the guest, which is right, as it would never run:
//! there, tests are marked `#[guest_test]`.

#![no_std]

/// What the `main` of `rustc --test` calls, with the tests it has collected: none.
pub fn test_main_static(_tests: &[&Never]) {}

/// A test for the host, which is none for the guest.
#[derive(Clone, Copy, Debug)]
pub enum Never {}
