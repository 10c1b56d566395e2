//! The registers that a diagnosis shows.

use std::fmt;

use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::debug::CpuState;

/// Registers with their names, in the order in which people look for them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registers(pub Vec<(&'static str, u64)>);

impl Registers {
    /// Those of `state` that matter.
    #[must_use]
    pub fn of(state: &CpuState) -> Self {
        let CpuState { general: r, special: s } = state;
        Self(vec![
            ("rip", r.rip),
            ("rsp", r.rsp),
            ("rbp", r.rbp),
            ("rflags", r.rflags),
            ("rax", r.rax),
            ("rbx", r.rbx),
            ("rcx", r.rcx),
            ("rdx", r.rdx),
            ("rsi", r.rsi),
            ("rdi", r.rdi),
            ("r8", r.r8),
            ("r9", r.r9),
            ("r10", r.r10),
            ("r11", r.r11),
            ("r12", r.r12),
            ("r13", r.r13),
            ("r14", r.r14),
            ("r15", r.r15),
            ("cs", s.cs.selector.into()),
            ("cr0", s.cr0),
            ("cr2", s.cr2),
            ("cr3", s.cr3),
            ("cr4", s.cr4),
            ("efer", s.efer),
        ])
    }

    /// The register of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(own, _)| *own == name).map(|(_, value)| *value)
    }
}

impl fmt::Display for Registers {
    /// Four in a line; without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, line) in self.0.chunks(4).enumerate() {
            f.write_str(if index == 0 { " " } else { "\n " })?;
            for (name, value) in line {
                write!(f, " {name:>6} {value:016x}")?;
            }
        }
        Ok(())
    }
}

impl Serialize for Registers {
    /// An object of `"rip": "0x100000"`.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, value) in &self.0 {
            map.serialize_entry(name, &format!("{value:#x}"))?;
        }
        map.end()
    }
}
