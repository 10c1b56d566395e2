//! The last words of a guest that panicked.
//!
//! The host shows them on the console and in its report: `vmm/src/hypercall/last_words.rs`.

use core::fmt::{self, Write};
use core::panic::{Location, PanicInfo};
use core::sync::atomic::{AtomicU32, Ordering};

use shared_abi::exit_code;

use crate::console::{DebugConsole, Line};
use crate::hypercall::{self, Hypercall, gva_of};
use crate::memory::heap::Shortage;
use crate::power;

/// Panics so far. What a panic prints is formatted by the program's own code, which may panic in turn.
static PANICS: AtomicU32 = AtomicU32::new(0);

/// Says what went wrong and where, and ends the run with [`exit_code::PANICKED`].
#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let mut words = Line::to(say);
    // A text that cannot be formatted ends where it is; the exit code tells the rest.
    let _ = match (PANICS.fetch_add(1, Ordering::Relaxed), info.location()) {
        (0, place) => writeln!(words, "{info}").and_then(|()| tell_shortage(&mut words, place)),
        (1, Some(place)) => writeln!(words, "panicked at {place}:\nwhile telling of another panic"),
        _ => Ok(()),
    };
    drop(words);
    power::exit(exit_code::PANICKED)
}

/// When the heap could not give what somebody cannot do without, the panic comes from there and does not know why.
fn tell_shortage(words: &mut impl Write, place: Option<&Location<'_>>) -> fmt::Result {
    let is_from_alloc = place.is_some_and(|place| place.file().ends_with("alloc/src/alloc.rs"));
    match Shortage::last().filter(|_| is_from_alloc) {
        Some(shortage) => writeln!(words, "{shortage}"),
        None => Ok(()),
    }
}

/// Hands last words to the host; byte by byte where it takes no calls. Whatever broke, the port still works.
fn say(words: &[u8]) {
    let call = Hypercall::Panic { text_gva: gva_of(words), text_size: words.len() as u64 };
    if !hypercall::is_offered() || hypercall::call(call).is_err() {
        DebugConsole.write_bytes(words);
    }
}
