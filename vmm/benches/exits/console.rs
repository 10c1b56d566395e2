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
const MEBIBYTE: usize = 1 << 20;
/// Mebibytes of one run.
const MEBIBYTES: u32 = 4;
/// Lines of one run, and bytes of a line.
const LINES: u32 = 50;
const LINE: usize = 64;
/// Pieces that one run puts into the ring, and bytes of a piece.
const PIECES: u32 = 4;
const PIECE: usize = 4096;

/// Measures each way beside its limit. Both write to pipes that are emptied.
pub(crate) fn measure(guest: &Path, rounds: u32) -> Outcome<()> {
    mebibytes(guest, rounds)?;
    lines(guest, rounds)?;
    ring(guest, rounds)
}

/// One hypercall a mebibyte, beside the host's own write and an exit that does nothing.
fn mebibytes(guest: &Path, rounds: u32) -> Outcome<()> {
    const EXITS: u32 = 100;
    let (drain, writer) = Drain::start()?;
    let (own_drain, mut own_writer) = Drain::start()?;
    let mut ours = Ours::build_with_console(guest, "mebibytes", MEBIBYTES, writer)?;
    let mut bare = Bare::build(guest, "out", EXITS)?;
    bare.run()?;
    let text = vec![b'.'; MEBIBYTE];
    let mut pairs = Pairs::new("1 MiB by one hypercall", "host's own write + exit", rounds);
    for _ in 0..rounds {
        let own = ours.run()? / MEBIBYTES;
        let written = time(|| (0..MEBIBYTES).try_for_each(|_| own_writer.write_all(&text)))?;
        pairs.add(own, written / MEBIBYTES + bare.run()? / EXITS);
    }
    drop((ours, own_writer));
    let bytes = |runs: u32| u64::from(runs) * u64::from(MEBIBYTES) * MEBIBYTE as u64;
    drain.expect(bytes(1 + rounds))?;
    own_drain.expect(bytes(rounds))?;
    pairs.tell(GROUP, &Value::Null);
    Ok(())
}

/// What `println!` takes, beside the same guest in a bare loop that writes a line at each exit.
fn lines(guest: &Path, rounds: u32) -> Outcome<()> {
    let (drain, writer) = Drain::start()?;
    let (own_drain, mut own_writer) = Drain::start()?;
    let mut ours = Ours::build_with_console(guest, "lines", LINES, writer)?;
    let mut bare = Bare::build(guest, "lines", LINES)?;
    let mut print = || Ok(own_writer.write_all(&[b'.'; LINE])?);
    bare.run_printing(&mut print)?;
    let mut pairs = Pairs::new("a line by println!", "bare loop that writes", rounds);
    for _ in 0..rounds {
        pairs.add(ours.run()? / LINES, bare.run_printing(&mut print)? / LINES);
    }
    drop((ours, own_writer));
    let bytes = u64::from(1 + rounds) * u64::from(LINES) * LINE as u64;
    drain.expect(bytes)?;
    own_drain.expect(bytes)?;
    pairs.tell(GROUP, &Value::Null);
    Ok(())
}

/// Bytes a second through a ring, beside the host's own copy and write. A KVM that interprets the kernel is measured here:
/// it copies the bytes into the ring one by one.
fn ring(guest: &Path, rounds: u32) -> Outcome<()> {
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
