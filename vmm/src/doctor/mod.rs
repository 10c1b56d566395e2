//! The doctor: can guests run on this host, and if not, what to type.
//!
//! Between a fresh Linux and a running guest stand a CPU feature, a firmware switch, a kernel module, a device file
//! and its permissions; on a virtual machine, in WSL or in a container each of them has a second owner. The doctor
//! looks at all of them and, at the end, runs a guest, so that "yes" is a fact.
//!
//! ```text
//! facts    looks at the host and judges nothing          -> HostFacts
//!   node     at the file /dev/kvm                        -> DeviceNode
//!   probe    at KVM: opens it, asks it, creates a VM     -> KvmFacts
//!   guest    and runs the smallest guest                 -> GuestFacts
//! host, device, kvm    a pure function for each check:   &HostFacts -> Check
//!   nested, rival        what other hypervisors need to be told
//! check    how a check is shown                          -> text, JSON
//! ```
//!
//! Nothing but the first four touches the host, so the tests judge made-up hosts (`hosts`).

mod check;
mod device;
mod facts;
mod guest;
mod host;
mod kvm;
mod nested;
mod node;
mod probe;
mod rival;

#[cfg(test)]
mod hosts;

use std::fmt;

use serde::Serialize;

pub use check::{Check, Status};
pub use facts::Flavour;

use facts::HostFacts;

/// What the doctor found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnosis {
    can_run_guests: bool,
    kvm_flavour: Option<Flavour>,
    checks: Vec<Check>,
}

/// Examines this host. Takes some milliseconds when all is well: it runs a guest.
#[must_use]
pub fn examine() -> Diagnosis {
    judge(&HostFacts::collect())
}

/// Judges a host by its facts. Checks stand in the order in which their problems must be solved.
fn judge(facts: &HostFacts) -> Diagnosis {
    let checks = vec![
        host::architecture(facts),
        host::environment(facts),
        host::cpu(facts),
        host::module(facts),
        device::device(facts),
        kvm::api(facts),
        kvm::capabilities(facts),
        kvm::machine(facts),
        kvm::guest(facts),
    ];
    Diagnosis { can_run_guests: checks.iter().all(Check::passed), kvm_flavour: facts.flavour(), checks }
}

impl Diagnosis {
    /// Whether guests can run here: every check passed, and the last of them ran one.
    #[must_use]
    pub fn can_run_guests(&self) -> bool {
        self.can_run_guests
    }

    /// Which of KVM's implementations this host has, if any.
    #[must_use]
    pub fn kvm_flavour(&self) -> Option<Flavour> {
        self.kvm_flavour
    }

    /// The checks, in the order in which their problems must be solved.
    #[must_use]
    pub fn checks(&self) -> &[Check] {
        &self.checks
    }

    /// The same for programs. Names of fields, checks and statuses do not change.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, booleans and lists are always JSON")
    }

    /// The same for people, as [`Display`](fmt::Display) has it, in `colour` if the terminal shows any.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let lines: Vec<String> = self.checks.iter().map(|check| check.render(colour)).collect();
        lines.join("\n")
    }
}

impl fmt::Display for Diagnosis {
    /// A line for each check, its remedy on the next one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

#[cfg(test)]
mod tests {
    use super::hosts::*;
    use super::*;

    #[test]
    fn a_healthy_host_can_run_guests_and_every_check_is_ok() {
        let diagnosis = judge(&healthy());
        assert!(diagnosis.can_run_guests());
        assert_eq!(diagnosis.kvm_flavour(), Some(Flavour::Intel));
        for check in diagnosis.checks() {
            assert_eq!((check.status, &check.remedy), (Status::Ok, &None), "{check:?}");
        }
    }

    #[test]
    fn json_has_stable_names() {
        let json: serde_json::Value =
            serde_json::from_str(&judge(&unopened(healthy(), libc::EACCES)).to_json()).expect("is JSON");
        assert_eq!(json["can_run_guests"], false);
        assert_eq!(json["kvm_flavour"], "intel");
        assert_eq!(json["checks"][0]["name"], "architecture");
        assert_eq!(json["checks"][0]["status"], "ok");
        assert_eq!(json["checks"][0]["finding"], "x86-64");
        assert!(json["checks"][0]["remedy"].is_null());
        assert_eq!(json["checks"][4]["status"], "problem");
    }
}
