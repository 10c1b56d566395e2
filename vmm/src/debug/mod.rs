//! Debugging: what a guest was doing, told from its registers, its memory and its image.
//!
//! Everything here looks from outside, at a guest that does not run. The guest pays nothing for it, and needs to be no
//! friend: registers and memory may hold anything.

mod cpu_state;
pub(crate) mod dwarf;
mod symbols;

pub use cpu_state::CpuState;
pub use symbols::{Detail, Frame, Symbols};
