//! What a round trip to the host costs, and what text costs, each beside the limit that was measured in the same round.
//!
//! `cargo xtask bench` builds the guest (`guest-kernel/src/bin/bench.rs`) and runs this, once for its groups. Measurement
//! and limit take turns, round by round; the ratio is made within each round, and the median of the ratios is what counts,
//! for a machine's speed drifts.
//!
//! | group | measurement | its limit |
//! |---|---|---|
//! | `exits` | OUT, IN, MMIO write and read, hypercall | the same guest loop, run by a bare loop around KVM_RUN |
//! | | a hypercall on a host without KVM_CAP_SYNC_REGS | the same |
//! | | a hypercall that is added up by line, as for `--stats` | the hypercall that nobody watches |
//! | `console` | 1 MiB by one hypercall, lines by `println!` | the same guest, and a bare loop that writes as much at each exit |
//! | | a ring that a thread reads | the host's own copy and write of the same bytes |

mod bare;
mod console;
mod ours;
mod pipe;
mod round_trips;
#[path = "../told/mod.rs"]
mod told;

use std::path::PathBuf;

/// What a benchmark gives, or why not.
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let guest = std::env::var_os("DUET_BENCH_GUEST").ok_or("start this by `cargo xtask bench`")?;
    let guest = PathBuf::from(guest);
    let groups = std::env::var("DUET_BENCH_GROUPS").unwrap_or_default();
    let is_wanted = |group| groups.is_empty() || groups.split(',').any(|own| own == group);
    let rounds = told::rounds(told::ROUNDS);
    if is_wanted("exits") {
        round_trips::measure(&guest, rounds)?;
    }
    if is_wanted("console") {
        console::measure(&guest, rounds)?;
    }
    Ok(())
}
