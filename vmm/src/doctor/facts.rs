//! `HostFacts`: what the host says about itself, before anything is judged.
//!
//! What cannot be read counts as empty: a fact that nobody told. Only [`HostFacts::collect`] looks at the host.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::node::DeviceNode;
use super::probe::KvmFacts;

/// What the host says about itself.
#[derive(Clone, Debug)]
pub(super) struct HostFacts {
    /// The architecture this program was built for.
    pub(super) architecture: &'static str,
    /// `/proc/version`.
    pub(super) kernel: String,
    /// `/proc/cpuinfo`.
    pub(super) cpu: CpuFacts,
    /// `/sys/class/dmi/id/sys_vendor`: who made the machine, real or virtual.
    pub(super) maker: String,
    /// What gives away that this is a container.
    pub(super) container: Option<String>,
    /// Those of [`HYPERVISOR_MODULES`] that are in the kernel.
    pub(super) modules: Vec<&'static str>,
    /// Whether the kernel lists KVM in `/proc/misc`. It then has a /dev/kvm, even if this container has not.
    pub(super) kvm_registered: bool,
    /// The file `/dev/kvm`.
    pub(super) node: Option<DeviceNode>,
    /// What KVM answered.
    pub(super) kvm: KvmFacts,
}

/// Kernel modules that want the CPU's virtualization for themselves. A built-in one is listed too.
const HYPERVISOR_MODULES: [&str; 5] = ["kvm_intel", "kvm_amd", "kvm_pvm", "vboxdrv", "vmmon"];

/// Which of KVM's implementations a host has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Flavour {
    /// `kvm_intel`, on the CPU's VMX.
    Intel,
    /// `kvm_amd`, on the CPU's SVM.
    Amd,
    /// `kvm_pvm`, which needs nothing of the CPU and interprets guest kernels.
    Pvm,
}

impl Flavour {
    /// Which of them this host has.
    #[must_use]
    pub fn of_this_host() -> Option<Self> {
        let loaded = |flavour: &Self| Path::new("/sys/module").join(flavour.module()).exists();
        // A built-in module of the other vendor is there, too: the CPU decides.
        let cpu = CpuFacts::parse(&read("/proc/cpuinfo")).virtualization;
        let fits = |flavour: &Self| match flavour {
            Self::Intel => cpu == Some(Virtualization::Vmx),
            Self::Amd => cpu == Some(Virtualization::Svm),
            Self::Pvm => true,
        };
        [Self::Intel, Self::Amd, Self::Pvm].into_iter().find(|flavour| loaded(flavour) && fits(flavour))
    }

    /// The kernel module's name.
    #[must_use]
    pub const fn module(self) -> &'static str {
        match self {
            Self::Intel => "kvm_intel",
            Self::Amd => "kvm_amd",
            Self::Pvm => "kvm_pvm",
        }
    }
}

/// What `/proc/cpuinfo` says of the first CPU.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuFacts {
    /// The twelve letters of CPUID leaf 0.
    pub(super) vendor: String,
    /// What virtual machines can be made with. Recent kernels hide it when the firmware has it locked.
    pub(super) virtualization: Option<Virtualization>,
    /// Whether this CPU is itself a virtual one: CPUID leaf 1, ECX bit 31.
    pub(super) hypervisor: bool,
}

/// What a CPU makes virtual machines with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Virtualization {
    /// Intel VT-x: CPUID leaf 1, ECX bit 5.
    Vmx,
    /// AMD-V: CPUID leaf 80000001h, ECX bit 2.
    Svm,
}

impl HostFacts {
    /// Looks at this host.
    pub(super) fn collect() -> Self {
        Self {
            architecture: std::env::consts::ARCH,
            kernel: read("/proc/version"),
            cpu: CpuFacts::parse(&read("/proc/cpuinfo")),
            maker: read("/sys/class/dmi/id/sys_vendor").trim().to_owned(),
            container: container_sign(),
            modules: HYPERVISOR_MODULES
                .into_iter()
                .filter(|module| Path::new("/sys/module").join(module).exists())
                .collect(),
            kvm_registered: lists_kvm(&read("/proc/misc")),
            node: DeviceNode::look(),
            kvm: KvmFacts::probe(),
        }
    }

    /// Whether the kernel has a working KVM, reachable from here or not.
    pub(super) fn has_kvm(&self) -> bool {
        self.kvm_registered || self.kvm.opened.is_ok()
    }

    /// Which KVM the kernel has. A module alone is none: built in, it is there even when its CPU feature is not.
    pub(super) fn flavour(&self) -> Option<Flavour> {
        let loaded = |module| self.modules.contains(&module);
        match self.cpu.virtualization {
            _ if !self.has_kvm() => None,
            Some(Virtualization::Vmx) if loaded("kvm_intel") => Some(Flavour::Intel),
            Some(Virtualization::Svm) if loaded("kvm_amd") => Some(Flavour::Amd),
            _ if loaded("kvm_pvm") => Some(Flavour::Pvm),
            _ => None,
        }
    }
}

impl CpuFacts {
    fn parse(cpuinfo: &str) -> Self {
        let field = |name| {
            cpuinfo
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(key, _)| key.trim() == name)
                .map_or("", |(_, value)| value.trim())
        };
        let has = |flag| field("flags").split(' ').any(|word| word == flag);
        let virtualization = if has("vmx") {
            Some(Virtualization::Vmx)
        } else if has("svm") {
            Some(Virtualization::Svm)
        } else {
            None
        };
        Self { vendor: field("vendor_id").to_owned(), virtualization, hypervisor: has("hypervisor") }
    }
}

impl Virtualization {
    /// The kernel module that uses it.
    pub(super) fn module(self) -> &'static str {
        match self {
            Self::Vmx => "kvm_intel",
            Self::Svm => "kvm_amd",
        }
    }
}

/// Whether `/proc/misc`, lines of `number name`, has KVM.
fn lists_kvm(misc: &str) -> bool {
    misc.lines().any(|line| line.split_whitespace().nth(1) == Some("kvm"))
}

/// The first thing that gives away a container.
fn container_sign() -> Option<String> {
    const FILES: [&str; 3] = ["/.dockerenv", "/run/.containerenv", "/run/systemd/container"];
    const CGROUPS: [&str; 5] = ["docker", "kubepods", "containerd", "libpod", "lxc"];
    if let Some(file) = FILES.into_iter().find(|file| Path::new(file).exists()) {
        return Some(file.to_owned());
    }
    let cgroup = read("/proc/1/cgroup");
    let word = CGROUPS.into_iter().find(|word| cgroup.contains(word))?;
    Some(format!("`{word}` in /proc/1/cgroup"))
}

/// The text of a file; empty if it cannot be read.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpuinfo_is_read_by_whole_words() {
        let facts =
            CpuFacts::parse("vendor_id\t: GenuineIntel\nvmx flags\t: vnmi\nflags\t\t: fpu vmx hypervisor\n");
        assert_eq!(facts.vendor, "GenuineIntel");
        assert_eq!(facts.virtualization, Some(Virtualization::Vmx));
        assert!(facts.hypervisor);
        assert_eq!(CpuFacts::parse("flags : svm_lock\n").virtualization, None);
        assert_eq!(CpuFacts::parse(""), CpuFacts::default());
    }

    #[test]
    fn kvm_is_found_in_proc_misc() {
        assert!(lists_kvm("234 btrfs-control\n232 kvm\n"));
        assert!(!lists_kvm("200 tun\n"));
    }
}
