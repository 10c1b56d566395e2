//! Pages that are touched for the first time, with and without huge pages of the host (THP), and given back.

use vmm::Backing;
use vmm::memory::GuestMemory;

use crate::curve::{Curve, TOUCHED};
use crate::guest::{Guest, Outcome, PAGE, one_pass, timed};
use crate::told::{progress, rounds};

/// Bytes that are touched: from less than one huge page to many.
const POINTS: [u64; 5] = [1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20];
/// RAM of all machines, so that nothing else grows.
const RAM: u64 = 512 << 20;
/// A round takes two to five seconds.
const ROUNDS: u32 = 6;

/// Measures without THP, then with it.
pub(crate) fn measure(guest: &Guest) -> Outcome<()> {
    for huge in [false, true] {
        let thp = if huge { "THP" } else { "no THP" };
        let mut curves = Curves::new(thp);
        let backing = Backing { huge, ..Backing::default() };
        let rounds = rounds(ROUNDS);
        for round in 0..rounds {
            for touched in POINTS {
                curves.add(
                    touched,
                    &touch_by_host(backing, touched)?,
                    &touch_by_guest(guest, backing, touched)?,
                );
            }
            progress(&format!("first touch, {thp}"), round + 1, rounds);
        }
        curves.tell();
    }
    Ok(())
}

/// What is measured over the bytes touched.
struct Curves {
    first: Curve,
    second: Curve,
    resident: Curve,
    end: Curve,
}

impl Curves {
    fn new(thp: &str) -> Self {
        Self {
            first: Curve::of_time(
                format!("first touch of a page, {thp}"),
                TOUCHED,
                "host's own + second touch",
            ),
            second: Curve::of_time(format!("second touch of a page, {thp}"), TOUCHED, ""),
            resident: Curve::of_bytes(format!("RAM that the host gave, {thp}"), TOUCHED, "bytes touched"),
            end: Curve::of_time(format!("end of the machine, {thp}"), TOUCHED, "host's own munmap"),
        }
    }

    fn add(&mut self, touched: u64, host: &ByHost, guest: &ByGuest) {
        let pages = (touched / PAGE) as f64;
        self.first.add(touched, guest.first / pages, (host.touch + guest.second) / pages);
        self.second.add(touched, guest.second / pages, None);
        self.resident.add(touched, guest.resident as f64, touched as f64);
        self.end.add(touched, guest.end, host.end);
    }

    fn tell(self) {
        [self.first, self.second, self.resident, self.end].into_iter().for_each(Curve::tell);
    }
}

/// Times of the host by itself, in nanoseconds.
struct ByHost {
    touch: f64,
    end: f64,
}

fn touch_by_host(backing: Backing, touched: u64) -> Outcome<ByHost> {
    let memory = GuestMemory::allocate(vmm::MemorySize::new(RAM)?, backing)?;
    let start = memory.slots().next().ok_or("a machine has RAM")?.hva as *mut u64;
    let ((), touch) = timed(|| {
        for page in 0..touched / PAGE {
            // SAFETY: RAM is mapped, and larger than what is touched; nobody else knows of it.
            unsafe { start.byte_add((page * PAGE) as usize).write_volatile(1) };
        }
        Ok(())
    })?;
    let ((), end) = timed(|| {
        drop(memory);
        Ok(())
    })?;
    Ok(ByHost { touch, end })
}

/// Times of a machine, in nanoseconds, and what it took in bytes.
struct ByGuest {
    first: f64,
    second: f64,
    resident: u64,
    end: f64,
}

fn touch_by_guest(guest: &Guest, backing: Backing, touched: u64) -> Outcome<ByGuest> {
    let mut vm = guest.machine(RAM, backing, touched / PAGE)?;
    let ((), first) = timed(|| one_pass(&mut vm))?;
    let ((), second) = timed(|| one_pass(&mut vm))?;
    let resident = vm.memory().own_bytes();
    let ((), end) = timed(|| {
        drop(vm);
        Ok(())
    })?;
    Ok(ByGuest { first, second, resident, end })
}
