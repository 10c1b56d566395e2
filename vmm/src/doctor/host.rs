//! Checks of what lies below /dev/kvm: the machine, the kernel, the CPU, the module.

use super::check::Check;
use super::facts::{Flavour, HostFacts, Virtualization};
use super::{nested, rival};

/// What this program's machine code, and the guests', is for.
pub(super) fn architecture(facts: &HostFacts) -> Check {
    const NAME: &str = "architecture";
    match facts.architecture {
        "x86_64" => Check::ok(NAME, "x86-64"),
        other => Check::problem(
            NAME,
            format!("{other}, but guests are x86-64"),
            "use an x86-64 Linux machine: KVM runs guests of its host's architecture only",
        ),
    }
}

/// What the kernel runs on. Explains the checks below; only WSL 1 rules guests out by itself.
pub(super) fn environment(facts: &HostFacts) -> Check {
    const NAME: &str = "environment";
    let release = facts.kernel.split(' ').nth(2).unwrap_or("of unknown version");
    let surroundings = Surroundings::of(facts);
    let place = match surroundings {
        Surroundings::Metal => "on bare metal".to_owned(),
        Surroundings::VirtualMachine if facts.maker.is_empty() => "in a virtual machine".to_owned(),
        Surroundings::VirtualMachine => format!("in a virtual machine ({})", facts.maker),
        Surroundings::Wsl1 => "is imitated by WSL 1".to_owned(),
        Surroundings::Wsl2 => "in WSL 2".to_owned(),
    };
    let container =
        facts.container.as_ref().map_or(String::new(), |sign| format!(", in a container ({sign})"));
    let finding = format!("Linux {release} {place}{container}");
    match surroundings {
        Surroundings::Wsl1 => Check::problem(
            NAME,
            finding,
            "WSL 1 has no KVM: in PowerShell, run `wsl --set-version <distribution> 2`; `wsl --list` shows the name",
        ),
        _ => Check::ok(NAME, finding),
    }
}

/// Whether the CPU can make virtual machines, or KVM does without.
pub(super) fn cpu(facts: &HostFacts) -> Check {
    const NAME: &str = "cpu";
    let vendor = &facts.cpu.vendor;
    match facts.cpu.virtualization {
        Some(Virtualization::Vmx) => Check::ok(NAME, format!("{vendor} with VT-x (vmx)")),
        Some(Virtualization::Svm) => Check::ok(NAME, format!("{vendor} with AMD-V (svm)")),
        None if facts.has_kvm() => {
            Check::ok(NAME, format!("{vendor} without vmx or svm; this host's KVM needs neither"))
        }
        None => Check::problem(
            NAME,
            "neither vmx nor svm among the flags in /proc/cpuinfo",
            virtualization_remedy(facts),
        ),
    }
}

/// Whether a KVM module is loaded, and which.
pub(super) fn module(facts: &HostFacts) -> Check {
    const NAME: &str = "module";
    match facts.flavour() {
        Some(Flavour::Intel) => Check::ok(NAME, "kvm_intel"),
        Some(Flavour::Amd) => Check::ok(NAME, "kvm_amd"),
        Some(Flavour::Pvm) => Check::warning(
            NAME,
            "kvm_pvm: it interprets the guest's kernel, about 1000 times slower than a CPU",
            "for full speed, use a machine whose /proc/cpuinfo has vmx or svm",
        ),
        None if facts.has_kvm() => Check::ok(NAME, "KVM, by a module this program does not know"),
        None => missing_module(NAME, facts),
    }
}

fn missing_module(name: &'static str, facts: &HostFacts) -> Check {
    let Some(virtualization) = facts.cpu.virtualization else {
        return Check::skipped(name, "no KVM module can work before the CPU has vmx or svm");
    };
    let module = virtualization.module();
    let remedy = virtualization_remedy(facts);
    if facts.modules.contains(&module) {
        return Check::problem(
            name,
            format!("{module} is in the kernel, but refused to work with this CPU"),
            format!("`sudo dmesg | grep -i kvm` has the reason; mostly: {remedy}"),
        );
    }
    let place = match facts.container {
        Some(_) => "on the container's host, run ",
        None => "",
    };
    let rival = rival::remedy(facts)
        .map_or(String::new(), |remedy| format!("; if it says `Device or resource busy`: {remedy}"));
    Check::problem(
        name,
        format!("{module} is not loaded"),
        format!("{place}`sudo modprobe {module}`; if it says `Operation not supported`: {remedy}{rival}"),
    )
}

/// What the kernel runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Surroundings {
    Metal,
    VirtualMachine,
    Wsl1,
    Wsl2,
}

impl Surroundings {
    fn of(facts: &HostFacts) -> Self {
        // WSL 1 imitates Linux 4.4.0-…-Microsoft. WSL 2 is a virtual machine with a Linux …-microsoft-standard….
        if facts.kernel.contains("-Microsoft") {
            Self::Wsl1
        } else if facts.kernel.contains("microsoft") {
            Self::Wsl2
        } else if facts.cpu.hypervisor {
            Self::VirtualMachine
        } else {
            Self::Metal
        }
    }
}

