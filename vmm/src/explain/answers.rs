//! `Answers`: what a machine is made of and what a run did, asked of the machine itself.
//!
//! In the order of a VM's life: memory, what is put into it, page tables, the vCPU, the first instruction, the way in
//! and out, the first print, the result. Every address is the live machine's, every line of source was kept by the code
//! that did the step ([`Origin`]).

use serde::Serialize;
use shared_abi::Gva;

use super::moment::{Moment, When};
use super::pieces::{Purpose, pieces};
use super::run_answers::RunAnswers;
use super::tables::MappedRun;
use super::words::{Hex, PageRights, Span};
use crate::debug::instruction;
use crate::debug::mode::{self, Mode};
use crate::error::Result;
use crate::guest_space::GuestSpace;
use crate::origin::Origin;
use crate::page_walk::{Level, Mapping, PageTables, walk};
use crate::vm::Vm;

/// All answers about a machine.
#[derive(Clone, Debug, Serialize)]
pub struct Answers {
    /// [`VERSION`](super::VERSION) of the form.
    pub version: u32,
    /// The path of the image.
    pub image: String,
    /// Guest memory.
    pub memory: MemoryAnswer,
    /// What was put where: code and data by section, page tables, stack, boot information.
    pub places: Vec<PlaceAnswer>,
    /// The page tables.
    pub tables: TablesAnswer,
    /// The vCPU and what it shares with KVM.
    pub vcpu: VcpuAnswer,
    /// Where the vCPU is about to continue: at the entry, before the first run.
    pub start: StartAnswer,
    /// What the run did; `None` before it.
    pub run: Option<RunAnswers>,
}

/// Guest memory.
#[derive(Clone, Debug, Serialize)]
pub struct MemoryAnswer {
    /// Size in bytes.
    pub size: u64,
    /// Where the VMM has it, in its own address space.
    pub hva: Span,
    /// The regions that the guest sees: more than one only with RAM above the device hole.
    pub regions: Vec<RegionAnswer>,
    /// How many memory slots KVM has been told of so far, and how many bytes they are.
    pub slots: usize,
    /// Bytes of RAM that KVM knows so far; the rest follows when it is first touched.
    pub told: u64,
    /// The call that asked for it.
    pub allocated_at: Origin,
    /// The `mmap`.
    pub mapped_at: Origin,
    /// KVM_SET_USER_MEMORY_REGION.
    pub told_at: Option<Origin>,
}

/// A region of RAM in both spaces.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct RegionAnswer {
    /// Guest-physical.
    pub gpa: Span,
    /// Host-virtual.
    pub hva: Span,
}

/// A part of guest memory that the host has filled, or set apart.
#[derive(Clone, Debug, Serialize)]
pub struct PlaceAnswer {
    /// What it is.
    pub what: String,
    /// The same for programs.
    pub purpose: Purpose,
    /// Guest-physical.
    pub gpa: Span,
    /// Guest-virtual; `None` where nothing maps it.
    pub gva: Option<Span>,
    /// Host-virtual.
    pub hva: Option<Span>,
    /// What the guest may do there.
    pub rights: Option<PageRights>,
    /// The line that chose the place.
    pub placed_at: Option<Origin>,
    /// The line that filled it; `None` for what starts as zeros.
    pub filled_at: Option<Origin>,
}

/// The page tables.
#[derive(Clone, Debug, Serialize)]
pub struct TablesAnswer {
    /// How many levels a walk has; 0 while paging is off.
    pub levels: usize,
    /// CR3: where the first one lies.
    pub cr3: Hex,
    /// How many tables there are, 4 KiB each.
    pub tables: u64,
    /// The same by level, from the PML4 on.
    pub by_level: Vec<(Level, u64)>,
    /// How many pages are mapped: of 4 KiB, of [`large_page`](Self::large_page), of 1 GiB.
    pub pages: [u64; 3],
    /// Size in bytes of the pages that a page directory maps: 2 MiB, or 4 MiB in 32-bit paging.
    pub large_page: u64,
    /// Guest-virtual bytes that are mapped.
    pub mapped: u64,
    /// The mappings, like ones side by side joined; at most [`MAX_MAPPINGS`].
    pub mappings: Vec<MappedRun>,
    /// How many mappings there are.
    pub mapping_count: usize,
    /// Whether every address is mapped to itself.
    pub identity: bool,
    /// Why not all tables were looked at, if so.
    pub cut: Option<String>,
    /// The call that had them written.
    pub written_at: Origin,
}

