//! How the costs of guest memory grow: with what the guest touches, with what a snapshot holds, with RAM.
//!
//! `cargo xtask bench memory` builds the guest and runs this. All points of a curve take turns, each with its own limit, and
//! the ratio is made within each round. Starts of whole processes are measured in `xtask/src/bench/memory.rs`.
//!
//! | what grows | measured | its limit |
//! |---|---|---|
//! | pages touched | the guest's first write to each, per page | the host's first write to each of such a mapping, and the guest's second |
//! | | the host's memory that the machine has then | the bytes touched |
//! | | the end of the machine | the end of that mapping |
//! | | a snapshot | the same bytes written to a file in memory |
//! | | that snapshot as the bytes of a file | a copy of the same bytes |
//! | | a snapshot of those bytes | the same bytes written to a file in memory |
//! | | going back to a snapshot in place | a copy of the same pages |
//! | | a new machine from a snapshot | one from the smallest snapshot |
//! | guest RAM | the same | one from a machine of 4 MiB |

mod curve;
mod guest;
mod snapshots;
#[expect(dead_code, reason = "a point of a curve is told otherwise than a pair")]
#[path = "../told/mod.rs"]
mod told;
mod touch;

use guest::{Guest, Outcome};

fn main() -> Outcome<()> {
    let guest = Guest::built()?;
    touch::measure(&guest)?;
    snapshots::measure(&guest)
}
