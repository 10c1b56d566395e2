//! Segment descriptors: looked up in the guest's GDT and LDT, and judged as the CPU does when it loads one.
//!
//! ```text
//! selector  15            3  2  1 0      descriptor  47  46 45  44  43 40        53  54
//!           │ index × 8    │TI│RPL│                  │ P │ DPL │ S │ type │ …     │ L │ D │ …
//! ```
//!
//! Intel SDM vol. 3A, 3.4.2 and 3.4.5.

use shared_abi::Gva;

use super::Raised;
use super::access::Scene;
use crate::debug::exception::{Exception, vector};

/// A selector, as a guest loads one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Selector(pub(super) u16);

impl Selector {
    pub(super) fn is_null(self) -> bool {
        self.0 & !3 == 0
    }

    pub(super) fn rpl(self) -> u8 {
        (self.0 & 3) as u8
    }

    /// The selector as an error code has it.
    pub(super) fn error(self, external: bool) -> u32 {
        u32::from(self.0 & !3) | u32::from(external)
    }
}

/// A descriptor: the lower 8 bytes, which code and data segments have alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Descriptor(pub(super) u64);

impl Descriptor {
    pub(super) fn is_present(self) -> bool {
        self.0 >> 47 & 1 != 0
    }

    pub(super) fn dpl(self) -> u8 {
        (self.0 >> 45 & 3) as u8
    }

    /// Code or data, not a system segment or gate.
    fn is_segment(self) -> bool {
        self.0 >> 44 & 1 != 0
    }

    pub(super) fn kind(self) -> u8 {
        (self.0 >> 40 & 0xF) as u8
    }

    pub(super) fn is_code(self) -> bool {
        self.is_segment() && self.kind() & 0b1000 != 0
    }

    pub(super) fn is_conforming(self) -> bool {
        self.is_code() && self.kind() & 0b100 != 0
    }

    pub(super) fn is_writable_data(self) -> bool {
        self.is_segment() && self.kind() & 0b1010 == 0b0010
    }

    fn is_readable(self) -> bool {
        self.is_segment() && (self.kind() & 0b1000 == 0 || self.kind() & 0b10 != 0)
    }

    /// The first byte.
    pub(super) fn base(self) -> u64 {
        (self.0 >> 16 & 0xFF_FFFF) | (self.0 >> 56 & 0xFF) << 24
    }

    /// The last byte: G makes it count pages.
    pub(super) fn limit(self) -> u64 {
        let limit = (self.0 & 0xFFFF) | (self.0 >> 48 & 0xF) << 16;
        if self.0 >> 55 & 1 != 0 { limit << 12 | 0xFFF } else { limit }
    }

    pub(super) fn is_64_bit_code(self) -> bool {
        self.0 >> 53 & 1 != 0 && self.0 >> 54 & 1 == 0
    }

    fn has_both_l_and_d(self) -> bool {
        self.0 >> 53 & 3 == 3
    }

    /// A system descriptor of this type.
    pub(super) fn is_system(self, kind: u8) -> bool {
        !self.is_segment() && self.kind() == kind
    }
}

/// What an available 64-bit TSS is called in a descriptor. Intel SDM vol. 3A, table 3-2.
pub(super) const AVAILABLE_TSS: u8 = 0b1001;
/// And an LDT.
pub(super) const LDT: u8 = 0b0010;

