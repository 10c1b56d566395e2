//! The check of /dev/kvm itself: it must be there, and let this user in.
//!
//! Opening it fails in two ways. Either there is no KVM behind the path (ENOENT; ENODEV when systemd has made the
//! file ahead of the module), or the user may not pass: EACCES is mostly the file's permissions, EPERM a rule above
//! them, such as a container's list of devices.

use std::io;

use super::check::Check;
use super::facts::HostFacts;

const NAME: &str = "device";

/// Whether /dev/kvm opens for reading and writing.
pub(super) fn device(facts: &HostFacts) -> Check {
    match facts.kvm.opened {
        Ok(()) => Check::ok(NAME, "/dev/kvm opens for reading and writing"),
        Err(libc::ENOENT | libc::ENODEV | libc::ENXIO) => missing(facts),
        Err(libc::EACCES) => not_permitted(facts),
        Err(libc::EPERM) => refused(facts),
        Err(errno) => Check::problem(
            NAME,
            format!("/dev/kvm cannot be opened: {}", io::Error::from_raw_os_error(errno)),
            "`sudo dmesg | tail` may have the reason",
        ),
    }
}

fn missing(facts: &HostFacts) -> Check {
    if facts.container.is_some() {
        let first = if facts.has_kvm() { "" } else { "once its host has KVM, " };
        return Check::problem(
            NAME,
            "this container has no /dev/kvm",
            format!("{first}start the container with `--device /dev/kvm`"),
        );
    }
    if facts.has_kvm() {
        return Check::problem(
            NAME,
            "the kernel has KVM, but /dev/kvm does not exist",
            "`sudo udevadm trigger --name-match=kvm`, or without udev `sudo mknod -m 660 /dev/kvm c 10 232`",
        );
    }
    let finding = match facts.node {
        Some(_) => "/dev/kvm exists, but no KVM is behind it",
        None => "/dev/kvm does not exist",
    };
    Check::problem(NAME, finding, "solve the problem above; /dev/kvm then comes by itself")
}

fn not_permitted(facts: &HostFacts) -> Check {
    let Some(node) = &facts.node else {
        return Check::problem(NAME, "this user may not look into /dev", "`sudo chmod 755 /dev`");
    };
    if node.mode & EVERYBODY == EVERYBODY {
        return refused(facts);
    }
    let group = &node.group;
    let finding =
        format!("this user may not open /dev/kvm: it has mode {:04o} and group `{group}`", node.mode);
    // Nobody should join the group `root` for this.
    let group_helps = node.mode & GROUP == GROUP && group != "root";
    let remedy = if facts.container.is_some() {
        container_remedy(group_helps)
    } else if !group_helps {
        format!("until the next start: `sudo setfacl -m u:$USER:rw /dev/kvm`; for good: {UDEV_RULE}")
    } else if node.group_lists_user {
        format!("log out and in again: /etc/group has this user in `{group}`, but this login is older")
    } else {
        format!("`sudo usermod -aG {group} $USER`, then log out and in again")
    };
    Check::problem(NAME, finding, remedy)
}

/// The permission bits that let a group read and write.
const GROUP: u32 = 0o060;
/// The permission bits that let everybody read and write.
const EVERYBODY: u32 = 0o006;

fn container_remedy(group_helps: bool) -> String {
    let join =
        "start the container with `--group-add $(stat -c %g /dev/kvm)` (podman: `--group-add keep-groups`)";
    if group_helps { join.to_owned() } else { format!("on the container's host, {UDEV_RULE}; then {join}") }
}

fn refused(facts: &HostFacts) -> Check {
    let remedy = if facts.container.is_some() {
        "start the container with `--device /dev/kvm`"
    } else {
        "in a systemd service, set `DeviceAllow=/dev/kvm rw`; elsewhere `sudo dmesg | tail` may name the rule"
    };
    Check::problem(NAME, "a rule above the permissions of /dev/kvm refuses it to this process", remedy)
}

/// Gives /dev/kvm to a group, now and at each start.
const UDEV_RULE: &str = "`echo 'KERNEL==\"kvm\", GROUP=\"kvm\", MODE=\"0660\"' | sudo tee \
    /etc/udev/rules.d/99-kvm.rules && sudo udevadm control --reload && sudo udevadm trigger --name-match=kvm`, and \
    join the group with `sudo usermod -aG kvm $USER`";

