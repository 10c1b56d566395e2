//! The gallery of deaths: ways for a kernel to die, each the shortest that still has a place to be found.
//!
//! `tests/gallery.rs` holds what the host must say about each: why, in which function, in which line. The line is the one
//! below a marker, so that nobody types its number. A death that is behind `without-idt` is one of a kernel without
//! handlers.

mod control;
mod devices;
mod jumps;
mod memory;
mod numbers;
mod panics;
mod tables;
mod user;

/// A way to die.
pub(crate) struct Death {
    /// What the probe calls it.
    pub(crate) name: &'static str,
    /// What happens, for people.
    pub(crate) about: &'static str,
    /// Does it.
    pub(crate) deed: fn(),
}

const fn death(name: &'static str, about: &'static str, deed: fn()) -> Death {
    Death { name, about, deed }
}

/// All of them.
pub(crate) const ROOMS: &[&[Death]] = &[
    memory::DEATHS,
    jumps::DEATHS,
    numbers::DEATHS,
    control::DEATHS,
    tables::DEATHS,
    panics::DEATHS,
    devices::DEATHS,
    user::DEATHS,
];
