//! Marks: named spans of a program, for whoever watches the run.
//!
//! `vmm run --timeline FILE` draws them. A mark is one exit; when nobody watches, it is nothing else.
//!
//! ```no_run,ignore-none
//! let reading = guest_kernel::mark::span("read the list");
//! // … what takes the time …
//! drop(reading);
//! ```
//!
//! Host side: `vmm/src/hypercall/console.rs` takes them, `vmm/src/observe/timeline.rs` draws them.

use shared_abi::hypercall::MAX_MARK_NAME;

use crate::hypercall::{self, Hypercall};

/// Begins a span. It ends with [`end`]; spans nest. Of a name longer than [`MAX_MARK_NAME`] the beginning is used.
pub fn begin(name: &str) {
    let name = cut(name).as_bytes();
    let name_gva = hypercall::gva_of(name);
    // The name is text of a good length, so a host has nothing to refuse; and a program does not depend on its marks.
    let _ = hypercall::call(Hypercall::MarkBegin { name_gva, name_size: name.len() as u64 });
}

/// Ends the span that began last.
pub fn end() {
    let _ = hypercall::call(Hypercall::MarkEnd);
}

/// Begins a span that ends when what this gives is dropped.
#[must_use = "the span ends when this is dropped"]
pub fn span(name: &str) -> Span {
    begin(name);
    Span(())
}

/// A span that ends when this is dropped.
#[derive(Debug)]
pub struct Span(());

impl Drop for Span {
    fn drop(&mut self) {
        end();
    }
}

/// As much of `name` as a mark can have.
fn cut(name: &str) -> &str {
    let mut length = name.len().min(MAX_MARK_NAME as usize);
    while !name.is_char_boundary(length) {
        length -= 1;
    }
    name.get(..length).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest_test;

    #[guest_test(max_exits = 4)]
    fn a_mark_is_one_exit() {
        begin("by hand");
        end();
        drop(span("by its scope"));
    }

    #[guest_test]
    fn a_long_name_is_cut_between_characters() {
        // Behind one `x` the limit is in the middle of an `ä`.
        let mut bytes = [0xA4; 301];
        bytes.iter_mut().skip(1).step_by(2).for_each(|byte| *byte = 0xC3);
        bytes[0] = b'x';
        let name = core::str::from_utf8(&bytes).expect("an x and many ä");
        assert_eq!(cut("short"), "short");
        assert_eq!(cut(name).len() as u64, MAX_MARK_NAME - 1);
    }
}
