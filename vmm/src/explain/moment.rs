//! `Moment`: the state of a machine that is looked at, at its start or where it stopped, and which tables it had then.
//!
//! A vCPU that died of a triple fault may have been reset (kvm_amd does that, kvm_pvm does not): paging is off, RIP is
//! 0xfff0, and CR3 tells nothing. Then the tables of the start are the best there is, and the explanation says so.

use serde::Serialize;

use super::rules::Rules;
use super::tables::{Limits, Scan, read_table, scan};
use super::words::Hex;
use crate::cpus::{VcpuCount, VcpuId};
use crate::debug::CpuState;
use crate::error::Result;
use crate::page_walk::PageTables;
use crate::vm::Vm;
use x86_64::registers::control::EferFlags;

/// When a machine is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum When {
    /// Before the first instruction.
    Start,
    /// After the guest stopped.
    Stop,
}

/// The page tables that a machine uses, and how its CPU reads them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Moment {
    /// When that was.
    pub when: When,
    /// Whose tables they are, where the machine has several vCPUs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vcpu: Option<VcpuId>,
    /// CR3.
    pub cr3: Hex,
    /// Why these are the tables of the start although the machine has stopped, if they are.
    pub note: Option<String>,
    #[serde(skip)]
    pub(super) rules: Option<Rules>,
    #[serde(skip)]
    pub(super) tables: Option<PageTables>,
}

/// Where a CPU continues after a reset (Intel SDM vol. 3A, table 10-1).
const RESET_RIP: u64 = 0xFFF0;

impl Moment {
    /// The machine as it is now, which is `when`.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn of(vm: &Vm, when: When) -> Result<Self> {
        Ok(Self::from_state(vm, when, &vm.cpu_state()?))
    }

    fn from_state(vm: &Vm, when: When, cpu: &CpuState) -> Self {
        let no_execute = cpu.special.efer & EferFlags::NO_EXECUTE_ENABLE.bits() != 0;
        let vcpu = (vm.vcpu_count() > VcpuCount::ONE).then(|| vm.vcpu().id());
        let now = Rules { address_bits: vm.address_bits(), no_execute };
        match (cpu.page_tables(), vm.map().first_tables()) {
            (Some(tables), _) => {
                Self { when, vcpu, cr3: Hex(tables.cr3), note: None, rules: Some(now), tables: Some(tables) }
            }
            (None, Some(first)) => {
                let reset = cpu.general.rip == RESET_RIP;
                let why = if reset { "the vCPU was reset when it died" } else { "paging is off now" };
                let note = Some(format!("{why}: these are the tables that CR3 pointed to at the start"));
                let rules = Some(Rules { no_execute: true, ..now });
                Self { when, vcpu, cr3: Hex(first.cr3), note, rules, tables: Some(first) }
            }
            (None, None) => {
                let note = Some("paging is off: every address is a physical one".to_owned());
                Self { when, vcpu, cr3: Hex(cpu.special.cr3), note, rules: Some(now), tables: None }
            }
        }
    }

    /// ` of vCPU 2`, where the machine has several; else nothing.
    pub(super) fn whose(&self) -> String {
        self.vcpu.map(|vcpu| format!(" of {vcpu}")).unwrap_or_default()
    }

    /// The tables that translate; `None` while every address is a physical one.
    #[must_use]
    pub fn tables(&self) -> Option<PageTables> {
        self.tables
    }

    /// How the CPU reads entries.
    #[must_use]
    pub fn rules(&self) -> Rules {
        self.rules.unwrap_or(Rules::WIDEST)
    }

    /// All tables of this moment.
    #[must_use]
    pub fn scan(&self, vm: &Vm) -> Scan {
        match self.tables {
            Some(tables) => scan(tables, self.rules(), Limits::default(), |gpa| read_table(vm.memory(), gpa)),
            None => Scan::of_physical(&vm.map().ram()),
        }
    }
}
