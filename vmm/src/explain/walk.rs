//! `Walk`: how one guest-virtual address is translated, every entry with every bit.

use std::fmt;

use serde::Serialize;
use shared_abi::{Gpa, Gva};

use super::bits::{self, Bit};
use super::moment::{Moment, When};
use super::words::{Hex, PageRights};
use crate::error::Result;
use crate::page_walk::{Level, WalkError, trace};
use crate::vm::Vm;

/// The translation of one address.
#[derive(Clone, Debug, Serialize)]
pub struct Walk {
    /// [`VERSION`](super::VERSION) of the form.
    pub version: u32,
    /// Which tables were walked.
    pub moment: Moment,
    /// The address.
    pub gva: Hex,
    /// The function it lies in, when the image tells.
    pub symbol: Option<String>,
    /// The entries that were read, from where CR3 points on; none while paging is off.
    pub steps: Vec<Step>,
    /// Why the walk ended there: `PT[0] maps a page of 4 KiB`, `PD[3] not present`.
    pub reason: String,
    /// Where the address leads, if it does.
    pub page: Option<Page>,
}

/// An entry on the way.
#[derive(Clone, Debug, Serialize)]
pub struct Step {
    /// The table's level.
    pub level: Level,
    /// Where the table lies.
    pub table_gpa: Hex,
    /// Which of its entries.
    pub index: u16,
    /// Where the entry lies.
    pub entry_gpa: Hex,
    /// The same in the VMM's address space; `None` outside RAM.
    pub entry_hva: Option<Hex>,
    /// The entry; `None` outside RAM.
    pub entry: Option<Hex>,
    /// Its bits by name.
    pub bits: Vec<Bit>,
}

impl Step {
    /// The entry with all its digits.
    fn digits(&self, entry: Hex) -> String {
        if self.level.is_32_bit() { format!("{:#010x}", entry.0) } else { format!("{:#018x}", entry.0) }
    }
}

/// The page at a walk's end.
#[derive(Clone, Debug, Serialize)]
pub struct Page {
    /// Where the address itself leads.
    pub gpa: Hex,
    /// The same in the VMM's address space; `None` where no RAM is.
    pub hva: Option<Hex>,
    /// Size of the page in bytes; 0 while paging is off, when there are no pages.
    pub page_size: u64,
    /// What all levels together grant.
    pub rights: PageRights,
}

impl Walk {
    /// Walks the tables that the machine has now, which is `when`.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn of(vm: &Vm, when: When, gva: Gva) -> Result<Self> {
        let moment = Moment::of(vm, when)?;
        let symbols = vm.symbols();
        let symbol = symbols.function_at(gva).map(|(name, offset)| match offset {
            0 => name.to_owned(),
            offset => format!("{name} + {offset:#x}"),
        });
        let memory = vm.memory();
        Ok(Self::through(moment, gva, symbol, |gpa| memory.read_u64(gpa).ok(), |gpa| memory.hva(gpa)))
    }

    fn through(
        moment: Moment,
        gva: Gva,
        symbol: Option<String>,
        read: impl Fn(Gpa) -> Option<u64>,
        hva: impl Fn(Gpa) -> Option<u64>,
    ) -> Self {
        let Some(tables) = moment.tables() else {
            let (reason, page) = (OFF.to_owned(), Some(Page::physical(gva, hva)));
            return Self {
                version: super::VERSION,
                moment,
                gva: Hex(gva.0),
                symbol,
                steps: Vec::new(),
                reason,
                page,
            };
        };
        let rules = moment.rules();
        let mut walked = trace(tables, gva, read);
        // Some bits are reserved on this CPU only.
        let wrong = |step: &crate::page_walk::WalkStep| {
            step.entry.is_some_and(|entry| entry & 1 != 0 && rules.reserved_bits(step.level, entry) != 0)
        };
        if let Some(last) = walked.steps.iter().position(wrong) {
            walked.steps.truncate(last + 1);
            walked.end =
                Err(WalkError::ReservedBit(walked.steps.last().map_or(Gpa(0), |step| step.entry_gpa)));
        }
        let steps = walked.steps.iter().map(|step| Step {
            level: step.level,
            table_gpa: Hex(step.table.0),
            index: step.index,
            entry_gpa: Hex(step.entry_gpa.0),
            entry_hva: hva(step.entry_gpa).map(Hex),
            entry: step.entry.map(Hex),
            bits: step.entry.map(|entry| bits::bits(step.level, entry, rules)).unwrap_or_default(),
        });
        let page = walked.end.as_ref().ok().map(|mapping| Page {
            gpa: Hex(mapping.gpa.0),
            hva: hva(mapping.gpa).map(Hex),
            page_size: mapping.page_size.bytes(),
            rights: PageRights::from(mapping),
        });
        let (steps, reason) = (steps.collect(), walked.reason());
        Self { version: super::VERSION, moment, gva: Hex(gva.0), symbol, steps, reason, page }
    }
}

