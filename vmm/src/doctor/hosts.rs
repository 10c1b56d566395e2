//! Made-up hosts for the tests of the checks: a healthy one, and ways to spoil it.

use std::time::Duration;

use super::Diagnosis;
use super::check::{Check, Status};
use super::facts::{CpuFacts, HostFacts, Virtualization};
use super::guest::GuestFacts;
use super::node::DeviceNode;
use super::probe::KvmFacts;
use crate::StopReason;

/// An Intel machine with everything in place.
pub(super) fn healthy() -> HostFacts {
    HostFacts {
        architecture: "x86_64",
        kernel: "Linux version 6.12.9-amd64 (debian-kernel@lists.debian.org)".into(),
        cpu: CpuFacts {
            vendor: "GenuineIntel".into(),
            virtualization: Some(Virtualization::Vmx),
            hypervisor: false,
        },
        maker: "LENOVO".into(),
        container: None,
        modules: vec!["kvm_intel"],
        kvm_registered: true,
        node: Some(kvm_node()),
        kvm: KvmFacts {
            opened: Ok(()),
            api_version: Some(12),
            missing: Some(Vec::new()),
            vm_created: Some(Ok(())),
            guest: Some(GuestFacts::Ran {
                stop: StopReason::Exited { code: 42 },
                time: Duration::from_micros(500),
            }),
        },
    }
}

/// The device as Debian makes it.
pub(super) fn kvm_node() -> DeviceNode {
    DeviceNode { mode: 0o660, group: "kvm".into(), group_lists_user: false }
}

pub(super) fn unopened(host: HostFacts, errno: i32) -> HostFacts {
    HostFacts { kvm: KvmFacts::after_opening(Err(errno)), ..host }
}

/// A host whose kernel has no KVM.
pub(super) fn without_kvm(host: HostFacts, errno: i32) -> HostFacts {
    HostFacts { modules: Vec::new(), kvm_registered: false, node: None, ..unopened(host, errno) }
}

/// A host whose CPU shows neither vmx nor svm, and so has no KVM.
pub(super) fn without_virtualization(host: HostFacts) -> HostFacts {
    let mut host = without_kvm(host, libc::ENOENT);
    host.cpu.virtualization = None;
    host
}

pub(super) fn check<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    diagnosis.checks().iter().find(|check| check.name == name).expect("a check of this name exists")
}

/// Claims that the check is a problem that no guest survives, and that its remedy has `words`.
pub(super) fn assert_problem(diagnosis: &Diagnosis, name: &str, words: &str) {
    let check = check(diagnosis, name);
    assert!(!diagnosis.can_run_guests());
    assert_eq!(check.status, Status::Problem, "{check:?}");
    let remedy = check.remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains(words), "no `{words}` in `{remedy}`");
}

pub(super) fn assert_last_resort(diagnosis: &Diagnosis) {
    let remedy = check(diagnosis, "guest").remedy.as_deref().unwrap_or_default();
    assert!(remedy.contains("use an x86-64 Linux machine that has /dev/kvm"), "{remedy}");
}
