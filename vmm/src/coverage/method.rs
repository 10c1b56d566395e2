//! `Method`: how the host is told that a guest has reached an address.
//!
//! `int3` in the place of an instruction costs one exit for each address, once. It can be told in two ways: as the debug exit
//! that was asked for, or, by a KVM that must emulate the guest and cannot emulate `int3`, as that failure. A KVM may do
//! neither and give the exception to the guest. Then every instruction is a step, and an exit.

use std::time::Duration;

use shared_abi::{Gva, layout};

use super::{Coverage, LineTable};
use crate::error::Result;
use crate::next::StopReason;
use crate::tiny_guest::TinyGuest;

/// How the host is told that a guest has reached an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// `int3` where code of a line begins, taken back when it is reached. A guest that reads its own code sees it.
    Breakpoints,
    /// A step after every instruction. A guest that looks at RFLAGS may see TF.
    Steps,
}

/// `nop`, `nop`, `mov al, 42`, `out 0xF4, al`, `jmp $`.
const CODE: [u8; 8] = [0x90, 0x90, 0xB0, 42, 0xE6, shared_abi::ports::EXIT as u8, 0xEB, 0xFE];
/// Where instructions of it begin that are executed.
const REACHED: [Gva; 4] =
    [Gva(layout::KERNEL.0), Gva(layout::KERNEL.0 + 1), Gva(layout::KERNEL.0 + 2), Gva(layout::KERNEL.0 + 4)];
/// One that is not.
const NOT_REACHED: Gva = Gva(layout::KERNEL.0 + 6);

impl Method {
    /// All, the cheapest first.
    pub const ALL: [Self; 2] = [Self::Breakpoints, Self::Steps];

    /// The cheapest method that works on this host: each records what a guest of a few instructions reaches.
    ///
    /// # Errors
    /// When no guest can be run at all.
    pub fn of_this_host() -> Result<Option<Self>> {
        for method in Self::ALL {
            if method.works()? {
                return Ok(Some(method));
            }
        }
        Ok(None)
    }

    /// Whether this host's KVM tells by this method just what a guest reaches.
    ///
    /// # Errors
    /// When no guest can be run at all.
    pub fn works(self) -> Result<bool> {
        let table = LineTable::of_addresses(&[REACHED.as_slice(), &[NOT_REACHED]].concat());
        let coverage = Coverage::by(table, self);
        let mut vm = TinyGuest { code: &CODE, timeout: Duration::from_secs(2) }.build()?;
        let report = coverage.run(&mut vm)?;
        let ended = report.stop == StopReason::Exited { code: 42 };
        Ok(ended && coverage.reached().iter().eq(REACHED.iter()))
    }

    /// How many times as long a guest may take while it is watched.
    #[must_use]
    pub fn patience(self) -> u32 {
        match self {
            Self::Breakpoints => 4,
            Self::Steps => 40,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_host_tells_what_a_guest_reaches() {
        let method = Method::of_this_host().expect("this test needs /dev/kvm");
        assert!(method.is_some(), "neither int3 nor steps are told");
        assert!(Method::Steps.works().expect("this test needs /dev/kvm"), "every KVM can step");
    }
}
