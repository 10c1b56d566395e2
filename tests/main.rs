//! Whole-system tests: a real guest in a real VM.
//!
//! They need /dev/kvm and the guest's target, and fail without them. One suite: `cargo test --package tests boot::`.

#![cfg(test)]

mod boot;
mod console;
mod embedding;
mod ends;
mod faults;
mod harness;
mod image_fuzz;
mod images;
mod page_tables;
mod stopping;
mod xtask_commands;
