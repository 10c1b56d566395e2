//! `Answers` for people: a section for each step of a VM's life, a line for each fact, the line of source behind it.

use std::fmt;

use shared_abi::ports;

use super::answers::{Answers, MemoryAnswer, PlaceAnswer, StartAnswer, TablesAnswer, VcpuAnswer};
use super::run_answers::{PrintAnswer, ResultAnswer, RunAnswers};
use super::watch::{SeenExit, Way};
use super::words::{Hex, plural, size};
use crate::origin::Origin;

impl Answers {
    /// The same for people: a section for each step of a VM's life.
    #[must_use]
    pub fn sections(&self) -> Vec<Section> {
        let mut page = Page::default();
        self.memory.write(&mut page);
        write_places(&self.places, &mut page);
        self.tables.write(&mut page);
        self.vcpu.write(&mut page);
        self.start.write(&mut page);
        if let Some(run) = &self.run {
            run.write_crossing(&mut page, &self.vcpu);
            run.write_print(&mut page);
            run.result.write(&mut page);
        }
        page.sections
    }

    /// The sections as text, as [`Display`](fmt::Display) has it, in `colour` if the terminal shows any.
    #[must_use]
    pub fn render(&self, colour: bool) -> String {
        let sections: Vec<String> = self.sections().iter().map(|section| section.render(colour)).collect();
        sections.join("\n\n")
    }
}

impl fmt::Display for Answers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render(false))
    }
}

/// A step of a VM's life, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Its heading.
    pub title: String,
    /// What is to be said of it.
    pub facts: Vec<Fact>,
}

/// A fact, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// What it is about; empty when it goes on with the one before.
    pub label: String,
    /// The line of source that it is about, if any.
    pub source: Option<Origin>,
    /// The fact, or what that line does.
    pub text: String,
}

/// Facts start in this column.
const LABEL_WIDTH: usize = 13;

impl Section {
    fn render(&self, colour: bool) -> String {
        let style =
            |on, text: &str| if colour { format!("\x1b[{on}m{text}\x1b[0m") } else { text.to_owned() };
        let mut text = style(1, &self.title);
        for Fact { label, source, text: fact } in &self.facts {
            let source = source.map(|origin| style(2, &origin.to_string()) + "  ").unwrap_or_default();
            text.push_str(&format!("\n  {label:LABEL_WIDTH$}{source}{fact}"));
        }
        text
    }
}

/// Sections that are being written.
#[derive(Default)]
struct Page {
    sections: Vec<Section>,
}

impl Page {
    fn heading(&mut self, title: &str) {
        self.sections.push(Section { title: title.to_owned(), facts: Vec::new() });
    }

    fn add(&mut self, label: &str, source: Option<Origin>, text: String) {
        let section = self.sections.last_mut().expect("a heading comes first");
        section.facts.push(Fact { label: label.to_owned(), source, text });
    }

    fn fact(&mut self, label: &str, fact: impl fmt::Display) {
        self.add(label, None, fact.to_string());
    }

    /// What a line of source does, and which one it is.
    fn source(&mut self, label: &str, origin: Option<Origin>, what: &str) {
        if origin.is_some() {
            self.add(label, origin, what.to_owned());
        }
    }
}

impl MemoryAnswer {
    fn write(&self, page: &mut Page) {
        page.heading("Guest memory");
        page.fact("size", format!("{} ({} bytes)", size(self.size), self.size));
        page.fact("HVA", format!("{}: one range, MAP_NORESERVE", self.hva));
        for region in &self.regions {
            page.fact("GPA", format!("{} = HVA {}", region.gpa, region.hva));
        }
        let slots =
            format!("{} memory slot{} of {} in all", self.slots, plural(self.slots as u64), size(self.told));
        let rest = if self.told < self.size { "; the rest is told when it is first touched" } else { "" };
        page.fact("KVM knows", slots + rest);
        page.source("asked for", Some(self.allocated_at), "the call in Vm::build");
        page.source("mapped", Some(self.mapped_at), "mmap");
        page.source("told KVM", self.told_at, "KVM_SET_USER_MEMORY_REGION");
    }
}

