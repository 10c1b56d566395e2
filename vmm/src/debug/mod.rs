//! Debugging: what a guest was doing, told from its registers, its memory and its image.
//!
//! Everything here looks from outside, at a guest that does not run. The guest pays nothing for it, and needs to be no
//! friend: registers and memory may hold anything.

pub mod autopsy;
mod backtrace;
pub(crate) mod bystanders;
mod core_file;
mod cpu_state;
pub mod diagnosis;
pub(crate) mod dwarf;
pub mod exception;
pub mod gdb;
pub mod instruction;
pub mod landmark;
pub mod mode;
pub(crate) mod repeat;
mod symbols;

pub use backtrace::{Backtrace, BacktraceFrame};
pub use bystanders::{Bystander, Doing};
pub use core_file::{CoreFile, Remark};
pub use cpu_state::CpuState;
pub use diagnosis::{Diagnosis, Evidence};
pub use symbols::{Detail, Frame, Symbols};