/// How a CPU is made to show vmx or svm, and to let them be used.
fn virtualization_remedy(facts: &HostFacts) -> String {
    match Surroundings::of(facts) {
        Surroundings::Metal => firmware_remedy(&facts.cpu.vendor),
        Surroundings::VirtualMachine => nested::remedy(&facts.maker),
        Surroundings::Wsl1 | Surroundings::Wsl2 => WSL_REMEDY.to_owned(),
    }
}

fn firmware_remedy(vendor: &str) -> String {
    let switch = match vendor {
        "GenuineIntel" => "`Intel Virtualization Technology (VT-x)`",
        "AuthenticAMD" | "HygonGenuine" => "`SVM Mode`",
        _ => "CPU virtualization (`VT-x` or `SVM Mode`)",
    };
    format!("in the firmware setup (BIOS), switch on {switch}, then power the machine off and on")
}

const WSL_REMEDY: &str = "on Windows 11, write `[wsl2]` and below it `nestedVirtualization=true` into \
    %UserProfile%\\.wslconfig, then run `wsl --shutdown` and start WSL again";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::check::Status;
    use crate::doctor::hosts::*;
    use crate::doctor::judge;

    #[test]
    fn another_architecture_can_never_run_guests() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.architecture = "aarch64";
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "architecture", "use an x86-64 Linux machine");
        assert_last_resort(&diagnosis);
    }

    #[test]
    fn wsl_1_must_become_wsl_2() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.kernel = "Linux version 4.4.0-19041-Microsoft (Microsoft@Microsoft.com)".into();
        assert_problem(&judge(&host), "environment", "wsl --set-version <distribution> 2");
    }

    #[test]
    fn wsl_2_without_vmx_needs_nested_virtualization_in_its_wslconfig() {
        let mut host = without_virtualization(healthy());
        host.cpu.hypervisor = true;
        host.kernel = "Linux version 5.15.153.1-microsoft-standard-WSL2 (root@941d701f84f1)".into();
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "cpu", "nestedVirtualization=true");
        assert_problem(&diagnosis, "cpu", ".wslconfig");
        assert!(check(&diagnosis, "environment").finding.ends_with("WSL2 in WSL 2"));
    }

    #[test]
    fn bare_metal_without_vmx_or_svm_needs_its_firmware_switch() {
        for (vendor, switch) in [("GenuineIntel", "VT-x"), ("AuthenticAMD", "SVM Mode")] {
            let mut host = without_virtualization(healthy());
            host.cpu.vendor = vendor.into();
            let diagnosis = judge(&host);
            assert_problem(&diagnosis, "cpu", "firmware setup");
            assert_problem(&diagnosis, "cpu", switch);
            assert_eq!(check(&diagnosis, "module").status, Status::Skipped);
        }
    }

    #[test]
    fn without_a_module_the_one_for_this_cpu_is_to_be_loaded() {
        for (virtualization, command) in [
            (Virtualization::Vmx, "`sudo modprobe kvm_intel`"),
            (Virtualization::Svm, "`sudo modprobe kvm_amd`"),
        ] {
            let mut host = without_kvm(healthy(), libc::ENOENT);
            host.cpu.virtualization = Some(virtualization);
            let diagnosis = judge(&host);
            assert_problem(&diagnosis, "module", command);
            assert_problem(&diagnosis, "device", "problem above");
            assert_eq!(diagnosis.kvm_flavour(), None);
            assert_eq!(check(&diagnosis, "guest").remedy, None, "this host is not hopeless");
        }
    }

    #[test]
    fn a_module_that_refused_the_cpu_points_to_the_firmware() {
        let mut host = without_kvm(healthy(), libc::ENODEV);
        host.modules = vec!["kvm_intel"];
        host.node = healthy().node;
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "module", "switch on `Intel Virtualization Technology (VT-x)`");
        assert_problem(&diagnosis, "module", "sudo dmesg | grep -i kvm");
        assert_eq!(check(&diagnosis, "device").finding, "/dev/kvm exists, but no KVM is behind it");
    }

    #[test]
    fn pvm_runs_guests_without_cpu_virtualization_but_slowly() {
        let mut host = healthy();
        host.cpu.virtualization = None;
        host.cpu.hypervisor = true;
        host.modules = vec!["kvm_pvm"];
        let diagnosis = judge(&host);
        assert!(diagnosis.can_run_guests());
        assert_eq!(diagnosis.kvm_flavour(), Some(Flavour::Pvm));
        assert_eq!(check(&diagnosis, "cpu").status, Status::Ok);
        assert_eq!(check(&diagnosis, "module").status, Status::Warning);
    }

    #[test]
    fn a_module_kept_out_by_another_hypervisor_names_it() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.modules = vec!["vboxdrv"];
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "module", "`sudo modprobe kvm_intel`");
        assert_problem(&diagnosis, "module", "`sudo modprobe -r vboxnetflt vboxnetadp vboxdrv`");
    }
}
