//! What the program says on stderr, a line at a time.
//!
//! Nobody has to listen: where stderr is closed or full, the line is lost and the run goes on. The macro of the standard library would panic,
//! and its exit code would say that the guest did.

use std::fmt;
use std::io::{self, Write};

/// Says a line: `say!("vmm: {report}")`.
macro_rules! say {
    ($($text:tt)*) => {
        $crate::say::line(format_args!($($text)*))
    };
}
pub(crate) use say;

/// Writes the line.
pub(crate) fn line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}
