//! What this host's KVM can do for a debugger: found out by trying, once, when it is first needed.
//!
//! KVM_SET_GUEST_DEBUG accepts breakpoints and watchpoints whether or not the KVM tells of them, so a guest of a few
//! bytes runs into one of each ([`features`](crate::features)).

use std::fmt;

use super::breakpoints::Trap;
use crate::error::Result;
use crate::features::Feature;

/// Something that a KVM may or may not do for a debugger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ability {
    /// Stop before an instruction whose address is in a debug register.
    HardwareBreakpoints,
    /// Stop after a write to an address in a debug register.
    Watchpoints,
}

/// What the KVM can do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Abilities {
    has_breakpoints: bool,
    has_watchpoints: bool,
    /// The instruction that stops the guest where it is planted.
    pub(super) trap: Trap,
}

impl Abilities {
    /// Tries.
    ///
    /// # Errors
    /// When no guest can be run beside the one that is debugged.
    pub(super) fn find_out() -> Result<Self> {
        let is_present = |feature: Feature| feature.try_out().map(|finding| finding.present);
        // A KVM that gives `int3` to the guest and tells nobody is the one that cannot stop there. One that cannot
        // emulate it stops.
        let hides_int3 = !is_present(Feature::SoftwareBreakpoint)? && is_present(Feature::Int3)?;
        Ok(Self {
            has_breakpoints: is_present(Feature::HardwareBreakpoint)?,
            has_watchpoints: is_present(Feature::Watchpoint)?,
            trap: if hides_int3 { Trap::Halt } else { Trap::Int3 },
        })
    }

    /// Whether it can do this.
    pub(super) fn has(self, ability: Ability) -> bool {
        match ability {
            Ability::HardwareBreakpoints => self.has_breakpoints,
            Ability::Watchpoints => self.has_watchpoints,
        }
    }
}

impl Ability {
    /// What to say when it is missing.
    pub(super) fn missing(self) -> &'static str {
        match self {
            Self::HardwareBreakpoints => {
                "this host's KVM tells of no hardware breakpoints; `break` works without them"
            }
            Self::Watchpoints => {
                "this host's KVM tells of no data watchpoints; after `set can-use-hw-watchpoints 0` gdb steps and compares"
            }
        }
    }
}

impl fmt::Display for Abilities {
    /// A line for each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "breakpoints: {} is planted", self.trap)?;
        for (ability, name) in
            [(Ability::HardwareBreakpoints, "hardware breakpoints"), (Ability::Watchpoints, "watchpoints")]
        {
            match self.has(ability) {
                true => writeln!(f, "{name}: as many as there are debug registers, four in all")?,
                false => writeln!(f, "{name}: {}", ability.missing())?,
            }
        }
        Ok(())
    }
}
