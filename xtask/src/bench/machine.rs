//! `Machine`: on what was measured, as far as it decides what comes out.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// What a host says about itself; what it does not tell is empty.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Machine {
    /// The CPU's name.
    pub(super) cpu: String,
    /// The version of its microcode.
    pub(super) microcode: String,
    /// How many CPUs are online.
    pub(super) cpus: usize,
    /// The release of the kernel.
    pub(super) kernel: String,
    /// KVM's modules, besides `kvm` itself.
    pub(super) kvm: Vec<String>,
    /// How many wanted to run, on average of the last minute, when it began.
    pub(super) load: String,
}

impl Machine {
    /// This one.
    pub(super) fn of_here() -> Self {
        let cpus = read("/proc/cpuinfo");
        let modules = ["kvm_intel", "kvm_amd", "kvm_pvm"].into_iter();
        Self {
            cpu: field(&cpus, "model name"),
            microcode: field(&cpus, "microcode"),
            cpus: cpus.lines().filter(|line| line.starts_with("processor")).count(),
            kernel: read("/proc/sys/kernel/osrelease"),
            kvm: modules
                .filter(|name| Path::new("/sys/module").join(name).exists())
                .map(str::to_owned)
                .collect(),
            load: read("/proc/loadavg").split(' ').next().unwrap_or_default().to_owned(),
        }
    }

    /// How `now` differs, but for its load, which always does.
    pub(super) fn differences(&self, now: &Self) -> Option<String> {
        let facts = |machine: &Self| {
            let Self { cpu, microcode, cpus, kernel, kvm, load: _ } = machine.clone();
            [
                ("CPU", cpu),
                ("microcode", microcode),
                ("CPUs", cpus.to_string()),
                ("kernel", kernel),
                ("KVM", kvm.join(", ")),
            ]
        };
        let pairs = facts(self).into_iter().zip(facts(now));
        let differing = pairs.filter(|(then, now)| then != now);
        let words: Vec<_> =
            differing.map(|((name, then), (_, now))| format!("{name} {then} then, {now} now")).collect();
        if words.is_empty() { None } else { Some(words.join("; ")) }
    }

    /// In one line.
    pub(super) fn summary(&self) -> String {
        let Self { cpu, microcode, cpus, kernel, kvm, load } = self;
        let kvm = kvm.join(", ");
        format!("{cpus} × {cpu} (microcode {microcode}), Linux {kernel}, {kvm}, load {load}")
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first line of that name.
fn field(text: &str, name: &str) -> String {
    let mut fields = text.lines().filter_map(|line| line.split_once(':'));
    fields.find(|(own, _)| own.trim() == name).map_or(String::new(), |(_, value)| value.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_differs_by_anything_but_its_load() {
        let then = Machine { kernel: "6.1".to_owned(), load: "0.1".to_owned(), ..Machine::default() };
        assert_eq!(then.differences(&Machine { load: "9".to_owned(), ..then.clone() }), None);
        let now = Machine { cpus: 2, kernel: "6.2".to_owned(), ..then.clone() };
        assert_eq!(then.differences(&now).expect("two"), "CPUs 0 then, 2 now; kernel 6.1 then, 6.2 now");
    }

    #[test]
    fn this_one_has_a_kernel_and_cpus() {
        let here = Machine::of_here();
        assert!(here.cpus > 0 && !here.kernel.is_empty(), "{here:?}");
        assert_eq!(field("model name\t: A: B\nmicrocode : 0x1", "model name"), "A: B");
    }
}
