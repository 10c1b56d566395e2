//! `Group`: what can be measured, by the name that is typed.

use clap::ValueEnum;

/// Measurements that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// The VMM as a whole: from exec to the guest's first byte and to the end, memory, system calls, page faults.
    Start,
    /// Round trips out of the guest, beside a bare loop around KVM_RUN.
    Exits,
    /// Text out of the guest, beside the host's own writes.
    Console,
    /// What guest RAM costs: by its size, by its pages, by how much of it was touched.
    Memory,
    /// Going back to a snapshot, and new machines from one, beside bare calls of KVM.
    Snapshots,
}

/// The benchmarks of `vmm/benches`, and what each measures.
pub(super) const HOST_HALVES: [(&str, &[Group]); 3] = [
    ("exits", &[Group::Exits, Group::Console]),
    ("memory", &[Group::Memory]),
    ("snapshots", &[Group::Snapshots]),
];

impl Group {
    /// What is typed.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Exits => "exits",
            Self::Console => "console",
            Self::Memory => "memory",
            Self::Snapshots => "snapshots",
        }
    }
}

/// A line for each: its name and what it is.
pub(super) fn list() -> String {
    let line = |group: &Group| {
        let help = group.to_possible_value().and_then(|value| value.get_help().map(ToString::to_string));
        format!("{:10} {}\n", group.name(), help.unwrap_or_default())
    };
    Group::value_variants().iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_can_be_typed() {
        for (line, group) in list().lines().zip(Group::value_variants()) {
            let typed = line.split(' ').next().expect("a name");
            assert_eq!(Group::from_str(typed, false).as_ref(), Ok(group));
            assert!(line.len() > 12, "{line}");
        }
    }
}