impl Scene<'_> {
    /// The descriptor that a selector other than null names.
    pub(super) fn descriptor(&self, selector: Selector, external: bool) -> Result<Descriptor, Raised> {
        let special = &self.state.special;
        let (name, base, limit) = match selector.0 & 4 {
            0 => ("GDT", special.gdt.base, Some(u32::from(special.gdt.limit))),
            _ => ("LDT", special.ldt.base, (special.ldt.unusable == 0).then_some(special.ldt.limit)),
        };
        let offset = u32::from(selector.0 & !7);
        if limit.is_none_or(|limit| offset + 7 > limit) {
            let limit =
                limit.map_or("and there is none".to_owned(), |limit| format!("with limit {limit:#x}"));
            let why = format!("selector {:#x} is outside the {name} {limit}", selector.0);
            return Err(general_protection(selector, external, why));
        }
        let gva = Gva(base.wrapping_add(offset.into()));
        let read =
            self.read_word(gva).map_err(|raised| raised.during(&format!("reading the {name} at {gva}")))?;
        Ok(Descriptor(read))
    }

    /// Checks that `selector` names a code segment that a handler can run in: 64-bit, of ring 0 to the current one.
    pub(super) fn check_handler_code(&self, selector: Selector) -> Result<Descriptor, Raised> {
        let descriptor = self.check_handler_code_of_32_bits(selector)?;
        if !descriptor.is_64_bit_code() {
            let why =
                format!("the gate's code selector {:#x} names a segment that is not 64-bit", selector.0);
            return Err(general_protection(selector, true, why));
        }
        self.check_handler_is_present(selector, descriptor)
    }

    /// The same outside long mode, where a handler has 16 or 32 bits.
    pub(super) fn check_handler_code_of_32_bits(&self, selector: Selector) -> Result<Descriptor, Raised> {
        let refuse = |why: &str| {
            general_protection(selector, true, format!("the gate's code selector {:#x} {why}", selector.0))
        };
        if selector.is_null() {
            let why = "the gate's code selector is null".to_owned();
            return Err(Raised::new(Exception::with_error(vector::GP, 1), why));
        }
        let descriptor =
            self.descriptor(selector, true).map_err(|raised| raised.during("the gate's code segment"))?;
        if !descriptor.is_code() {
            return Err(refuse("names no code segment"));
        }
        if descriptor.dpl() > self.cpl() {
            return Err(refuse("names a segment of an outer ring"));
        }
        Ok(descriptor)
    }

    pub(super) fn check_handler_is_present(
        &self,
        selector: Selector,
        descriptor: Descriptor,
    ) -> Result<Descriptor, Raised> {
        if descriptor.is_present() {
            return Ok(descriptor);
        }
        let why = format!("the gate's code segment {:#x} is not present", selector.0);
        Err(Raised::new(Exception::with_error(vector::NP, selector.error(true)), why))
    }

    /// Checks what a far jump or call loads into CS: code of this ring.
    pub(super) fn check_far_target(&self, selector: Selector) -> Result<Descriptor, Raised> {
        let refuse = |why: &str| general_protection(selector, false, format!("CS {:#x} {why}", selector.0));
        if selector.is_null() {
            return Err(Raised::new(Exception::with_error(vector::GP, 0), "the new CS is null".to_owned()));
        }
        let descriptor = self.descriptor(selector, false)?;
        if !descriptor.is_code() {
            return Err(refuse("names no code segment"));
        }
        if !descriptor.is_conforming() && descriptor.dpl() != self.cpl() {
            return Err(refuse("names a segment of another ring"));
        }
        if !descriptor.is_present() {
            let why = format!("CS {:#x} is not present", selector.0);
            return Err(Raised::new(Exception::with_error(vector::NP, selector.error(false)), why));
        }
        Ok(descriptor)
    }

    /// Checks what is loaded into SS outside 64-bit mode, where it cannot be null.
    pub(super) fn check_stack_segment_of_32_bits(&self, selector: Selector) -> Result<(), Raised> {
        if selector.is_null() {
            return Err(Raised::new(Exception::with_error(vector::GP, 0), "the new SS is null".to_owned()));
        }
        self.check_stack_segment(selector, self.cpl())
    }

    /// Checks what a far return or an `iretq` loads into CS.
    pub(super) fn check_return_code(&self, selector: Selector) -> Result<(), Raised> {
        let refuse = |why: &str| general_protection(selector, false, format!("CS {:#x} {why}", selector.0));
        if selector.is_null() {
            return Err(Raised::new(Exception::with_error(vector::GP, 0), "the new CS is null".to_owned()));
        }
        let descriptor = self.descriptor(selector, false)?;
        if !descriptor.is_code() {
            return Err(refuse("names no code segment"));
        }
        if selector.rpl() < self.cpl() {
            return Err(refuse("would lead to an inner ring"));
        }
        if descriptor.is_conforming() && descriptor.dpl() > selector.rpl()
            || !descriptor.is_conforming() && descriptor.dpl() != selector.rpl()
        {
            return Err(refuse("asks for another ring than its segment has"));
        }
        if descriptor.has_both_l_and_d() {
            return Err(refuse("names a segment with both L and D set"));
        }
        if !descriptor.is_present() {
            let why = format!("CS {:#x} is not present", selector.0);
            return Err(Raised::new(Exception::with_error(vector::NP, selector.error(false)), why));
        }
        Ok(())
    }

    /// Checks what is loaded into SS for ring `ring`.
    pub(super) fn check_stack_segment(&self, selector: Selector, ring: u8) -> Result<(), Raised> {
        if selector.is_null() {
            // In 64-bit mode the kernel may have none.
            return if ring < 3 && selector.rpl() == ring {
                Ok(())
            } else {
                Err(Raised::new(Exception::with_error(vector::GP, 0), "the new SS is null".to_owned()))
            };
        }
        let descriptor = self.descriptor(selector, false)?;
        if selector.rpl() != ring || !descriptor.is_writable_data() || descriptor.dpl() != ring {
            let why = format!("SS {:#x} names no writable data segment of ring {ring}", selector.0);
            return Err(general_protection(selector, false, why));
        }
        if !descriptor.is_present() {
            let why = format!("SS {:#x} is not present", selector.0);
            return Err(Raised::new(Exception::with_error(vector::SS, selector.error(false)), why));
        }
        Ok(())
    }

    /// Checks what is loaded into DS, ES, FS or GS.
    pub(super) fn check_data_segment(&self, selector: Selector) -> Result<(), Raised> {
        if selector.is_null() {
            return Ok(());
        }
        let descriptor = self.descriptor(selector, false)?;
        let weaker = selector.rpl().max(self.cpl());
        if !descriptor.is_readable() || !descriptor.is_conforming() && weaker > descriptor.dpl() {
            let why = format!("selector {:#x} names no segment that can be read from this ring", selector.0);
            return Err(general_protection(selector, false, why));
        }
        if !descriptor.is_present() {
            let why = format!("selector {:#x} names a segment that is not present", selector.0);
            return Err(Raised::new(Exception::with_error(vector::NP, selector.error(false)), why));
        }
        Ok(())
    }

    /// Checks what `ltr` or `lldt` loads: a present system descriptor of this type in the GDT.
    pub(super) fn check_system_segment(
        &self,
        selector: Selector,
        kind: u8,
        name: &str,
    ) -> Result<(), Raised> {
        if selector.is_null() {
            return if kind == LDT {
                Ok(())
            } else {
                Err(Raised::new(Exception::with_error(vector::GP, 0), format!("the {name} selector is null")))
            };
        }
        if selector.0 & 4 != 0 {
            let why = format!("selector {:#x} is of the LDT", selector.0);
            return Err(general_protection(selector, false, why));
        }
        let descriptor = self.descriptor(selector, false)?;
        if !descriptor.is_system(kind) {
            let why = format!("selector {:#x} names no available {name}", selector.0);
            return Err(general_protection(selector, false, why));
        }
        if !descriptor.is_present() {
            let why = format!("the {name} {:#x} is not present", selector.0);
            return Err(Raised::new(Exception::with_error(vector::NP, selector.error(false)), why));
        }
        Ok(())
    }
}

fn general_protection(selector: Selector, external: bool, why: String) -> Raised {
    Raised::new(Exception::with_error(vector::GP, selector.error(external)), why)
}
