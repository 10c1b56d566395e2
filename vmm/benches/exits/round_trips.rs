//! The group `exits`: a round trip of each kind.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Outcome;
use crate::bare::Bare;
use crate::ours::Ours;
use crate::told::Pairs;

const GROUP: &str = "exits";
/// Round trips of one run.
const OFTEN: u32 = 1000;
/// What each kind is called, and what the guest calls it.
const KINDS: [(&str, &str); 5] = [
    ("OUT", "out"),
    ("IN", "in"),
    ("MMIO write", "mmio-write"),
    ("MMIO read", "mmio-read"),
    (HYPERCALL.0, HYPERCALL.1),
];
const HYPERCALL: (&str, &str) = ("hypercall", "calls");

/// Measures each kind beside the bare loop, and the hypercall in two other circumstances.
pub(crate) fn measure(guest: &Path, rounds: u32) -> Outcome<()> {
    for (name, what) in KINDS {
        let mut ours = Ours::build(guest, what, OFTEN)?;
        let mut bare = Bare::build(guest, what, OFTEN)?;
        bare.run()?;
        let pairs = pairs(name, "bare loop", rounds, || ours.run(), || bare.run())?;
        pairs.tell(GROUP, &json!({ "ratio": 1.05 }));
    }
    let (name, what) = HYPERCALL;
    let mut ours = Ours::build(guest, what, OFTEN)?;
    let mut by_ioctl = Ours::build(guest, what, OFTEN)?.forgo_register_sync()?;
    let mut bare = Bare::build(guest, what, OFTEN)?;
    bare.run()?;
    let by_ioctl =
        pairs(&format!("{name}, registers by ioctl"), "bare loop", rounds, || by_ioctl.run(), || bare.run())?;
    by_ioctl.tell(GROUP, &Value::Null);
    let mut watched = Ours::build(guest, what, OFTEN)?;
    watched.check_stats()?;
    let watched =
        pairs(&format!("{name}, --stats"), name, rounds, || watched.run_with_stats(), || ours.run())?;
    watched.tell(GROUP, &Value::Null);
    Ok(())
}

/// Runs both in turns. Who comes first changes, too: the second finds a warmer machine.
fn pairs(
    name: &str,
    limit_name: &'static str,
    rounds: u32,
    mut own: impl FnMut() -> Outcome<Duration>,
    mut limit: impl FnMut() -> Outcome<Duration>,
) -> Outcome<Pairs> {
    let mut pairs = Pairs::new(name, limit_name, rounds);
    for round in 0..rounds {
        let (own, limit) = if round % 2 == 0 {
            let own = own()?;
            (own, limit()?)
        } else {
            let limit = limit()?;
            (own()?, limit)
        };
        pairs.add(own / OFTEN, limit / OFTEN);
    }
    Ok(pairs)
}
