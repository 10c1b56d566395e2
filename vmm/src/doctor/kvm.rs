//! Checks of what KVM answers, up to a guest that really ran.

use std::io;

use super::check::Check;
use super::facts::HostFacts;
use super::guest::{EXIT_CODE, GuestFacts};
use super::probe::{CAPABILITIES, Need};
use super::rival;
use crate::StopReason;
use crate::vm::KVM_API_VERSION;

const NOT_REACHED: &str = "not reached: see the problem above";

/// Whether KVM speaks the version of the API that this program speaks.
pub(super) fn api(facts: &HostFacts) -> Check {
    const NAME: &str = "api";
    match facts.kvm.api_version {
        None => Check::skipped(NAME, NOT_REACHED),
        Some(KVM_API_VERSION) => Check::ok(NAME, format!("KVM API version {KVM_API_VERSION}")),
        Some(..0) => Check::problem(
            NAME,
            "/dev/kvm opens, but what opens is not KVM",
            "`sudo rm /dev/kvm && sudo mknod -m 660 /dev/kvm c 10 232` makes it anew",
        ),
        Some(other) => Check::problem(
            NAME,
            format!("KVM API version {other}, not {KVM_API_VERSION}"),
            "use a Linux from 2.6.22 on: all of them have version 12",
        ),
    }
}

/// Whether KVM has what the VMM calls.
pub(super) fn capabilities(facts: &HostFacts) -> Check {
    const NAME: &str = "capabilities";
    let Some(missing) = &facts.kvm.missing else {
        return Check::skipped(NAME, NOT_REACHED);
    };
    let named = |need| {
        let names: Vec<&str> = missing
            .iter()
            .filter(|capability| capability.need == need)
            .map(|capability| capability.name)
            .collect();
        names.join(", ")
    };
    let (required, optional) = (named(Need::Required), named(Need::Optional));
    match (required.as_str(), optional.as_str()) {
        ("", "") => Check::ok(NAME, format!("all {} that can be of use", CAPABILITIES.len())),
        ("", optional) => Check::warning(
            NAME,
            format!("guests run, but cannot have {optional}"),
            "a newer Linux kernel may have it",
        ),
        (required, _) => Check::problem(
            NAME,
            format!("KVM lacks {required}"),
            "install a newer Linux kernel: 4.11 has all that is needed",
        ),
    }
}

/// Whether KVM creates a VM: the first thing that needs the CPU's virtualization for itself.
pub(super) fn machine(facts: &HostFacts) -> Check {
    const NAME: &str = "machine";
    match facts.kvm.vm_created {
        None => Check::skipped(NAME, NOT_REACHED),
        Some(Ok(())) => Check::ok(NAME, "KVM creates virtual machines"),
        Some(Err(libc::EBUSY)) => Check::problem(
            NAME,
            "another hypervisor holds the CPU's virtualization (EBUSY)",
            rival::remedy(facts).unwrap_or("quit it; `lsmod | grep -E 'vbox|vmmon'` may name it"),
        ),
        Some(Err(errno)) => Check::problem(
            NAME,
            format!("KVM_CREATE_VM failed: {}", io::Error::from_raw_os_error(errno)),
            "`sudo dmesg | grep -i kvm` may have the reason",
        ),
    }
}

/// Whether the smallest guest ran: what all other checks only promise.
pub(super) fn guest(facts: &HostFacts) -> Check {
    const NAME: &str = "guest";
    const WANTED: StopReason = StopReason::Exited { code: EXIT_CODE as u32 };
    match &facts.kvm.guest {
        None => Check { remedy: last_resort(facts), ..Check::skipped(NAME, NOT_REACHED) },
        Some(GuestFacts::Ran { stop: WANTED, time }) => Check::ok(
            NAME,
            format!("a guest ran and ended with exit code {EXIT_CODE} in {} µs", time.as_micros()),
        ),
        Some(GuestFacts::Ran { stop, .. }) => Check::problem(
            NAME,
            format!("a guest that should end with exit code {EXIT_CODE} did not: {stop}"),
            SICK_KVM_REMEDY,
        ),
        Some(GuestFacts::Failed(error)) => {
            Check::problem(NAME, format!("no guest could be started: {error}"), SICK_KVM_REMEDY)
        }
    }
}

const SICK_KVM_REMEDY: &str = "`sudo dmesg | tail` may have the reason; a newer Linux kernel may help";

/// What is left when this host cannot be given KVM at all.
fn last_resort(facts: &HostFacts) -> Option<String> {
    let hopeless = facts.architecture != "x86_64" || facts.cpu.virtualization.is_none() && !facts.has_kvm();
    hopeless.then(|| {
        "where the problems above cannot be solved, use an x86-64 Linux machine that has /dev/kvm, bare metal or with \
         nested virtualization; or `cargo xtask run --kvm qemu`, which runs guests without it, some seconds slower, in a \
         machine that QEMU emulates"
            .to_owned()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::doctor::check::Status;
    use crate::doctor::hosts::*;
    use crate::doctor::judge;
    use crate::doctor::probe::KvmFacts;

    #[test]
    fn something_else_in_the_place_of_the_device_is_recognised() {
        let mut host = healthy();
        host.kvm = KvmFacts { api_version: Some(-1), ..KvmFacts::after_opening(Ok(())) };
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "api", "sudo mknod -m 660 /dev/kvm c 10 232");
        assert_eq!(check(&diagnosis, "capabilities").status, Status::Skipped);
    }

    #[test]
    fn a_missing_optional_capability_is_a_warning() {
        let mut host = healthy();
        host.kvm.missing = Some(CAPABILITIES.iter().filter(|c| c.name == "KVM_CAP_SYNC_REGS").collect());
        let diagnosis = judge(&host);
        let capabilities = check(&diagnosis, "capabilities");
        assert_eq!(capabilities.status, Status::Warning);
        assert!(capabilities.finding.ends_with("KVM_CAP_SYNC_REGS"));
        assert!(diagnosis.can_run_guests());
    }

    #[test]
    fn a_missing_required_capability_needs_a_newer_kernel() {
        let mut host = healthy();
        host.kvm.missing = Some(CAPABILITIES.iter().collect());
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "capabilities", "newer Linux kernel");
        assert!(check(&diagnosis, "capabilities").finding.ends_with("KVM_CAP_IMMEDIATE_EXIT"));
    }

    #[test]
    fn a_busy_cpu_names_the_hypervisor_that_holds_it() {
        for (other, command) in [
            ("vboxdrv", "`sudo modprobe -r vboxnetflt vboxnetadp vboxdrv`"),
            ("vmmon", "`sudo modprobe -r vmmon`"),
            ("unknown", "lsmod"),
        ] {
            let mut host = healthy();
            host.modules.push(other);
            host.kvm.vm_created = Some(Err(libc::EBUSY));
            host.kvm.guest = None;
            assert_problem(&judge(&host), "machine", command);
        }
    }

    #[test]
    fn a_guest_that_does_not_end_as_it_should_is_a_problem() {
        let wrong = [
            GuestFacts::Ran { stop: StopReason::TripleFault, time: Duration::ZERO },
            GuestFacts::Failed("KVM_SET_CPUID2 failed".into()),
        ];
        for guest in wrong {
            let mut host = healthy();
            host.kvm.guest = Some(guest);
            assert_problem(&judge(&host), "guest", "sudo dmesg");
        }
    }
}
