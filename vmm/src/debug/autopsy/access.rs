//! Memory accesses as the CPU makes them: translated, with the rights that the access needs.

use shared_abi::Gva;
use x86_64::registers::control::{Cr0Flags, Cr4Flags, EferFlags};
use x86_64::registers::rflags::RFlags;

use super::Raised;
use crate::debug::CpuState;
use crate::debug::exception::{Exception, page_fault, vector};
use crate::debug::mode::Mode;
use crate::memory::GuestMemory;
use crate::page_walk::{Mapping, WalkError, trace};

/// What an access does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Fetches instructions.
    Fetch,
}

/// The machine at the moment of death: what decides about every access.
#[derive(Clone, Copy, Debug)]
pub struct Scene<'a> {
    /// The registers.
    pub state: &'a CpuState,
    /// RAM.
    pub memory: &'a GuestMemory,
}

/// Far more than any instruction accesses at once.
const MAX_SIZE: u64 = 64 << 10;

impl Scene<'_> {
    /// The current privilege level: the DPL of SS (Intel SDM vol. 3A, 5.5).
    pub(super) fn cpl(&self) -> u8 {
        match self.mode() {
            Mode::Real => 0,
            Mode::Virtual8086 => 3,
            _ => self.state.special.ss.dpl & 3,
        }
    }

    /// Checks an access of `size` bytes as the code that runs makes it.
    pub(super) fn check(&self, gva: Gva, size: u64, kind: Kind) -> Result<(), Raised> {
        self.check_as(gva, size, kind, self.cpl() == 3)
    }

    /// Checks an access that the CPU makes itself, as if in ring 0: to descriptor tables, to a TSS.
    pub(super) fn check_system(&self, gva: Gva, size: u64, kind: Kind) -> Result<(), Raised> {
        self.check_as(gva, size, kind, false)
    }

    /// Checks an access made in user mode or not. The lowest page that fails is what CR2 names.
    pub(super) fn check_as(&self, gva: Gva, size: u64, kind: Kind, is_user: bool) -> Result<(), Raised> {
        let last = gva.0.wrapping_add(size.clamp(1, MAX_SIZE) - 1);
        let mut page = gva;
        loop {
            self.check_page(page, kind, is_user)?;
            let next = Gva((page.0 & !0xFFF).wrapping_add(0x1000));
            if last.wrapping_sub(gva.0) < next.0.wrapping_sub(gva.0) {
                return Ok(());
            }
            page = next;
        }
    }

    fn check_page(&self, gva: Gva, kind: Kind, is_user: bool) -> Result<(), Raised> {
        let Some(cr3) = self.state.page_tables() else { return Ok(()) };
        let walk = trace(cr3, gva, |gpa| self.memory.read_u64(gpa).ok());
        let base = self.error_code(kind, is_user);
        let fault = |bits, why: String| Raised::new(Exception::page_fault(gva, base | bits), why);
        let no_execute_is_reserved = !self.efer().contains(EferFlags::NO_EXECUTE_ENABLE);
        let reserved = walk.steps.iter().find(|step| {
            no_execute_is_reserved && step.entry.is_some_and(|entry| entry & 1 != 0 && entry >> 63 != 0)
        });
        if let Some(step) = reserved {
            let why = format!("{step} has bit 63 set, which is reserved while EFER.NXE is 0");
            return Err(fault(page_fault::PRESENT | page_fault::RESERVED, why));
        }
        match walk.end {
            Err(WalkError::NonCanonical) => {
                Err(Raised::new(Exception::with_error(vector::GP, 0), format!("{gva} is not canonical")))
            }
            Err(WalkError::ReservedBit(_)) => {
                Err(fault(page_fault::PRESENT | page_fault::RESERVED, walk.reason()))
            }
            Err(_) => Err(fault(0, walk.reason())),
            Ok(mapping) => match self.forbids(&mapping, kind, is_user) {
                None => Ok(()),
                Some(right) => {
                    let place = walk.steps.last().map(ToString::to_string).unwrap_or_default();
                    Err(fault(page_fault::PRESENT, format!("{place} maps {right}")))
                }
            },
        }
    }

    /// The bits that do not depend on what the walk finds.
    fn error_code(&self, kind: Kind, is_user: bool) -> u32 {
        let tells_fetches = self.efer().contains(EferFlags::NO_EXECUTE_ENABLE)
            || self.cr4().contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION);
        let user = if is_user { page_fault::USER } else { 0 };
        user | match kind {
            Kind::Write => page_fault::WRITE,
            Kind::Fetch if tells_fetches => page_fault::FETCH,
            Kind::Read | Kind::Fetch => 0,
        }
    }

    /// Which right is missing. Intel SDM vol. 3A, 4.6.
    fn forbids(&self, mapping: &Mapping, kind: Kind, is_user: bool) -> Option<&'static str> {
        let write_protects =
            Cr0Flags::from_bits_retain(self.state.special.cr0).contains(Cr0Flags::WRITE_PROTECT);
        let smep = self.cr4().contains(Cr4Flags::SUPERVISOR_MODE_EXECUTION_PROTECTION);
        let smap = self.cr4().contains(Cr4Flags::SUPERVISOR_MODE_ACCESS_PREVENTION);
        let may_touch_user =
            RFlags::from_bits_retain(self.state.general.rflags).contains(RFlags::ALIGNMENT_CHECK);
        if is_user && !mapping.user {
            return Some("the page for the kernel only");
        }
        match kind {
            Kind::Fetch if !mapping.executable => Some("the page as not executable"),
            Kind::Fetch if !is_user && mapping.user && smep => {
                Some("the page for user mode, where CR4.SMEP lets the kernel fetch nothing")
            }
            Kind::Write if !mapping.writable && (is_user || write_protects) => Some("the page as read-only"),
            Kind::Read | Kind::Write if !is_user && mapping.user && smap && !may_touch_user => {
                Some("the page for user mode, which CR4.SMAP keeps from the kernel")
            }
            _ => None,
        }
    }

    /// The 64-bit word at `gva`, read as the CPU itself reads it.
    pub(super) fn read_word(&self, gva: Gva) -> Result<u64, Raised> {
        self.check_system(gva, 8, Kind::Read)?;
        Ok(self.peek(gva))
    }

    /// The 64-bit word at `gva`, whoever may read it; outside RAM all ones, as on an empty bus.
    pub(super) fn peek(&self, gva: Gva) -> u64 {
        let mut bytes = [0xFF; 8];
        for (index, byte) in bytes.iter_mut().enumerate() {
            let gva = Gva(gva.0.wrapping_add(index as u64));
            let mut one = [0xFF];
            if let Some(mapping) = self.state.space(self.memory).translate(gva)
                && self.memory.read(mapping.gpa, &mut one).is_ok()
            {
                [*byte] = one;
            }
        }
        u64::from_le_bytes(bytes)
    }

    /// Whether long mode is on, at whatever code.
    pub(super) fn is_long(&self) -> bool {
        matches!(self.mode(), Mode::Long | Mode::Compatibility)
    }

    pub(super) fn efer(&self) -> EferFlags {
        EferFlags::from_bits_retain(self.state.special.efer)
    }

    pub(super) fn cr4(&self) -> Cr4Flags {
        Cr4Flags::from_bits_retain(self.state.special.cr4)
    }
}
