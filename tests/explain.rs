//! `explain`: every answer beside a source of its own: the process's mappings, the ELF file, a walk that shares no code.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};
use shared_abi::{Gpa, layout, ports};
use vmm::explain::{self, Answers, Peek, PeekRequest, Purpose, Space, Span, Way};
use vmm::{Console, PageSize, RunReport, StopReason, Vm};

use crate::harness::walker::{LOWER_HALF, UPPER_HALF, Walker};
use crate::harness::{Boot, Seen, boot, guest, probe, tree, vmm, vmm_binary};

/// A guest, explained, with everything that the answers are compared with.
struct Explained {
    vm: Vm,
    answers: Answers,
    report: RunReport,
    console: String,
}

fn explained(mut boot: Boot) -> Explained {
    let (console, captured) = Console::capture();
    boot.config.console = console;
    let mut vm = Vm::build(boot.config).expect("the machine can be built: is /dev/kvm there?");
    let (answers, report) = explain::run(&mut vm).expect("the host can do its work");
    Explained { vm, answers, report, console: captured.text() }
}

/// Guests and machines of different kinds, each with the image that it runs.
fn guests() -> Vec<(&'static str, Boot)> {
    let with =
        |boot: Boot, memory, page_size| boot.memory(memory).with(|config| config.page_size = page_size);
    vec![
        ("01_hello", boot("01_hello")),
        ("01_hello", with(boot("01_hello"), "4M", PageSize::Size4K)),
        ("probe", with(probe("println 7"), "64M", PageSize::Size4K)),
        ("probe", with(probe("println 7"), "5G", PageSize::Size2M)),
    ]
}

/// A line of /proc/self/maps (Linux Documentation/filesystems/proc.rst, 3.1).
struct Mapped {
    start: u64,
    end: u64,
    rights: String,
    name: String,
}

fn mappings() -> Vec<Mapped> {
    let maps = fs::read_to_string("/proc/self/maps").expect("proc is mounted");
    let hex = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    maps.lines()
        .map(|line| {
            let mut words = line.split_whitespace();
            let (start, end) = words.next().and_then(|range| range.split_once('-')).expect("START-END");
            let rights = words.next().expect("rights").to_owned();
            let name = words.nth(3).unwrap_or_default().to_owned();
            Mapped { start: hex(start), end: hex(end), rights, name }
        })
        .collect()
}

/// What the process has at a host-virtual address.
fn bytes_at(hva: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let memory = File::open("/proc/self/mem").expect("proc is mounted");
    memory.read_exact_at(&mut bytes, hva).expect("the address is mapped");
    bytes
}

#[test]
fn guest_memory_lies_where_the_process_has_it() {
    for (name, boot) in guests() {
        let size = boot.config.memory.bytes();
        let Explained { answers, .. } = &explained(boot);
        // Neighbours with the same rights are one line for Linux, so the line may be larger.
        let Span { start, size: mapped } = answers.memory.hva;
        let mappings = mappings();
        let line =
            mappings.iter().find(|line| line.start <= start && start < line.end).expect("it is mapped");
        assert_eq!((mapped, answers.memory.size), (size, size), "{name}");
        assert!(start + size <= line.end, "{name}: {}", answers.memory.hva);
        assert_eq!((line.rights.as_str(), line.name.as_str()), ("rw-p", ""), "{name}");
        let regions: u64 = answers.memory.regions.iter().map(|region| region.gpa.size).sum();
        assert_eq!(regions, size, "{name}");
        assert!(answers.memory.regions.iter().all(|region| answers.memory.hva.contains(region.hva.start)));
    }
}