fn write_places(places: &[PlaceAnswer], page: &mut Page) {
    page.heading(
        "Code, stack, page tables and the rest: what was put where (GVA = GPA where rights are shown)",
    );
    for place in places {
        let rights = place.rights.map_or("---".to_owned(), |rights| rights.to_string());
        let hva = place.hva.map(|hva| hva.to_string()).unwrap_or_default();
        // Names of sections are longer than labels.
        let fact = format!(" GPA {:24} {rights:4} HVA {hva}", place.gpa);
        page.fact(&format!("{:25}", place.what), fact);
    }
    let line = |purpose| places.iter().find(|place| place.purpose == purpose);
    for (label, purpose) in [
        ("code", super::Purpose::Image),
        ("stack", super::Purpose::Stack),
        ("page tables", super::Purpose::PageTable),
        ("boot info", super::Purpose::BootInfo),
    ] {
        let Some(place) = line(purpose) else { continue };
        page.source(label, place.placed_at, "chooses the place");
        page.source("", place.filled_at, "fills it");
    }
}

impl TablesAnswer {
    fn write(&self, page: &mut Page) {
        page.heading("Page tables");
        if self.levels == 0 {
            page.fact("levels", "none: paging is off, and every address is a physical one");
            return;
        }
        let by_level: Vec<String> =
            self.by_level.iter().map(|(level, count)| format!("{count} {level}")).collect();
        page.fact("levels", self.levels);
        page.fact(
            "tables",
            format!("{} of 4 KiB each: {}; CR3 = {}", self.tables, by_level.join(", "), self.cr3),
        );
        let [small, medium, large] = self.pages;
        page.fact(
            "pages",
            format!("{small} of 4 KiB, {medium} of {}, {large} of 1 GiB", size(self.large_page)),
        );
        let share = self.mapped as f64 / (1u64 << 48) as f64 * 100.0;
        page.fact(
            "GVA mapped",
            format!("{} ({} bytes), {share:.7} % of 2^48", size(self.mapped), self.mapped),
        );
        let identity =
            if self.identity { "every address is mapped to itself" } else { "not every address to itself" };
        page.fact("mappings", identity);
        for run in &self.mappings {
            let pages = format!("pages of {}", size(run.page_size));
            page.fact("", format!("GVA {:24} {:4} GPA {:24} {pages}", run.gva, run.rights, run.gpa_span()));
        }
        let more = self.mapping_count - self.mappings.len();
        if more > 0 {
            page.fact("", format!("… and {more} more"));
        }
        if let Some(cut) = &self.cut {
            page.fact("cut", cut);
        }
        page.source("written", Some(self.written_at), "page_tables::write");
    }
}

impl VcpuAnswer {
    fn write(&self, page: &mut Page) {
        page.heading("The vCPU");
        let mapping =
            format!("{} ({} bytes, KVM_GET_VCPU_MMAP_SIZE)", self.kvm_run_hva, self.kvm_run_hva.size);
        page.fact("kvm_run", format!("HVA {mapping}, shared with KVM"));
        page.fact(
            "",
            format!("{} bytes are the structure; data of port I/O lie behind", self.kvm_run_struct_size),
        );
        page.source("created", Some(self.created_at), "KVM_CREATE_VCPU, and mmap of its descriptor");
        page.fact(
            "interrupts",
            match self.interrupts {
                true => "a local APIC in KVM, an I/O APIC in the VMM: HLT waits in the kernel",
                false => "no controllers, as the guest asks for none: HLT ends the run",
            },
        );
    }
}

impl StartAnswer {
    fn write(&self, page: &mut Page) {
        page.heading("Start");
        let symbol = self.symbol.as_ref().map(|symbol| format!(", {symbol}")).unwrap_or_default();
        page.fact("RIP", format!("GVA {}{symbol}", self.rip));
        if let (Some(gpa), Some(hva)) = (self.rip_gpa, self.rip_hva) {
            page.fact("", format!("= GPA {gpa} = HVA {hva}"));
        }
        page.fact("ELF entry", self.entry);
        page.fact("RSP, RDI", format!("{}, {}", self.rsp, self.rdi));
        let Self { mode, place, cr0, cr4, efer, .. } = self;
        page.fact("mode", format!("{mode}, at {place}: CR0 {cr0}, CR4 {cr4}, EFER {efer}"));
        page.source("decided", Some(self.decided_at), "RIP is the image's entry, CR3 the first page table");
        page.source(
            "set",
            Some(self.special_set_at),
            "CR3, CR0, CR4, EFER, segments, as KVM_SET_SREGS takes them",
        );
        page.source("", Some(self.general_set_at), "RIP, RSP, RDI, as KVM_SET_REGS takes them");
    }
}