/// A list of mappings ends here.
pub const MAX_MAPPINGS: usize = 64;

/// The vCPU and what it shares with KVM.
#[derive(Clone, Debug, Serialize)]
pub struct VcpuAnswer {
    /// The mapping that starts with `kvm_run`, in the VMM's address space.
    pub kvm_run_hva: Span,
    /// Bytes of the structure itself; port data and more lie behind it.
    pub kvm_run_struct_size: usize,
    /// KVM_CREATE_VCPU, and the mapping of its file descriptor.
    pub created_at: Origin,
    /// Whether there are interrupt controllers: then HLT waits in the kernel.
    pub interrupts: bool,
}

/// Registers that decide where execution continues, as KVM has them.
#[derive(Clone, Debug, Serialize)]
pub struct StartAnswer {
    /// `e_entry` of the image.
    pub entry: Hex,
    /// RIP; outside 64-bit mode with the base of CS.
    pub rip: Hex,
    /// The function there, and its source, when the image tells.
    pub symbol: Option<String>,
    /// Where RIP leads.
    pub rip_gpa: Option<Hex>,
    /// The same in the VMM's address space.
    pub rip_hva: Option<Hex>,
    /// RSP.
    pub rsp: Hex,
    /// RDI, which points to `BootInfo` at the start.
    pub rdi: Hex,
    /// The mode that the CPU is in.
    pub mode: &'static str,
    /// The place of the next instruction, as that mode names it.
    pub place: String,
    /// CR0.
    pub cr0: Hex,
    /// CR4.
    pub cr4: Hex,
    /// EFER.
    pub efer: Hex,
    /// The line that decides RIP and CR3.
    pub decided_at: Origin,
    /// KVM_SET_REGS: RIP, RSP, RDI.
    pub general_set_at: Origin,
    /// KVM_SET_SREGS: CR3 and the mode.
    pub special_set_at: Origin,
}

impl Answers {
    /// Asks the machine as it is now. Before the first run that is its start.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn of(vm: &Vm) -> Result<Self> {
        let mapping = vm.vcpu().run_mapping();
        let moment = Moment::of(vm, When::Start)?;
        Ok(Self {
            version: super::VERSION,
            image: vm.image().path().display().to_string(),
            memory: memory(vm),
            places: places(vm, &moment),
            tables: tables(vm, &moment),
            vcpu: VcpuAnswer {
                kvm_run_hva: Span { start: mapping.hva, size: mapping.size },
                kvm_run_struct_size: size_of::<kvm_bindings::kvm_run>(),
                created_at: mapping.mapped_at,
                interrupts: vm.machine().has_interrupts(),
            },
            start: start(vm)?,
            run: None,
        })
    }
}

fn memory(vm: &Vm) -> MemoryAnswer {
    let memory = vm.memory();
    let regions: Vec<_> = memory
        .slots()
        .map(|slot| RegionAnswer {
            gpa: Span { start: slot.gpa.0, size: slot.size },
            hva: Span { start: slot.hva, size: slot.size },
        })
        .collect();
    let slots = vm.machine().slots();
    MemoryAnswer {
        size: memory.size().bytes(),
        hva: Span {
            start: regions.first().map_or(0, |region| region.hva.start),
            size: memory.size().bytes(),
        },
        regions,
        slots: slots.told().count(),
        told: slots.told().map(|slot| slot.size).sum(),
        allocated_at: memory.allocated_at(),
        mapped_at: memory.mapped_at(),
        told_at: slots.told_at(),
    }
}

