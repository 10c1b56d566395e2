//! The group `console`: text out of the guest, by the ways that take few exits.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::Outcome;
use crate::bare::Bare;
use crate::ours::Ours;
use crate::pipe::Drain;
use crate::told::{Pairs, measured, progress};

const GROUP: &str = "console";
/// Pieces that one run puts into the ring, and bytes of a piece.
const PIECES: u32 = 4;
const PIECE: usize = 4096;

/// Text that the guest prints by one exit.
struct Text {
    name: &'static str,
    /// What the guest calls it.
    what: &'static str,
    /// How often it is printed in one run.
    often: u32,
    size: usize,
}

const TEXTS: [Text; 2] = [
    Text { name: "1 MiB by one hypercall", what: "mebibytes", often: 4, size: 1 << 20 },
    Text { name: "a line by println!", what: "lines", often: 50, size: 64 },
];

/// Measures each way beside its limit. Both write to pipes that are emptied.
pub(crate) fn measure(guest: &Path, rounds: u32) -> Outcome<()> {
    TEXTS.iter().try_for_each(|text| by_hypercall(guest, rounds, text))?;
    through_a_ring(guest, rounds)
}

/// One hypercall a text, beside the same guest in a bare loop that writes as much at each exit.
fn by_hypercall(guest: &Path, rounds: u32, text: &Text) -> Outcome<()> {
    let &Text { name, what, often, size } = text;
    let (drain, writer) = Drain::start()?;
    let (bare_drain, mut bare_writer) = Drain::start()?;
    let mut ours = Ours::build_with_console(guest, what, often, writer)?;
    let mut bare = Bare::build(guest, what, often)?;
    let bytes = vec![b'.'; size];
    let mut print = || Ok(bare_writer.write_all(&bytes)?);
    bare.run_printing(&mut print)?;
    let mut pairs = Pairs::new(name, "bare loop that writes", rounds);
    for _ in 0..rounds {
        pairs.add(ours.run()? / often, bare.run_printing(&mut print)? / often);
    }
    drop((ours, bare_writer));
    let total = u64::from(1 + rounds) * u64::from(often) * size as u64;
    drain.expect(total)?;
    bare_drain.expect(total)?;
    pairs.tell(GROUP, &Value::Null);
    Ok(())
}

/// Bytes a second through a ring, beside the host's own copy and write. A KVM that interprets the kernel is measured here:
/// it copies the bytes into the ring one by one.
fn through_a_ring(guest: &Path, rounds: u32) -> Outcome<()> {
    let (drain, writer) = Drain::start()?;
    let (own_drain, mut own_writer) = Drain::start()?;
    let mut ours = Ours::build_with_console(guest, "ring", PIECES, writer)?;
    let (text, mut copy) = ([b'.'; PIECE], [0; PIECE]);
    let (name, mut samples, mut limit) = ("through a ring", Vec::new(), Vec::new());
    let bytes = u64::from(PIECES) * PIECE as u64;
    let per_second = |elapsed: Duration| bytes as f64 / elapsed.as_secs_f64();
    for round in 1..=rounds {
        samples.push(per_second(ours.run()?));
        limit.push(per_second(time(|| {
            (0..PIECES).try_for_each(|_| {
                copy.copy_from_slice(std::hint::black_box(&text));
                own_writer.write_all(std::hint::black_box(&copy))
            })
        })?));
        progress(name, round, rounds);
    }
    drop((ours, own_writer));
    drain.expect(bytes * u64::from(1 + rounds))?;
    own_drain.expect(bytes * u64::from(rounds))?;
    measured(json!({
        "group": GROUP,
        "name": name,
        "unit": "bytes_per_second",
        "samples": samples,
        "limit": { "name": "host's own copy and write", "samples": limit },
    }));
    Ok(())
}

/// How long something takes.
fn time(work: impl FnOnce() -> std::io::Result<()>) -> Outcome<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}
