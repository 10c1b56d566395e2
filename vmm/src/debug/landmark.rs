//! Landmarks: what lies at an address of the guest, in words, and what an access there most often means.

use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, Gva, layout};

use crate::boot::guest_map::GuestMap;
use crate::boot::region::{Region, RegionKind};
use crate::debug::instruction::is_canonical;
use crate::debug::{CpuState, Symbols};
use crate::memory::GuestMemory;

/// What lies at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landmark {
    /// What it is, as a clause without article at the front of a sentence: `page 0: null dereference`.
    pub what: String,
    /// What to do about an access there, when that can be told.
    pub hint: Option<&'static str>,
}

impl Landmark {
    fn new(what: impl Into<String>, hint: Option<&'static str>) -> Self {
        Self { what: what.into(), hint }
    }
}

/// What is needed to say it.
#[derive(Clone, Copy, Debug)]
pub struct Landmarks<'a> {
    /// What was put where at start.
    pub map: &'a GuestMap,
    /// RAM.
    pub memory: &'a GuestMemory,
    /// The names of code and data.
    pub symbols: &'a Symbols,
}

/// Addresses below this are a null pointer with an offset.
const NULL_END: u64 = layout::NULL_PAGE.0 + layout::NULL_PAGE_SIZE;
/// A pointer that lies so near below 0 was made by subtraction from null.
const NEGATIVE_START: u64 = 0xFFFF_FFFF_FFFF_0000;
/// Free RAM so near below the guard page was reached by a frame that stepped over it.
const BEYOND_GUARD: u64 = 64 << 10;
/// The most that an instruction, or the delivery of an exception, pushes below RSP.
const REACH: u64 = 256;
/// The tables of the start map nothing from here on: RAM and the device hole end before.
const FIRST_TABLES_END: u64 = 1 << 39;

impl Landmarks<'_> {
    /// What lies at `gva`, for the CPU in `state`.
    #[must_use]
    pub fn at(&self, gva: Gva, state: &CpuState) -> Landmark {
        if !is_canonical(gva) {
            return Landmark::new("a non-canonical address", Some(hints::WILD));
        }
        if gva.0 < NULL_END {
            return Landmark::new("page 0: null dereference", Some(hints::NULL));
        }
        let mapped = state.space(self.memory).translate(gva).map(|mapping| mapping.gpa);
        let is_ram = mapped.is_some_and(|gpa| self.memory.check(gpa, 1).is_ok());
        if gva.0 >= NEGATIVE_START && !is_ram {
            return Landmark::new(
                "just below the end of all addresses: a null pointer minus something",
                Some(hints::NULL),
            );
        }
        match mapped {
            Some(gpa) if gpa.0 != gva.0 => {
                let Landmark { what, hint } = self.at_gpa(gpa, gva, state);
                Landmark { what: format!("{what} (GPA {gpa})"), hint }
            }
            Some(gpa) => self.at_gpa(gpa, gva, state),
            // Where nothing is mapped, the tables of the start tell what should be there: they map all to itself.
            None if gva.0 < FIRST_TABLES_END => self.at_gpa(Gpa(gva.0), gva, state),
            None if self.is_below_stack(gva, state) => {
                Landmark::new("below the stack that was in use: stack overflow", Some(hints::OVERFLOW))
            }
            None => Landmark::new("where nothing is mapped", Some(hints::NOT_MAPPED)),
        }
    }

    fn at_gpa(&self, gpa: Gpa, gva: Gva, state: &CpuState) -> Landmark {
        match self.map.regions().iter().find(|region| region.start <= gpa && gpa < region.end) {
            Some(region) => self.in_region(region, gva, state),
            None if (layout::LOW_RAM_MAX_END.0..1 << 32).contains(&gpa.0) => {
                Landmark::new("the device hole, where no RAM is", Some(hints::HOLE))
            }
            None => Landmark::new(
                format!("beyond RAM, which ends at {:#x}", self.ram_end()),
                Some(hints::BEYOND_RAM),
            ),
        }
    }

    /// Whether a stack ends shortly above `gva`: RSP points there, and the first page above that is mapped can be
    /// written. A push reaches at most a few words below RSP, a local variable lies above it.
    fn is_below_stack(&self, gva: Gva, state: &CpuState) -> bool {
        let reach = state.general.rsp.saturating_sub(REACH)..state.general.rsp.saturating_add(BEYOND_GUARD);
        let pages = (PAGE_SIZE..=BEYOND_GUARD).step_by(PAGE_SIZE as usize);
        let space = state.space(self.memory);
        let mut above = pages.filter_map(|bytes| space.translate(gva.page_start().checked_add(bytes)?));
        reach.contains(&gva.0) && above.next().is_some_and(|mapping| mapping.writable)
    }

    fn ram_end(&self) -> u64 {
        self.map.ram().iter().filter(|ram| ram.size() > 0).map(|ram| ram.end).max().unwrap_or_default()
    }

    fn in_region(&self, region: &Region, gva: Gva, state: &CpuState) -> Landmark {
        let rights = region.rights;
        match region.kind {
            RegionKind::NullPage => Landmark::new("page 0: null dereference", Some(hints::NULL)),
            RegionKind::StackGuard => {
                Landmark::new("the guard page below the stack: stack overflow", Some(hints::OVERFLOW))
            }
            RegionKind::FaultStackGuard => handlers_guard("double faults"),
            RegionKind::NmiStackGuard => handlers_guard("NMIs"),
            RegionKind::MachineCheckStackGuard => handlers_guard("machine checks"),
            RegionKind::FaultStack => Landmark::new(format!("the stack for double faults ({rights})"), None),
            RegionKind::NmiStack => Landmark::new(format!("the stack for NMIs ({rights})"), None),
            RegionKind::MachineCheckStack => {
                Landmark::new(format!("the stack for machine checks ({rights})"), None)
            }
            RegionKind::Stack => Landmark::new(format!("the stack ({rights})"), None),
            RegionKind::BootInfo => {
                Landmark::new(format!("the boot info ({rights})"), Some(hints::READ_ONLY))
            }
            RegionKind::Arguments => {
                Landmark::new(format!("the arguments ({rights})"), Some(hints::READ_ONLY))
            }
            RegionKind::PageTables => Landmark::new(format!("the page tables of the start ({rights})"), None),
            RegionKind::Image => Landmark::new(self.in_image(region, gva), None),
            RegionKind::Free => {
                let below_guard =
                    layout::STACK_GUARD.0.checked_sub(gva.0).is_some_and(|below| below < BEYOND_GUARD);
                let from_stack = state.general.rsp < layout::STACK.0 && below_guard;
                if from_stack {
                    Landmark::new(
                        "free RAM below the stack's guard page: stack overflow",
                        Some(hints::OVERFLOW),
                    )
                } else {
                    Landmark::new(format!("free RAM ({rights})"), None)
                }
            }
        }
    }

    /// `the image's .text (r-x), probe::main+0x10`
    fn in_image(&self, region: &Region, gva: Gva) -> String {
        let section = self.symbols.section_at(gva).unwrap_or("memory");
        let mut what = format!("the image's {section} ({})", region.rights);
        if let Some((name, offset)) = self.symbols.function_at(gva).filter(|_| region.rights.can_execute()) {
            what.push_str(&format!(", {name}+{offset:#x}"));
        }
        what
    }
}