/// What is in memory at start, with the rights that a walk of its first address gives.
fn places(vm: &Vm, moment: &Moment) -> Vec<PlaceAnswer> {
    let origins = vm.origins().boot;
    let filled_at = |purpose| match purpose {
        Purpose::Image => Some(origins.loaded),
        Purpose::BootInfo | Purpose::Arguments => Some(origins.boot_info),
        Purpose::UnusedPageTable => Some(origins.page_tables),
        _ => None,
    };
    let pieces = pieces(vm, &[], true).into_iter();
    let kernel = pieces.filter(|piece| piece.purpose.is_kernel());
    kernel
        .map(|piece| {
            let gpa = piece.gpa;
            let mapping = mapping(vm, moment.tables(), Gva(gpa.start));
            let mapping = mapping.filter(|mapping| mapping.gpa.0 == gpa.start);
            PlaceAnswer {
                what: piece.name,
                purpose: if piece.purpose == Purpose::UnusedPageTable {
                    Purpose::PageTable
                } else {
                    piece.purpose
                },
                gpa,
                gva: mapping.map(|_| gpa),
                hva: vm.memory().hva(shared_abi::Gpa(gpa.start)).map(|start| Span { start, size: gpa.size }),
                rights: mapping.as_ref().map(PageRights::from),
                placed_at: piece.placed_at,
                filled_at: filled_at(piece.purpose),
            }
        })
        .collect()
}

/// Where `gva` leads.
fn mapping(vm: &Vm, tables: Option<PageTables>, gva: Gva) -> Option<Mapping> {
    match tables {
        Some(tables) => walk(tables, gva, |gpa| vm.memory().read_u64(gpa).ok()).ok(),
        None => GuestSpace::new(vm.memory(), None).translate(gva),
    }
}

fn tables(vm: &Vm, moment: &Moment) -> TablesAnswer {
    let scan = moment.scan(vm);
    let levels = moment.tables().map_or(&[][..], |tables| tables.paging.levels());
    let count = |level| scan.tables.iter().filter(|table| table.level == level).count() as u64;
    TablesAnswer {
        levels: levels.len(),
        cr3: moment.cr3,
        tables: scan.tables.len() as u64,
        by_level: levels.iter().map(|&level| (level, count(level))).collect(),
        large_page: if levels.first().is_some_and(|level| level.is_32_bit()) { 4 << 20 } else { 2 << 20 },
        pages: scan.pages,
        mapped: scan.runs.iter().map(|run| run.gva.size).sum(),
        identity: scan.runs.iter().all(|run| run.gva.start == run.gpa.0),
        mapping_count: scan.runs.len(),
        mappings: scan.runs.into_iter().take(MAX_MAPPINGS).collect(),
        cut: scan.cut,
        written_at: vm.origins().boot.page_tables,
    }
}

fn start(vm: &Vm) -> Result<StartAnswer> {
    let cpu = vm.cpu_state()?;
    let rip = instruction::linear_rip(&cpu);
    let gpa = cpu.space(vm.memory()).translate(rip).map(|mapping| mapping.gpa);
    let origins = vm.origins();
    Ok(StartAnswer {
        entry: Hex(vm.image().entry().0),
        rip: Hex(rip.0),
        symbol: vm.symbols().frames(rip).first().map(ToString::to_string),
        rip_gpa: gpa.map(|gpa| Hex(gpa.0)),
        rip_hva: gpa.and_then(|gpa| vm.memory().hva(gpa)).map(Hex),
        rsp: Hex(cpu.general.rsp),
        rdi: Hex(cpu.general.rdi),
        mode: Mode::of(&cpu).name(),
        place: mode::place(&cpu),
        cr0: Hex(cpu.special.cr0),
        cr4: Hex(cpu.special.cr4),
        efer: Hex(cpu.special.efer),
        decided_at: origins.boot.cpu,
        general_set_at: origins.registers.general,
        special_set_at: origins.registers.special,
    })
}