/// Why a walk has no steps.
const OFF: &str = "paging is off: the address is a physical one";

impl Page {
    /// What an address leads to while paging is off.
    fn physical(gva: Gva, hva: impl Fn(Gpa) -> Option<u64>) -> Self {
        let rights = PageRights { writable: true, executable: true, user: true };
        Self { gpa: Hex(gva.0), hva: hva(Gpa(gva.0)).map(Hex), page_size: 0, rights }
    }
}

impl fmt::Display for Walk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GVA {}", self.gva)?;
        if let Some(symbol) = &self.symbol {
            write!(f, " ({symbol})")?;
        }
        let path: Vec<String> =
            self.steps.iter().map(|step| format!("{}[{}]", step.level, step.index)).collect();
        let path = if path.is_empty() { "no table is read".to_owned() } else { path.join(" ") };
        writeln!(f, ": {path}")?;
        if self.moment.tables().is_some() {
            if let Some(note) = &self.moment.note {
                writeln!(f, "  note: {note}")?;
            }
            writeln!(f, "  CR3  {}{}", self.moment.cr3, self.moment.whose())?;
        }
        for step in &self.steps {
            write!(f, "  {:4} [{}] at GPA {}", step.level, step.index, step.entry_gpa)?;
            match (step.entry, step.entry_hva) {
                (Some(entry), Some(hva)) => writeln!(f, ", HVA {hva}: {}", step.digits(entry))?,
                (Some(entry), None) => writeln!(f, ": {}", step.digits(entry))?,
                (None, _) => writeln!(f, ": no RAM")?,
            }
            if !step.bits.is_empty() {
                writeln!(f, "       {}", bits::line(&step.bits))?;
            }
        }
        write!(f, "  {}", self.reason)?;
        let Some(page) = &self.page else { return Ok(()) };
        write!(f, ", {}\n  GPA {}", page.rights, page.gpa)?;
        match page.hva {
            Some(hva) => write!(f, "\n  HVA {hva}")?,
            None => write!(f, ", where no RAM is")?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::Rules;
    use super::*;

    fn walk(words: &[(u64, u64)], gva: u64) -> Walk {
        let rules = Some(Rules { address_bits: 39, no_execute: true });
        let moment = Moment {
            when: When::Stop,
            vcpu: None,
            cr3: Hex(0x1000),
            note: None,
            rules,
            tables: Some(0x1000.into()),
        };
        let read = |gpa: Gpa| {
            let word = words.iter().find(|(own, _)| *own == gpa.0).map_or(0, |(_, word)| *word);
            (gpa.0 < 1 << 20).then_some(word)
        };
        Walk::through(moment, Gva(gva), None, read, |gpa| {
            (gpa.0 < 1 << 20).then_some(0x7F00_0000_0000 + gpa.0)
        })
    }

    #[test]
    fn a_page_is_told_with_all_that_leads_there() {
        let words = [(0x1000, 0x2003), (0x2000, 0x3003), (0x3000, 0x4001), (0x4008, 1 << 63 | 0x9063)];
        let walk = walk(&words, 0x1234);
        let page = walk.page.as_ref().expect("mapped");
        assert_eq!((page.gpa, page.hva, page.page_size), (Hex(0x9234), Some(Hex(0x7F00_0000_9234)), 4096));
        assert_eq!(page.rights.to_string(), "r--", "the PD grants no writing, the PT no execution");
        let text = walk.to_string();
        for part in
            ["PML4[0] PDPT[0] PD[0] PT[1]", "PT   [1] at GPA 0x4008", "A=1 D=1", "PT[1] maps a page of 4 KiB"]
        {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn a_bit_that_only_this_cpu_reserves_ends_the_walk() {
        let walk = walk(&[(0x1000, 1 << 40 | 0x2003), (0x2000, 0x3003)], 0);
        assert_eq!((walk.steps.len(), walk.reason.as_str()), (1, "PML4[0] has a reserved bit set"));
        assert!(walk.page.is_none());
        assert!(walk.to_string().contains("reserved[51:39]=0x2"), "{walk}");
    }

    #[test]
    fn ends_without_a_page_are_told() {
        assert!(walk(&[], 1 << 47).to_string().contains("no table is read"));
        assert!(walk(&[(0x1000, 0x4000_0003)], 0).to_string().contains("PDPT [0] at GPA 0x40000000: no RAM"));
        let hole = walk(&[(0x1000, 0x2003), (0x2000, 0x4000_0083)], 0x123);
        assert!(hole.to_string().contains("GPA 0x40000123, where no RAM is"), "{hole}");
    }
}
