//! A walk through all kinds of exits, the same for the same seed: what a snapshot must not disturb.

use core::hint::black_box;
use core::ptr;

use guest_kernel::cpu::port;
use guest_kernel::{arguments, device_memory, hypercall, println};
use shared_abi::layout::CONSOLE_MMIO;
use shared_abi::ports::DEBUG_CONSOLE;

use crate::{Deed, number};

pub(crate) const DEEDS: &[Deed] = &[("wander", wander)];

/// Pages that are written to here and there.
const PAGES: usize = 64;
const WORDS: usize = 512;
static mut TRAIL: [[u64; WORDS]; PAGES] = [[0; WORDS]; PAGES];

/// Takes as many steps as the number behind the seed says, each by chance of the seed.
fn wander() {
    let seed = number();
    let steps = arguments().nth(2).and_then(|steps| steps.parse().ok()).unwrap_or(100);
    device_memory::map_hole().expect("frames for two tables");
    let mut chance = seed;
    let mut sum = 0_u64;
    for step in 0..steps {
        chance = chance.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = chance >> 33;
        match word % 8 {
            0 => port::outb(DEBUG_CONSOLE, b'a' + (word >> 8) as u8 % 26),
            1 => println!("{step}: {sum:x}"),
            2 => sum ^= u64::from(port::inl(DEBUG_CONSOLE)) << (word >> 8 & 31),
            3 => write_device(word as u8),
            4 => sum = sum.rotate_left(7) ^ read_device(),
            5 => {
                let mut bytes = [0_u8; 24];
                sum ^= hypercall::call(hypercall::Hypercall::Arguments {
                    buffer_gva: shared_abi::Gva(bytes.as_mut_ptr() as u64),
                    buffer_size: bytes.len() as u64,
                })
                .unwrap_or_default();
                sum = black_box(bytes).iter().fold(sum, |sum, &byte| sum.rotate_left(5) ^ u64::from(byte));
            }
            _ => sum = sum.wrapping_add(leave_trail(word >> 3, sum)),
        }
    }
    println!("\n{sum:x}");
}

/// Changes a word of the trail, and gives what was there.
fn leave_trail(word: u64, sum: u64) -> u64 {
    let (page, index) = (word as usize % PAGES, (word >> 6) as usize % WORDS);
    // SAFETY: Both indices are below the array's sizes; there is one CPU, and this is the only user of the array.
    unsafe {
        let place = (&raw mut TRAIL).cast::<[u64; WORDS]>().add(page).cast::<u64>().add(index);
        let before = place.read_volatile();
        place.write_volatile(before.wrapping_mul(31) ^ sum ^ word);
        before
    }
}

fn write_device(byte: u8) {
    // SAFETY: `map_hole` has mapped the device to its own address; it takes any byte.
    unsafe {
        ptr::with_exposed_provenance_mut::<u8>(CONSOLE_MMIO.0 as usize).write_volatile(b'A' + byte % 26)
    };
}

fn read_device() -> u64 {
    // SAFETY: `map_hole` has mapped the device to its own address; to read from it changes nothing.
    unsafe { ptr::with_exposed_provenance::<u32>(CONSOLE_MMIO.0 as usize).read_volatile().into() }
}
