//! The commands around Duet: `cargo xtask COMMAND`.
//!
//! This crate builds guests and the VMM by calling cargo, starts them, and knows no crate that runs in them. [`guest`] is the
//! one place that knows how a guest is built; the whole-system tests use it too.

pub mod bench;
mod boot;
pub mod ci;
pub mod coverage;
pub mod diff_exits;
pub mod doctor;
pub mod explain;
pub mod fuzz;
pub mod gdb;
pub mod guest;
pub mod lab;
pub mod layout;
pub mod list;
pub mod modes;
pub mod new;
pub mod ptrace;
pub mod qemu;
pub mod release;
mod request;
pub mod run;
pub mod target;
pub mod test;
pub mod tour;
pub mod workspace;
