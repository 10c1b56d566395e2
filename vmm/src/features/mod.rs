//! Features: what this host's KVM can do for a guest, found out by trying.
//!
//! KVM says little about itself, and CPUID promises more than some KVMs keep: one interprets guest kernels and lacks
//! instructions, another accepts registers and drops bits of them. So each feature has a guest of a few bytes that needs
//! it (`probe`), and the answer is what became of that guest. The table below is the one place that names features;
//! tests say by it what they need.

mod cache;
mod mode;
mod probe;

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::doctor::Flavour;
use crate::error::Result;

macro_rules! features {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// Something that one KVM can do for a guest and another cannot.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Feature {
            $($(#[doc = $doc])+ $variant,)+
        }

        impl Feature {
            /// All of them, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name for people and programs.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

features! {
    /// 16-bit code, as a CPU leaves reset.
    RealMode = "real mode",
    /// 32-bit code without paging.
    ProtectedMode = "32-bit protected mode",
    /// 32-bit code with two levels of page tables.
    Paging32 = "32-bit paging",
    /// 32-bit code with three levels of page tables.
    Pae = "PAE paging",
    /// 16-bit code under a 32-bit system.
    Virtual8086 = "virtual-8086 mode",
    /// Five levels of page tables.
    FiveLevelPaging = "5-level paging",
    /// Pages of 1 GiB.
    GigabytePages = "1 GiB pages",
    /// System-management mode.
    Smm = "system-management mode",
    /// `int3` raises #BP in ring 0.
    Int3 = "int3",
    /// `int n` raises an interrupt in ring 0.
    SoftwareInterrupt = "int n",
    /// `popcnt` in ring 0.
    Popcnt = "popcnt",
    /// `cmpxchg16b` in ring 0.
    Cmpxchg16b = "cmpxchg16b",
    /// SSE arithmetic in ring 0.
    Sse = "SSE",
    /// x87 arithmetic in ring 0.
    X87 = "x87",
    /// `rdtscp` in ring 0.
    Rdtscp = "rdtscp",
    /// `stac` and `clac`: supervisor-mode access prevention.
    Smap = "SMAP",
    /// A debugger can step.
    SingleStep = "single-step",
    /// A debugger can stop at `int3`.
    SoftwareBreakpoint = "software breakpoints",
    /// A debugger can stop at an address that is executed.
    HardwareBreakpoint = "hardware breakpoints",
    /// A debugger can stop at an address that is written.
    Watchpoint = "watchpoints",
    /// After a triple fault the registers still tell where it was.
    StateAfterTripleFault = "state after a triple fault",
    /// Registers come along with an exit, without ioctls.
    SyncRegs = "registers in kvm_run",
    /// The guest can be a hypervisor itself, by AMD's SVM.
    NestedSvm = "SVM in the guest",
    /// The guest can be a hypervisor itself, by Intel's VMX.
    NestedVmx = "VMX in the guest",
}

impl Feature {
    /// Tries just this one.
    ///
    /// # Errors
    /// When no guest can be run at all.
    pub fn try_out(self) -> Result<Finding> {
        probe::Host::open()?.find(self)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What became of the probe of a feature.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Finding {
    /// The feature's name.
    pub feature: String,
    /// Whether it is there.
    pub present: bool,
    /// What was seen instead, when it is not.
    pub seen: Option<String>,
}

/// What this host's KVM can do.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Features {
    /// Which of KVM's implementations this is, if it is a known one.
    pub kvm: Option<Flavour>,
    /// A finding for each of [`Feature::ALL`], in that order.
    pub findings: Vec<Finding>,
}

impl Features {
    /// Tries everything. Takes some milliseconds a feature, at most two seconds each.
    ///
    /// # Errors
    /// When no guest can be run at all.
    pub fn probe() -> Result<Self> {
        let host = probe::Host::open()?;
        let findings = Feature::ALL.iter().map(|&feature| host.find(feature)).collect::<Result<_>>()?;
        Ok(Self { kvm: Flavour::of_this_host(), findings })
    }

    /// What was found since this host has booted, or tries everything and keeps the findings in `folder`: one that only
    /// this user can write, such as XDG_RUNTIME_DIR.
    ///
    /// # Errors
    /// As [`probe`](Self::probe).
    pub fn known(folder: &Path) -> Result<Self> {
        if let Some(features) = cache::read(folder) {
            return Ok(features);
        }
        let features = Self::probe()?;
        cache::write(folder, &features);
        Ok(features)
    }

    /// Whether this KVM has `feature`.
    #[must_use]
    pub fn has(&self, feature: Feature) -> bool {
        self.find(feature).is_some_and(|finding| finding.present)
    }

    /// What was found about `feature`.
    #[must_use]
    pub fn find(&self, feature: Feature) -> Option<&Finding> {
        self.findings.iter().find(|finding| finding.feature == feature.name())
    }

    /// The name of the KVM: `kvm_amd`, or `this KVM` when it is none that is known.
    #[must_use]
    pub fn kvm_name(&self) -> &'static str {
        self.kvm.map_or("this KVM", Flavour::module)
    }

    /// The same for programs. Names of fields and features do not change.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("strings, booleans and lists are always JSON")
    }

    /// The table for people, in `colour` if the terminal shows any.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let width = Feature::ALL.iter().map(|feature| feature.name().len()).max().unwrap_or_default();
        let line = |finding: &Finding| {
            let (code, word) = if finding.present { ("\x1b[32m", "yes") } else { ("\x1b[33m", "no ") };
            let (on, off) = if colour { (code, "\x1b[0m") } else { ("", "") };
            let seen = finding.seen.as_deref().unwrap_or_default();
            format!("{on}{word}{off}  {:width$}  {seen}", finding.feature).trim_end().to_owned()
        };
        let mut lines = vec![format!("{} on this host:", self.kvm_name())];
        lines.extend(self.findings.iter().map(line));
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_feature_is_found_or_not_and_a_missing_one_says_what_was_seen() {
        let features = Features::probe().expect("this test needs /dev/kvm");
        assert_eq!(features.findings.len(), Feature::ALL.len());
        for finding in &features.findings {
            assert_eq!(finding.present, finding.seen.is_none(), "{finding:?}");
        }
        assert!(
            features.has(Feature::RealMode),
            "every KVM starts CPUs in real mode: {}",
            features.render(false)
        );
        assert!(features.has(Feature::SingleStep), "{}", features.render(false));
    }

    #[test]
    fn names_are_unique() {
        for (index, feature) in Feature::ALL.iter().enumerate() {
            assert!(!Feature::ALL[..index].iter().any(|other| other.name() == feature.name()), "{feature}");
        }
    }
}