#[test]
fn kvm_run_lies_where_the_process_has_it_and_is_as_large_as_kvm_says() {
    // Linux Documentation/virt/kvm/api.rst, 4.5: an ioctl of /dev/kvm without argument.
    const KVM_GET_VCPU_MMAP_SIZE: libc::c_ulong = 0xAE04;
    let kvm = File::options().read(true).write(true).open("/dev/kvm").expect("/dev/kvm");
    // SAFETY: The ioctl takes no pointer.
    let size = unsafe { libc::ioctl(kvm.as_raw_fd(), KVM_GET_VCPU_MMAP_SIZE as _, 0) };

    let Explained { vm, answers, .. } = explained(boot("01_hello"));

    let Span { start, size: mapped } = answers.vcpu.kvm_run_hva;
    assert_eq!(mapped, u64::try_from(size).expect("KVM answers"));
    let mappings = mappings();
    let line = mappings.iter().find(|line| line.start == start).expect("a mapping starts there");
    assert_eq!((line.end, line.rights.as_str()), (start + mapped, "rw-s"));
    assert!(line.name.contains("kvm-vcpu"), "{}", line.name);
    drop(vm);
}

#[test]
fn what_was_put_into_memory_is_there() {
    for (name, boot) in guests() {
        let Explained { vm, answers, .. } = &explained(boot);
        let file = fs::read(guest(name)).expect("the image is readable");
        let elf = ElfFile64::<object::Endianness>::parse(&*file).expect("an ELF file");
        let place = |what: &str| {
            let place = answers.places.iter().find(|place| place.what == what);
            place.unwrap_or_else(|| panic!("{name}: no {what} in {:?}", answers.places))
        };

        for (section, rights) in [(".text", "r-x"), (".rodata", "r--")] {
            let expected = elf.section_by_name(section).expect("every guest has it");
            let found = place(section);
            assert_eq!((found.gpa.start, found.gpa.size), (expected.address(), expected.size()), "{name}");
            assert_eq!(found.rights.map(|rights| rights.to_string()).as_deref(), Some(rights), "{name}");
            let hva = found.hva.expect("it is RAM").start;
            assert_eq!(
                bytes_at(hva, expected.size() as usize),
                expected.data().expect("in the file"),
                "{name}"
            );
        }
        assert!(!answers.places.iter().any(|place| place.what.contains("note")), "notes are not loaded");

        let boot_info = place("boot info").hva.expect("it is RAM").start;
        assert_eq!(bytes_at(boot_info, 8), b"DUETBOOT", "{name}");
        let stack = place("stack");
        assert_eq!((stack.gpa.start, stack.gpa.end()), (layout::STACK.0, layout::STACK_END.0));
        assert_eq!(answers.start.rsp.0, layout::STACK_END.0);
        let tables = place("page tables");
        assert_eq!(tables.gpa.start, answers.tables.cr3.0);
        let first = bytes_at(tables.hva.expect("it is RAM").start, 8);
        assert_eq!(vm.memory().read_u64(Gpa(tables.gpa.start)).expect("RAM").to_le_bytes(), *first);
    }
}

#[test]
fn the_entry_is_the_images_and_its_bytes_are_there() {
    for (name, boot) in guests() {
        let Explained { answers, .. } = &explained(boot);
        let file = fs::read(guest(name)).expect("the image is readable");
        let elf = ElfFile64::<object::Endianness>::parse(&*file).expect("an ELF file");
        let start = &answers.start;
        assert_eq!((start.rip.0, start.entry.0), (elf.entry(), elf.entry()), "{name}");
        assert_eq!(start.symbol.as_deref().map(|symbol| symbol.contains("_start")), Some(true), "{name}");
        let text = elf.section_by_name(".text").expect("every guest has it");
        let offset = (elf.entry() - text.address()) as usize;
        let hva = start.rip_hva.expect("the entry is mapped").0;
        assert_eq!(bytes_at(hva, 16), text.data().expect("in the file")[offset..offset + 16], "{name}");
        assert_eq!(start.rdi.0, layout::BOOT_INFO.0);
    }
}

