//! Whole-system tests: a real guest in a real VM.
//!
//! They need /dev/kvm and the guest's target, and fail without them. One suite: `cargo test --package tests boot::`.

#![cfg(test)]

mod add_a_hypercall;
mod autopsy;
mod bench;
mod boot;
mod budgets;
mod console;
mod core_file;
mod coverage;
mod cpus;
mod documents;
mod embedding;
mod ends;
mod escapes;
mod exits;
mod explain;
mod far_ram;
mod faults;
mod features;
mod files;
mod floor;
mod foreign_images;
mod fuzzing;
mod gallery;
mod gdb;
mod gdb_protocol;
mod guest_tests;
mod harness;
mod hypercall_properties;
mod hypercalls;
mod image_fuzz;
mod image_loading;
mod images;
mod interrupts;
mod invariants;
mod ledger;
mod lessons;
mod map;
mod modes;
mod page_rights;
mod page_tables;
mod report;
mod report_page;
mod second_kvm;
mod snapshot_costs;
mod snapshot_files;
mod snapshots;
mod stopping;
mod streams;
mod timeline;
mod user_mode;
mod walk;
mod walk32;
mod write_a_program;
mod xtask_commands;
