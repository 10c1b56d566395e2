//! What `std` gives to every program without being asked: `use guest_kernel::prelude::*;`.
//!
//! Not `println!`, which the compiler for the host would find twice.

pub use alloc::borrow::ToOwned;
pub use alloc::boxed::Box;
pub use alloc::string::{String, ToString};
pub use alloc::vec::Vec;
pub use alloc::{format, vec};