/// The page below the stack of an exception.
fn handlers_guard(exceptions: &str) -> Landmark {
    let what = format!("the guard page below the stack for {exceptions}: stack overflow in their handler");
    Landmark::new(what, Some(hints::OVERFLOW))
}

/// What to do next.
pub mod hints {
    #![expect(missing_docs, reason = "each is a sentence that says it")]
    pub const NULL: &str = "a pointer was null: look in the function above for one that nobody set";
    pub const OVERFLOW: &str = "the stack is full: look for endless recursion in the backtrace, or make large local variables static";
    pub const WILD: &str =
        "the pointer holds something that is no address: look for uninitialised or overwritten memory";
    pub const HOLE: &str = "no RAM is between 3 and 4 GiB: map a device there before it is used";
    pub const BEYOND_RAM: &str =
        "the address is not in RAM: give more with --memory, or look for a wrong length or index";
    pub const NOT_MAPPED: &str = "nothing was mapped there, or it was unmapped: look for a wrong pointer, or for memory used after it was freed";
    pub const READ_ONLY: &str = "the host's words to the guest are read-only: copy them before changing them";
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::elf_headers::Segment;
    use crate::boot::region::Rights;
    use crate::config::{Backing, PageSize};

    #[test]
    fn every_kind_of_address_is_told_with_what_it_most_often_means() {
        let size = "16M".parse().expect("a size");
        let text = Segment {
            index: 0,
            start: Gpa(0x10_0000),
            end: Gpa(0x10_1000),
            file_offset: 0,
            file_size: 0,
            rights: Rights::ReadExecute,
        };
        let map = GuestMap::plan(size, &[text], PageSize::Size2M).expect("it fits");
        let memory = GuestMemory::allocate(size, Backing::default()).expect("RAM");
        let symbols = Symbols::none("made up".to_owned());
        let landmarks = Landmarks { map: &map, memory: &memory, symbols: &symbols };
        let mut state = CpuState::default();
        for (gva, what) in [
            (8, "page 0: null dereference"),
            (u64::MAX - 8, "a null pointer minus something"),
            (1 << 47, "a non-canonical address"),
            (layout::BOOT_INFO.0, "the boot info (r--)"),
            (layout::STACK_GUARD.0, "the guard page below the stack: stack overflow"),
            (layout::STACK.0, "the stack (rw-)"),
            (0x10_0000, "the image's memory (r-x)"),
            (0x20_0000, "free RAM (rw-)"),
            (0x100_0000, "beyond RAM, which ends at 0x1000000"),
            (0xC000_0000, "the device hole"),
            (layout::NMI_STACK_GUARD.0, "the guard page below the stack for NMIs: stack overflow"),
            (
                layout::MACHINE_CHECK_STACK_GUARD.0,
                "the guard page below the stack for machine checks: stack overflow",
            ),
            (layout::MACHINE_CHECK_STACK.0, "the stack for machine checks (rw-)"),
        ] {
            let told = landmarks.at(Gva(gva), &state).what;
            assert!(told.contains(what), "{gva:#x}: {told:?} is not {what:?}");
        }

        // A frame larger than the guard page steps over it.
        state.general.rsp = 0x3_0000;
        assert!(landmarks.at(Gva(0x3_0000), &state).what.contains("stack overflow"));
    }
}