#[test]
fn the_tables_are_those_that_another_walker_finds() {
    for (name, boot) in guests() {
        let Explained { vm, answers, .. } = &explained(boot);
        let read = |gpa| vm.memory().read_u64(Gpa(gpa)).ok();
        let walker = Walker { read, cr3: answers.tables.cr3.0, physical_bits: 39 };
        let (mut pages, mut bytes) = ([0; 3], 0);
        let spans = walker.spans(LOWER_HALF).chain(walker.spans(UPPER_HALF));
        for page in spans.filter_map(|span| span.outcome.ok()) {
            let size = [4096, 2 << 20, 1 << 30].iter().position(|size| *size == page.page_size);
            pages[size.expect("a size of pages")] += 1;
            bytes += page.page_size;
        }
        assert_eq!((answers.tables.pages, answers.tables.mapped), (pages, bytes), "{name}");

        let mut tables = [0; 4];
        count_tables(&read, answers.tables.cr3.0, 0, &mut tables);
        let by_level: Vec<u64> = answers.tables.by_level.iter().map(|(_, count)| *count).collect();
        assert_eq!(by_level, tables, "{name}");
        assert_eq!(answers.tables.tables, tables.iter().sum::<u64>(), "{name}");
        assert_eq!((answers.tables.levels, answers.tables.identity, &answers.tables.cut), (4, true, &None));

        for run in &answers.tables.mappings {
            for gva in [run.gva.start, run.gva.start + run.gva.size - 1] {
                let page = walker.walk(gva).expect("the answers say so");
                assert_eq!(page.gpa, run.gpa.0 + (gva - run.gva.start), "{name}");
                let rights = (run.rights.writable, run.rights.executable, run.rights.user);
                assert_eq!((page.writable, page.executable, page.user), rights, "{name}: {gva:#x}");
                assert_eq!(page.page_size, run.page_size, "{name}: {gva:#x}");
            }
        }
    }
}

/// Counts the tables from the one at `table` on, level by level; the manual's bits: 0 is P, 7 is PS.
fn count_tables(read: &impl Fn(u64) -> Option<u64>, table: u64, level: usize, tables: &mut [u64; 4]) {
    tables[level] += 1;
    for index in 0..512 {
        let entry = read(table + index * 8).expect("tables lie in RAM");
        if level < 3 && entry & 1 != 0 && entry & 1 << 7 == 0 {
            count_tables(read, entry & 0x000F_FFFF_FFFF_F000, level + 1, tables);
        }
    }
}

#[test]
fn a_print_byte_by_byte_is_seen_in_kvm_run() {
    let Explained { answers, report, console, .. } = explained(boot("01_hello"));
    let run = answers.run.as_ref().expect("it ran");
    let print = run.print.as_ref().expect("it printed");

    assert_eq!(console, "hello from the guest\n");
    let console_port = Way::Port { port: ports::DEBUG_CONSOLE, is_out: true, size: 1, count: 1 };
    assert_eq!((print.first.number, &print.first.way), (1, &console_port));
    assert_eq!(print.first.data, b"h");
    assert_eq!((print.exits, print.bytes, print.bytes_without_exit), (21, 21, 0));
    let offset = print.first.data_offset.expect("port I/O").0;
    assert_eq!(print.first.data_hva.expect("port I/O").0, answers.vcpu.kvm_run_hva.start + offset);
    assert!(offset >= answers.vcpu.kvm_run_struct_size as u64 && offset < answers.vcpu.kvm_run_hva.size);

    // The pointer that the device got and the number that KVM wrote are two ways to the same byte.
    let io = run.last_port_io.expect("the last exit was at the exit port");
    let last = run.result.last_exit.as_ref().expect("there were exits");
    assert_eq!(Some(io.data_offset), last.data_offset.map(|offset| offset.0));
    assert_eq!((io.port, io.is_out, io.size, io.count), (ports::EXIT, true, 4, 1));
    assert!(run.ended_at_exit_port());
    assert_eq!((run.total_exits, run.exits), (22, report.exits));
    assert_eq!((run.result.code, run.result.process_exit_code), (Some(0), 0));

    let by = print.by.as_deref().expect("the image has debug information");
    assert!(by.contains("outb") && by.contains("guest-kernel/src/cpu/port.rs:"), "{by}");
}

