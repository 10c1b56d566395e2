//! In-guest tests: an image that holds tests, each run in a machine of its own.
//!
//! 1. [`image`]: the list of tests, read from the ELF file. No guest runs for that.
//! 2. [`run`](mod@run): one test in a fresh machine.
//!    When it has a budget of instructions they are counted (`budget.rs`).
//! 3. [`verdict`]: what the run shows, held against what the test promises.
//! 4. [`junit`]: all verdicts as a file for CI.
//!
//! `vmm test` (`vmm/src/commands/test.rs`) puts libtest's options and output around it. Guest side:
//! `guest-kernel/src/testing.rs`.

mod budget;
pub mod image;
pub mod junit;
pub mod run;
pub mod verdict;

pub use image::{End, GuestTest, TestImage, TestListError};
pub use run::{Options, run, run_covered};
pub use verdict::Verdict;
