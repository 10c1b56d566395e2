//! The modes of the tour: since when each is there, how far its addresses reach, and how it is tried.

/// A mode of x86 CPUs, and how it is tried.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    /// Its name.
    pub name: &'static str,
    /// The first CPU that had it, and when that came.
    pub since: &'static str,
    /// How many bits its addresses have.
    pub address_bits: &'static str,
    /// How it is tried.
    pub trial: Trial,
    /// Its row in what `vmm doctor --features` tells of a KVM; `None` for what every KVM can do.
    pub feature: Option<&'static str>,
    /// The KVMs on which it was seen working when this table was written.
    pub seen_on: &'static [&'static str],
}

/// How a mode is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trial {
    /// By a guest cut out of the program `modes`.
    Guest(Guest),
    /// By a program of ours, which starts in long mode as all do.
    Program {
        /// Its name.
        name: &'static str,
        /// A line that it prints when the mode is there.
        proof: &'static str,
    },
    /// By the VMM: its feature says all.
    Feature,
}

/// A guest of the program `modes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guest {
    /// Its file in `guest-kernel/src/bin/modes/`, without `.s`.
    pub file: &'static str,
    /// The mode that it starts in, as `vmm run --mode` has it.
    pub start: &'static str,
    /// What it is given to the VMM as.
    pub form: Form,
    /// Where it leaves its 42.
    pub mark: u64,
}

/// What a guest is given to the VMM as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Bytes without headers.
    Flat,
    /// What 32-bit linkers write.
    Elf32,
}

const PVM: &str = "kvm_pvm";
const AMD: &str = "kvm_amd";

const fn guest(file: &'static str, start: &'static str) -> Trial {
    Trial::Guest(Guest { file, start, form: Form::Flat, mark: 0x400 })
}

const fn elf32(file: &'static str, start: &'static str) -> Trial {
    Trial::Guest(Guest { file, start, form: Form::Elf32, mark: 0x400 })
}

/// Page 0 is not mapped in long mode, as the host starts it.
const fn long(file: &'static str) -> Trial {
    Trial::Guest(Guest { file, start: "long", form: Form::Flat, mark: 0x2_0000 })
}

/// All modes, in the order of the tour.
pub const MODES: &[Mode] = &[
    Mode {
        name: "8080 emulation",
        since: "8080, 1974; V20, 1984",
        address_bits: "16",
        trial: Trial::Program { name: "17_8080", proof: "8080: the self-test has passed" },
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "real mode",
        since: "8086, 1978",
        address_bits: "20",
        trial: guest("real", "real"),
        feature: Some("real mode"),
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "16-bit protected mode",
        since: "80286, 1982",
        address_bits: "24",
        trial: guest("protected16", "real"),
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "unreal mode",
        since: "80386, 1985",
        address_bits: "32",
        trial: guest("unreal", "real"),
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "32-bit protected mode",
        since: "80386, 1985",
        address_bits: "32",
        trial: elf32("protected", "protected"),
        feature: Some("32-bit protected mode"),
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "32-bit paging",
        since: "80386, 1985",
        address_bits: "32",
        trial: elf32("paged32", "paged32"),
        feature: Some("32-bit paging"),
        seen_on: &[AMD],
    },
    Mode {
        name: "virtual-8086 mode",
        since: "80386, 1985",
        address_bits: "20",
        trial: elf32("v86", "protected"),
        feature: Some("virtual-8086 mode"),
        seen_on: &[AMD],
    },
    Mode {
        name: "system-management mode",
        since: "80386SL, 1990",
        address_bits: "32",
        trial: Trial::Feature,
        feature: Some("system-management mode"),
        seen_on: &[AMD],
    },
    Mode {
        name: "PAE paging",
        since: "Pentium Pro, 1995",
        address_bits: "32, physical 36 to 52",
        trial: elf32("pae", "pae"),
        feature: Some("PAE paging"),
        seen_on: &[AMD],
    },
    Mode {
        name: "long mode",
        since: "Opteron, 2003",
        address_bits: "48",
        trial: long("long"),
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "compatibility mode",
        since: "Opteron, 2003",
        address_bits: "32",
        trial: long("compatibility"),
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "the whole road",
        since: "Opteron, 2003",
        address_bits: "20 to 48 and back",
        trial: guest("road", "real"),
        feature: None,
        seen_on: &[PVM, AMD],
    },
    Mode {
        name: "SVM in the guest",
        since: "Athlon 64, 2006",
        address_bits: "48, of a guest's guest",
        trial: Trial::Program {
            name: "16_hypervisor",
            proof: "it left 34 times by an OUT, and then by VMMCALL, with 42 in RAX",
        },
        feature: Some("SVM in the guest"),
        seen_on: &[AMD],
    },
    Mode {
        name: "VMX in the guest",
        since: "Pentium 4, 2005",
        address_bits: "48, of a guest's guest",
        trial: Trial::Program {
            name: "16_hypervisor",
            proof: "it left 34 times by an OUT, and then by VMCALL, with 42 in RAX",
        },
        feature: Some("VMX in the guest"),
        seen_on: &[],
    },
    Mode {
        name: "5-level paging",
        since: "Ice Lake, 2019",
        address_bits: "57",
        trial: elf32("la57", "protected"),
        feature: Some("5-level paging"),
        seen_on: &[],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_guest_has_its_file() {
        for mode in MODES {
            if let Trial::Guest(Guest { file, .. }) = mode.trial {
                let path = workspace::root().join(format!("guest-kernel/src/bin/modes/{file}.s"));
                assert!(path.is_file(), "{}: {}", mode.name, path.display());
            }
        }
    }

    #[test]
    fn names_are_unique() {
        for (index, mode) in MODES.iter().enumerate() {
            assert!(!MODES[..index].iter().any(|other| other.name == mode.name), "{}", mode.name);
        }
    }
}