#[test]
fn a_line_by_hypercall_is_one_exit() {
    let Explained { answers, .. } = explained(probe("println 7"));
    let print = answers.run.and_then(|run| run.print).expect("it printed");
    assert_eq!(print.first.way, Way::Hypercall { port: ports::HYPERCALL });
    assert_eq!((print.exits, print.bytes), (1, "a line with a number: 7\n".len() as u64));
}

#[test]
fn a_result_is_read_from_the_exit_that_left_it() {
    let Explained { answers, .. } = explained(probe("exit-by-byte 42"));
    let result = answers.run.expect("it ran").result;
    let last = result.last_exit.expect("there were exits");
    assert_eq!(last.way, Way::Port { port: ports::EXIT, is_out: true, size: 1, count: 1 });
    assert_eq!((last.data, result.code), (vec![42], Some(42)));
}

#[test]
fn guests_that_end_badly_are_explained_too() {
    for (deed, stop) in [
        ("without-idt read-null", Some(StopReason::TripleFault)),
        ("read-null", None),
        ("panic", None),
        ("write-hole", None),
        ("halt-with-interrupts", None),
    ] {
        let Explained { answers, report, .. } = explained(probe(deed));
        let run = answers.run.as_ref().expect("it ran");
        assert_eq!(run.result.end, report.stop.to_string(), "{deed}");
        assert!(stop.is_none_or(|stop| stop == report.stop), "{deed}: {}", report.stop);
        assert!(answers.render(false).contains(&run.result.end), "{deed}");
    }
}

#[test]
fn every_line_of_source_holds_its_step() {
    let Explained { answers, .. } = explained(boot("01_hello"));
    let run = answers.run.as_ref().expect("it ran");
    let print = run.print.as_ref().expect("it printed");
    let place =
        |purpose| answers.places.iter().find(|place| place.purpose == purpose).expect("every guest has it");
    let (code, stack, tables) = (place(Purpose::Image), place(Purpose::Stack), place(Purpose::PageTable));
    let memory = &answers.memory;
    for (origin, file, step) in [
        (Some(memory.allocated_at), "vm.rs", "GuestMemory::allocate("),
        (Some(memory.mapped_at), "reservation.rs", "libc::mmap("),
        (memory.told_at, "memory_slots.rs", "set_user_memory_region("),
        (code.placed_at, "boot/guest_map.rs", "RegionKind::Image"),
        (code.filled_at, "boot/mod.rs", "image.load("),
        (stack.placed_at, "boot/guest_map.rs", "layout::STACK, "),
        (tables.placed_at, "boot/guest_map.rs", "RegionKind::PageTables"),
        (tables.filled_at, "boot/mod.rs", "page_tables::write("),
        (Some(answers.tables.written_at), "boot/mod.rs", "page_tables::write("),
        (place(Purpose::BootInfo).filled_at, "boot/mod.rs", "boot_info::write("),
        (Some(answers.vcpu.created_at), "vcpu.rs", "create_vcpu("),
        (Some(answers.start.decided_at), "boot/mod.rs", "CpuMode::new("),
        (Some(answers.start.special_set_at), "vcpu.rs", "put(&mut waiting.sregs, "),
        (Some(answers.start.general_set_at), "vcpu.rs", "put(&mut waiting.regs, "),
        (run.entered_at, "vcpu.rs", "fd.run()"),
        (run.read_at, "vcpu.rs", "exit::read("),
        (run.returned_to, "run_loop.rs", "enter_guest()"),
        (print.device_attached_at, "machine.rs", "ports::DEBUG_CONSOLE, "),
        (run.result.device_attached_at, "machine.rs", "ports::EXIT, "),
    ] {
        let origin = origin.unwrap_or_else(|| panic!("no line for {step}"));
        assert_eq!(origin.file(), format!("vmm/src/{file}"), "{step}");
        let source = tree::read(origin.file());
        let line = source.lines().nth(origin.line() as usize - 1).expect("the file has that line");
        assert!(line.contains(step), "{origin} is no {step}: {line}");
    }
}

