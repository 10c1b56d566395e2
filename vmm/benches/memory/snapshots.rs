//! Snapshots by what they hold: taken, written, read, gone back to, and gone on from by new machines.

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;

use vmm::{Backing, Snapshot, Vm};

use crate::curve::{Axis, Curve, RAM, TOUCHED};
use crate::guest::{Guest, Outcome, PAGE, one_pass, surroundings, timed};
use crate::told::{progress, rounds};

/// RAM of the machines whose RAM does not grow.
const RAM_SIZE: u64 = 128 << 20;
/// Pages touched before a snapshot is taken.
const KEPT: [u64; 4] = [16, 256, 4096, 16384];
/// Pages touched before a machine goes back.
const REVERTED: [u64; 7] = [1, 4, 16, 64, 256, 1024, 4096];
/// RAM of the machines whose RAM grows. The image of the benchmarks has a mebibyte of text and does not fit into 2 MiB.
const SIZES: [u64; 6] = [4 << 20, 16 << 20, 128 << 20, 1 << 30, 8 << 30, 64 << 30];
/// Rounds of what takes up to a fifth of a second.
const FEW: u32 = 10;
/// Rounds of what takes milliseconds.
const MANY: u32 = 100;

/// Measures all.
pub(crate) fn measure(guest: &Guest) -> Outcome<()> {
    kept(guest)?;
    reverted(guest)?;
    let of_touched = |pages| Ok((pages * PAGE, touched(guest, pages)?.snapshot()?));
    spawned("new machine by its snapshot", TOUCHED, "the smallest snapshot's", &every(&KEPT, of_touched)?)?;
    let of_size = |ram| Ok((ram, guest.machine(ram, Backing::default(), 1)?.snapshot()?));
    spawned("new machine by its RAM", RAM, "the smallest machine's", &every(&SIZES, of_size)?)
}

fn every<T>(points: &[u64], make: impl Fn(u64) -> Outcome<T>) -> Outcome<Vec<T>> {
    points.iter().map(|point| make(*point)).collect()
}

/// A machine that has touched `pages` pages.
fn touched(guest: &Guest, pages: u64) -> Outcome<Vm> {
    let mut vm = guest.machine(RAM_SIZE, Backing::default(), pages)?;
    one_pass(&mut vm)?;
    Ok(vm)
}

/// Taken of machines that have touched more and more; written, and read.
fn kept(guest: &Guest) -> Outcome<()> {
    let mut taken = Curve::of_time("snapshot taken", TOUCHED, "a file in memory");
    let mut written = Curve::of_time("snapshot written", TOUCHED, "a copy");
    let mut read = Curve::of_time("snapshot read", TOUCHED, "a file in memory");
    let rounds = rounds(FEW);
    for round in 0..rounds {
        for pages in KEPT {
            let mut vm = touched(guest, pages)?;
            let (snapshot, own) = timed(|| Ok(vm.snapshot()?))?;
            let bytes = vec![1_u8; snapshot.ram_bytes() as usize];
            let (_, in_memory) = timed(|| Ok(file_in_memory()?.write_all(&bytes)?))?;
            taken.add(pages * PAGE, own, in_memory);

            let mut file = Vec::with_capacity(bytes.len() * 2);
            let (_, own) = timed(|| Ok(snapshot.write_to(&mut file)?))?;
            let (_, limit) = timed(|| Ok(bytes.clone()))?;
            written.add(pages * PAGE, own, limit);

            let (_, own) = timed(|| Ok(Snapshot::read_from(&mut file.as_slice(), file.len() as u64)?))?;
            read.add(pages * PAGE, own, in_memory);
        }
        progress("snapshot taken, written, read", round + 1, rounds);
    }
    [taken, written, read].into_iter().for_each(Curve::tell);
    Ok(())
}

/// A file that is on no disk.
fn file_in_memory() -> Outcome<File> {
    // SAFETY: The name ends with a NUL.
    let fd = unsafe { libc::memfd_create(c"limit".as_ptr(), libc::MFD_CLOEXEC) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    // SAFETY: The descriptor is new, so nobody else owns it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// Machines that go back after they have touched more and more.
fn reverted(guest: &Guest) -> Outcome<()> {
    let mut curve = Curve::of_time("back in place", TOUCHED, "a copy of the pages");
    let mut machines = every(&REVERTED, |pages| {
        let mut vm = guest.machine(RAM_SIZE, Backing::default(), pages)?;
        let snapshot = vm.snapshot()?;
        let size = (pages * PAGE) as usize;
        Ok((vm, snapshot, vec![1_u8; size], vec![2_u8; size]))
    })?;
    let rounds = rounds(MANY);
    for round in 0..rounds {
        for (vm, snapshot, from, to) in &mut machines {
            one_pass(vm)?;
            let ((), own) = timed(|| Ok(vm.restore(snapshot)?))?;
            let ((), limit) = timed(|| {
                to.copy_from_slice(from);
                Ok(())
            })?;
            curve.add(from.len() as u64, own, limit);
        }
        progress("back in place", round + 1, rounds);
    }
    curve.tell();
    Ok(())
}

/// New machines from each of `snapshots`. The first is the limit of the others.
fn spawned(
    name: &'static str,
    axis: Axis,
    limit_name: &'static str,
    snapshots: &[(u64, Snapshot)],
) -> Outcome<()> {
    let mut curve = Curve::of_time(name, axis, limit_name);
    let rounds = rounds(MANY);
    for round in 0..rounds {
        let mut limit = None;
        for (at, snapshot) in snapshots {
            let (machine, own) = timed(|| Ok(snapshot.spawn(surroundings())?))?;
            drop(machine);
            curve.add(*at, own, limit);
            limit = limit.or(Some(own));
        }
        progress(name, round + 1, rounds);
    }
    curve.tell();
    Ok(())
}
