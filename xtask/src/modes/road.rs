//! What the guest of the whole road tells: its registers at each step, and what changed from one to the next.
//!
//! The guest prints numbers (`guest-kernel/src/bin/modes/road.s`); here they get the names that the manuals give them.

use std::fmt;

/// A step: the mode, and the registers as the CPU showed them there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    mode: String,
    cr0: u64,
    cr4: u64,
    efer: u64,
    cs: u64,
    /// Of the GDT; `None` in real mode, where CS needs none.
    descriptor: Option<u64>,
}

/// Bits of CR0, CR4 and EFER that change on the road.
const CR0: &[(u32, &str)] = &[(0, "PE"), (31, "PG")];
const CR4: &[(u32, &str)] = &[(5, "PAE")];
const EFER: &[(u32, &str)] = &[(8, "LME"), (10, "LMA")];
/// And of a descriptor (Intel SDM vol. 3A, figure 3-8).
const DESCRIPTOR_L: u64 = 1 << 53;
const DESCRIPTOR_D: u64 = 1 << 54;

impl Step {
    /// Reads `road: MODE CR0 … CR4 … EFER … CS … DESCRIPTOR`.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.strip_prefix("road: ")?.split_whitespace();
        let mode = words.next()?.to_owned();
        let mut register = |name: &str| {
            (words.next()? == name).then_some(())?;
            u64::from_str_radix(words.next()?, 16).ok()
        };
        let (cr0, cr4, efer, cs) = (register("CR0")?, register("CR4")?, register("EFER")?, register("CS")?);
        let descriptor = words.next()?;
        let descriptor =
            if descriptor == "-" { None } else { Some(u64::from_str_radix(descriptor, 16).ok()?) };
        Some(Self { mode, cr0, cr4, efer, cs, descriptor })
    }

    /// What is otherwise than it was before, each in a few words.
    fn changes(&self, before: &Self) -> Vec<String> {
        let bits = |name: &str, bits: &[(u32, &str)], before: u64, now: u64| {
            let changed = bits.iter().filter(|(bit, _)| (before ^ now) >> bit & 1 == 1);
            let words = changed.map(|(bit, bit_name)| format!("{name}.{bit_name} = {}", now >> bit & 1));
            words.collect::<Vec<_>>()
        };
        let mut changes = bits("CR0", CR0, before.cr0, self.cr0);
        changes.extend(bits("CR4", CR4, before.cr4, self.cr4));
        changes.extend(bits("EFER", EFER, before.efer, self.efer));
        if before.cs != self.cs || before.descriptor != self.descriptor {
            changes.push(format!("CS = {:#x}: {}", self.cs, self.code()));
        }
        changes
    }

    /// What CS makes of the code.
    fn code(&self) -> &'static str {
        match self.descriptor {
            None => "16-bit code, base CS · 16",
            Some(descriptor) if descriptor & DESCRIPTOR_L != 0 => "64-bit code (L = 1)",
            Some(descriptor) if descriptor & DESCRIPTOR_D != 0 => "32-bit code (L = 0, D = 1)",
            Some(_) => "16-bit code (L = 0, D = 0)",
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, cr0, cr4, efer, cs, .. } = self;
        write!(f, "{mode:13} CR0 {cr0:08x} CR4 {cr4:08x} EFER {efer:03x} CS {cs:04x}")
    }
}

/// The steps that a guest has told, each with what changed.
#[must_use]
pub fn told(lines: &[String]) -> Vec<String> {
    let steps: Vec<Step> = lines.iter().filter_map(|line| Step::parse(line)).collect();
    let before = std::iter::once(None).chain(steps.iter().map(Some));
    let told = steps.iter().zip(before).map(|(step, before)| {
        let changes = before.map(|before| step.changes(before)).unwrap_or_default();
        let changes = if changes.is_empty() { step.code().to_owned() } else { changes.join(", ") };
        format!("{step}  {changes}")
    });
    told.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_tells_what_changed() {
        let lines = [
            "road: real          CR0 00000010 CR4 00000000 EFER 00000000 CS 00001000 -",
            "road: protected     CR0 00000011 CR4 00000000 EFER 00000000 CS 00000008 00cf9b000000ffff",
            "anything else",
            "road: compatibility CR0 80000011 CR4 00000020 EFER 00000500 CS 00000008 00cf9b000000ffff",
            "road: long          CR0 80000011 CR4 00000020 EFER 00000500 CS 00000018 00af9b000000ffff",
        ];
        let told = told(&lines.map(str::to_owned));
        let ends = [
            "16-bit code, base CS · 16",
            "CR0.PE = 1, CS = 0x8: 32-bit code (L = 0, D = 1)",
            "CR0.PG = 1, CR4.PAE = 1, EFER.LME = 1, EFER.LMA = 1",
            "CS = 0x18: 64-bit code (L = 1)",
        ];
        assert_eq!(told.len(), ends.len());
        for (told, end) in told.iter().zip(ends) {
            assert!(told.ends_with(&format!("  {end}")), "{told}");
        }
    }
}