impl RunAnswers {
    fn write_crossing(&self, page: &mut Page, vcpu: &VcpuAnswer) {
        page.heading("Into the guest and back");
        page.source("to the guest", self.entered_at, "KVM_RUN");
        page.source("and back", self.entered_at, "the same call returns");
        page.source("exit read", self.read_at, "from kvm_run: direction, port, size, count, data_offset");
        page.source("answered", self.returned_to, "the run loop");
        page.fact("exits", format!("{} in all", self.total_exits));
        if let Some(io) = self.last_port_io {
            let direction = if io.is_out { "out" } else { "in" };
            let data = Hex(vcpu.kvm_run_hva.start.wrapping_add(io.data_offset));
            page.fact(
                "kvm_run.io",
                format!(
                    "at the last exit: direction {direction}, size {}, port {:#x}, count {}, data_offset {:#x} (HVA {data})",
                    io.size, io.port, io.count, io.data_offset
                ),
            );
        }
    }

    fn write_print(&self, page: &mut Page) {
        page.heading("The print");
        let Some(print) = &self.print else {
            page.fact("exits", "none: the guest printed nothing at an exit");
            return;
        };
        print.write(page);
    }
}

impl PrintAnswer {
    fn write(&self, page: &mut Page) {
        write_exit(page, "first by", &self.first, self.by.as_deref());
        page.source("device", self.device_attached_at, "puts it there");
        page.fact("exits", format!("{} for {} byte{}", self.exits, self.bytes, plural(self.bytes)));
        if self.bytes_without_exit > 0 {
            page.fact("", format!("{} bytes more without an exit of their own", self.bytes_without_exit));
        }
    }
}

impl ResultAnswer {
    fn write(&self, page: &mut Page) {
        page.heading("The result");
        page.fact("end", &self.end);
        if let Some(vcpu) = self.vcpu {
            page.fact("on", format!("{vcpu}; what is told of the last exit is told of it"));
        }
        if let Some(exit) = &self.last_exit {
            write_exit(page, "last exit", exit, self.by.as_deref());
        }
        if let Some(code) = self.code {
            page.fact("exit code", format!("{code}: the number that the guest wrote, little-endian"));
        }
        page.source("device", self.device_attached_at, "puts it there");
        page.fact("process", format!("`vmm run` ends with {}", self.process_exit_code));
    }
}

fn write_exit(page: &mut Page, label: &str, exit: &SeenExit, by: Option<&str>) {
    page.fact(label, format!("exit {}: {}", exit.number, exit.way));
    if let (Some(hva), Some(offset)) = (exit.data_hva, exit.data_offset) {
        let bytes: Vec<String> = exit.data.iter().map(|byte| format!("{byte:#04x}")).collect();
        page.fact("data", format!("{} at HVA {hva} = kvm_run + {offset}", bytes.join(" ")));
    }
    if let (Some(rip), Some(by)) = (exit.rip, by) {
        page.fact("RIP", format!("GVA {rip}, {by}"));
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { port, is_out, size, count } => {
                let (verb, to) = if *is_out { ("OUT", "to") } else { ("IN", "from") };
                let name = port_name(*port).map(|name| format!(" ({name})")).unwrap_or_default();
                let times = if *count == 1 { String::new() } else { format!(", {count} times") };
                write!(f, "{verb} {to} port {port:#x}{name}, {size} byte{}{times}", plural(u64::from(*size)))
            }
            Self::Hypercall { port } => {
                write!(f, "hypercall: OUT to port {port:#x} (doorbell), registers have the rest")
            }
            Self::Mmio { gpa, is_write, size } => {
                let verb = if *is_write { "write" } else { "read" };
                write!(f, "{verb} of {size} byte{} at GPA {gpa}, where no RAM is", plural(*size))
            }
            Self::Other { name } => f.write_str(name),
        }
    }
}

fn port_name(port: u16) -> Option<&'static str> {
    match port {
        ports::DEBUG_CONSOLE => Some("debug console"),
        ports::CONSOLE_COALESCED => Some("console, coalesced"),
        ports::EXIT => Some("exit port"),
        ports::HYPERCALL => Some("doorbell"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out_are_told_in_the_words_of_the_manual() {
        let port = |port, is_out, count| Way::Port { port, is_out, size: 1, count }.to_string();
        assert_eq!(port(0xE9, true, 1), "OUT to port 0xe9 (debug console), 1 byte");
        assert_eq!(port(0x60, false, 3), "IN from port 0x60, 1 byte, 3 times");
        let mmio = Way::Mmio { gpa: Hex(0xC000_0000), is_write: true, size: 8 }.to_string();
        assert_eq!(mmio, "write of 8 bytes at GPA 0xc0000000, where no RAM is");
    }
}