#[test]
fn stdout_has_the_explanation_and_the_exit_code_is_the_guests() {
    for (words, code) in [
        (&["--", "exit", "7"][..], 7),
        (&["--", "read-null"], 102),
        (&["--timeout", "300ms", "--", "spin"], 124),
        (&["--memory", "2M", "--page-size", "4k", "--", "print-and-fault"], 102),
    ] {
        let image = guest("probe");
        let explain = [&["explain", image.to_str().expect("UTF-8")][..], words].concat();
        let Seen { code: seen, stdout, .. } = vmm(&explain);
        assert_eq!(seen, Some(code), "{words:?}");
        for heading in
            ["Guest memory", "Page tables", "The vCPU", "Start", "Into the guest and back", "The result"]
        {
            assert!(stdout.lines().any(|line| line == heading), "{words:?}: {heading}\n{stdout}");
        }
        assert!(!stdout.contains('\x1b'), "no colour where no terminal is");
    }
    let seen = Seen::of(std::process::Command::new(vmm_binary()).arg("explain").arg(guest("01_hello")));
    assert_eq!(seen.stderr, "hello from the guest\n");
    assert!(!seen.stdout.contains("hello from the guest"), "{}", seen.stdout);
}

#[test]
fn json_has_the_same_answers() {
    let image = guest("01_hello");
    let seen = vmm(&["explain", "--json", "--peek", "0x1000:8", image.to_str().expect("UTF-8")]);
    let json: serde_json::Value = serde_json::from_str(&seen.stdout).expect("JSON");
    assert_eq!(json["version"], explain::VERSION);
    assert_eq!(json["start"]["rip"], "0x100000");
    assert_eq!(json["tables"]["levels"], 4);
    assert_eq!(json["memory"]["mapped_at"]["file"], "vmm/src/reservation.rs");
    assert_eq!(json["run"]["print"]["first"]["way"]["port"], 0xE9);
    assert_eq!(json["run"]["total_exits"], 22);
    assert_eq!(json["peeks"][0]["bytes"], serde_json::json!(b"DUETBOOT"));
}

#[test]
fn memory_can_be_looked_at_after_a_run() {
    let finished = probe("print-and-fault").run();
    let look = |space, address, size| {
        Peek::of(&finished.vm, space, PeekRequest { address, size }).expect("registers are readable").bytes
    };
    assert_eq!(look(Space::Physical, 0x1000, 8), look(Space::Virtual, 0x1000, 8));
    assert_eq!(look(Space::Physical, 0, 4), [Some(0); 4], "the null page is RAM");
    assert_eq!(look(Space::Virtual, 0xFFE, 4), [None, None, Some(b'D'), Some(b'U')], "and not mapped");
    let end = finished.vm.memory().size().bytes();
    assert_eq!(look(Space::Physical, end - 2, 4), [Some(0), Some(0), None, None]);
    assert_eq!(look(Space::Physical, u64::MAX - 1, 4), [None; 4]);
    assert_eq!(look(Space::Virtual, u64::MAX - 1, 4), [None; 4]);
}

#[test]
fn run_shows_peeks_on_stderr_and_refuses_large_ones() {
    let image = guest("01_hello");
    let image = image.to_str().expect("UTF-8");
    let seen = vmm(&["run", "--peek", "0x1000:16", "--peek-gva", "0:16", image]);
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from the guest\n"));
    assert!(seen.stderr.contains("44 55 45 54 42 4f 4f 54") && seen.stderr.contains("DUETBOOT"), "{seen:?}");
    assert!(
        seen.stderr.contains("GVA 0x0, 16 bytes") && seen.stderr.contains("nothing is there"),
        "{seen:?}"
    );
    for wrong in ["0x1000", "0:0", "0:1G", "x:1"] {
        let seen = vmm(&["run", "--peek", wrong, image]);
        assert_eq!(seen.code, Some(2), "{wrong}: {seen:?}");
    }
}
