//! A list of free frames whose links lie in the frames themselves: it needs no memory of its own.
//!
//! Each frame in it has a seal beside its link, made of both addresses. A frame that has no valid seal when it is taken
//! out was written to after it was freed; one that has a valid seal when it is put in may be there already.

use core::ptr::NonNull;

use shared_abi::Gpa;

/// What is written to a free frame.
#[derive(Clone, Copy)]
#[repr(C)]
struct Link {
    /// The next frame, or 0.
    next: u64,
    seal: u64,
}

/// A last in, first out list.
#[derive(Debug)]
pub(super) struct FreeList {
    /// The first frame, or 0.
    first: u64,
    count: u64,
}

impl FreeList {
    pub(super) const fn new() -> Self {
        Self { first: 0, count: 0 }
    }

    pub(super) fn count(&self) -> u64 {
        self.count
    }

    /// Puts a frame in. It must be RAM that is nobody's, and not be in yet ([`contains`](Self::contains)).
    pub(super) fn push(&mut self, gpa: Gpa) {
        write(gpa.0, Link { next: self.first, seal: seal(gpa.0, self.first) });
        self.first = gpa.0;
        self.count += 1;
    }

    /// Takes out the frame that came last.
    pub(super) fn pop(&mut self) -> Option<Gpa> {
        let gpa = self.first;
        if gpa == 0 {
            return None;
        }
        self.first = next(gpa);
        self.count -= 1;
        Some(Gpa(gpa))
    }

    /// Whether a frame is in. Only one with a seal is searched for: others cannot be.
    pub(super) fn contains(&self, gpa: Gpa) -> bool {
        let link = read(gpa.0);
        link.seal == seal(gpa.0, link.next) && self.search(gpa)
    }

    /// Whoever had the frame may have written the seal himself, so the list itself is asked.
    fn search(&self, gpa: Gpa) -> bool {
        let mut frame = self.first;
        while frame != 0 && frame != gpa.0 {
            frame = next(frame);
        }
        frame != 0
    }
}

/// The frame behind one that is in.
fn next(gpa: u64) -> u64 {
    let link = read(gpa);
    assert!(link.seal == seal(gpa, link.next), "the frame at {gpa:#x} was written to after it was freed");
    link.next
}

/// What a frame must hold beside a link to `next`. Any number that programs do not write by accident will do.
fn seal(gpa: u64, next: u64) -> u64 {
    0x5EA1_ED5E_A1ED_F4EE ^ gpa.rotate_left(32) ^ next
}

fn at(gpa: u64) -> NonNull<Link> {
    NonNull::new(gpa as *mut Link).expect("page 0 is no frame")
}

fn read(gpa: u64) -> Link {
    // SAFETY: Frames are RAM that is mapped at its own address and aligned; only free ones are read, or those that are
    // about to be, and nobody else uses either.
    unsafe { at(gpa).read_volatile() }
}

fn write(gpa: u64, link: Link) {
    // SAFETY: As for `read`.
    unsafe { at(gpa).write_volatile(link) };
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    /// On the host, pages of the test stand for RAM.
    #[repr(align(4096))]
    #[derive(Clone)]
    struct Page([u64; 512]);

    fn pages() -> (Vec<Page>, Vec<Gpa>) {
        let mut pages = vec![Page([0; 512]); 3];
        let gpas = pages.iter_mut().map(|page| Gpa(page.0.as_mut_ptr() as u64)).collect();
        (pages, gpas)
    }

    #[test]
    fn the_last_in_is_the_first_out() {
        let (_pages, gpas) = pages();
        let mut list = FreeList::new();
        gpas.iter().for_each(|&gpa| list.push(gpa));
        assert_eq!(list.count(), 3);
        let out: Vec<_> = std::iter::from_fn(|| list.pop()).collect();
        assert_eq!(out, gpas.into_iter().rev().collect::<Vec<_>>());
        assert_eq!(list.count(), 0);
    }

    #[test]
    fn what_is_in_is_found_and_a_forged_seal_is_not_believed() {
        let (mut pages, gpas) = pages();
        let mut list = FreeList::new();
        list.push(gpas[0]);
        list.push(gpas[1]);
        assert!(list.contains(gpas[0]) && list.contains(gpas[1]));
        pages[2].0[..2].copy_from_slice(&[0, seal(gpas[2].0, 0)]);
        assert!(!list.contains(gpas[2]));
    }

    #[test]
    #[should_panic(expected = "was written to after it was freed")]
    fn a_write_to_a_free_frame_is_noticed() {
        let (mut pages, gpas) = pages();
        let mut list = FreeList::new();
        list.push(gpas[0]);
        pages[0].0[0] = 7;
        list.pop();
    }
}