#[cfg(test)]
mod tests {
    use crate::doctor::check::Status;
    use crate::doctor::hosts::*;
    use crate::doctor::judge;
    use crate::doctor::node::DeviceNode;

    #[test]
    fn a_container_without_the_device_must_be_started_with_it() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.container = Some("/.dockerenv".into());
        host.kvm_registered = true;
        host.modules = vec!["kvm_intel"];
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "device", "start the container with `--device /dev/kvm`");
        assert_eq!(check(&diagnosis, "module").status, Status::Ok);
        assert!(check(&diagnosis, "environment").finding.contains("in a container (/.dockerenv)"));
    }

    #[test]
    fn a_container_on_a_host_without_the_module_needs_both() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.container = Some("/run/.containerenv".into());
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "module", "on the container's host, run `sudo modprobe kvm_intel`");
        assert_problem(&diagnosis, "device", "once its host has KVM");
        assert_problem(&diagnosis, "device", "--device /dev/kvm");
    }

    #[test]
    fn a_container_whose_device_list_lacks_kvm_must_be_started_with_it() {
        let mut host = unopened(healthy(), libc::EPERM);
        host.container = Some("/.dockerenv".into());
        assert_problem(&judge(&host), "device", "--device /dev/kvm");
    }

    #[test]
    fn a_container_user_outside_the_devices_group_must_be_given_it() {
        let mut host = unopened(healthy(), libc::EACCES);
        host.container = Some("/.dockerenv".into());
        assert_problem(&judge(&host), "device", "--group-add $(stat -c %g /dev/kvm)");
    }

    #[test]
    fn a_lost_device_file_is_made_again() {
        let mut host = without_kvm(healthy(), libc::ENOENT);
        host.kvm_registered = true;
        assert_problem(&judge(&host), "device", "`sudo udevadm trigger --name-match=kvm`");
    }

    #[test]
    fn a_user_outside_the_group_must_join_it_and_log_in_again() {
        let diagnosis = judge(&unopened(healthy(), libc::EACCES));
        assert_problem(&diagnosis, "device", "`sudo usermod -aG kvm $USER`");
        assert_problem(&diagnosis, "device", "log out and in again");
        assert_eq!(check(&diagnosis, "cpu").status, Status::Ok);
        assert_eq!(check(&diagnosis, "guest").status, Status::Skipped);
    }

    #[test]
    fn a_user_who_joined_after_logging_in_must_only_log_in_again() {
        let mut host = unopened(healthy(), libc::EACCES);
        host.node = Some(DeviceNode { group_lists_user: true, ..kvm_node() });
        let remedy = check(&judge(&host), "device").remedy.clone().unwrap_or_default();
        assert!(remedy.contains("log out and in again") && !remedy.contains("usermod"), "{remedy}");
    }

    #[test]
    fn a_device_that_no_group_may_open_needs_a_udev_rule() {
        let mut host = unopened(healthy(), libc::EACCES);
        host.node = Some(DeviceNode { mode: 0o600, group: "root".into(), group_lists_user: false });
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "device", "/etc/udev/rules.d/99-kvm.rules");
        assert_problem(&diagnosis, "device", "`sudo setfacl -m u:$USER:rw /dev/kvm`");
    }

    #[test]
    fn a_container_given_a_device_that_no_group_may_open_needs_the_rule_on_its_host() {
        let mut host = unopened(healthy(), libc::EACCES);
        host.container = Some("/.dockerenv".into());
        host.node = Some(DeviceNode { group: "root".into(), ..kvm_node() });
        let diagnosis = judge(&host);
        assert_problem(&diagnosis, "device", "on the container's host");
        assert_problem(&diagnosis, "device", "/etc/udev/rules.d/99-kvm.rules");
    }

    #[test]
    fn a_device_open_to_everybody_but_refused_is_no_matter_of_groups() {
        let mut host = unopened(healthy(), libc::EACCES);
        host.node = Some(DeviceNode { mode: 0o666, ..kvm_node() });
        assert_problem(&judge(&host), "device", "DeviceAllow=/dev/kvm rw");
    }
}
