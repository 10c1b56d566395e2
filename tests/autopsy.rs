//! Why guests die, as the host tells it: cause, function, line, the way there.

use std::time::{Duration, Instant};

use kvm_bindings::kvm_regs;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use shared_abi::{ExceptionFrame, Gpa};
use vmm::debug::autopsy::End;
use vmm::debug::{CpuState, Evidence};
use vmm::exit::InstructionBytes;
use vmm::{Diagnosis, StopReason};

use crate::harness::needs::needs;
use crate::harness::{Boot, Finished, machine_code, optimised_guest, patiently, probe, vmm, vmm_run};

fn diagnosed(deed: &str) -> Diagnosis {
    let Finished { report, vm, .. } = probe(deed).run();
    vm.diagnose(&report)
}

fn diagnosed_code(code: &[u8]) -> Diagnosis {
    let Finished { report, vm, .. } = machine_code(code).run();
    vm.diagnose(&report)
}

#[test]
fn a_null_dereference_is_told_with_function_and_line_whoever_catches_it() {
    // Caught by the guest's kernel, or by nobody.
    for deed in ["write-null", "without-idt write-null"] {
        let diagnosis = diagnosed(deed);
        assert_eq!(diagnosis.cause, "#PF: write to 0x8, page 0: null dereference", "{diagnosis}");
        assert_eq!(diagnosis.function.as_deref(), Some("probe::faults::write"), "{diagnosis}");
        assert_eq!(diagnosis.file.as_deref(), Some("guest-kernel/src/bin/probe/faults.rs"), "{diagnosis}");
        assert!(diagnosis.line.is_some() && diagnosis.hint.is_some(), "{diagnosis}");
        let instruction = diagnosis.instruction.as_ref().expect("it can be read");
        assert!(instruction.text.starts_with("mov qword ptr ["), "{diagnosis}");
        assert_eq!(instruction.operands[0].gva.0, 8, "{diagnosis}");
        let last = diagnosis.backtrace.frames.last().and_then(|frame| frame.function.as_deref());
        assert_eq!((last, &diagnosis.backtrace.end), (Some("_start"), &None), "{diagnosis}");
    }
}

#[test]
fn the_chain_of_a_triple_fault_says_which_step_failed() {
    let diagnosis = diagnosed("without-idt write-null");
    let chain = diagnosis.chain.expect("it is followed");
    assert_eq!(
        chain.to_string(),
        "#PF: write to 0x8 (PT[0] not present) -> IDT limit 0x0, no gate for vector 14 -> #DF -> \
         IDT limit 0x0, no gate for vector 8 -> shutdown"
    );
}

#[test]
fn a_stack_overflow_is_told_as_such_with_its_recursion_folded() {
    overflows("overflow-stack", "pushing the frame to the stack at 0x3f");
}

#[test]
fn a_stack_overflow_that_nobody_catches_is_told_as_such_too() {
    // Where registers are lost, clearing pages on the stack takes too many steps to repeat.
    needs!(StateAfterTripleFault);
    overflows("without-idt overflow-stack", "IDT limit 0x0, no gate for vector 14 -> #DF");
}

#[track_caller]
fn overflows(deed: &str, then: &str) {
    let diagnosis = diagnosed(deed);
    assert!(diagnosis.cause.ends_with("the guard page below the stack: stack overflow"), "{diagnosis}");
    assert_eq!(diagnosis.function.as_deref(), Some("probe::faults::overflow_stack"), "{diagnosis}");
    assert!(diagnosis.backtrace.frames.iter().any(|frame| frame.repeated > 20), "{diagnosis}");
    let chain = diagnosis.chain.as_ref().expect("a fault, and one more");
    assert!(chain.to_string().contains(then), "{diagnosis}");
}

#[test]
fn a_jump_to_where_no_code_is_names_its_caller() {
    let diagnosis = diagnosed("execute-stack");
    assert_eq!(diagnosis.cause, "#PF: instruction fetch from 0x40000, the stack (rw-)", "{diagnosis}");
    assert_eq!(diagnosis.function.as_deref(), Some("probe::faults::execute"), "{diagnosis}");
    assert_eq!(diagnosis.instruction, None, "what lies there is none");
}

#[test]
fn deaths_of_bare_machine_code_are_told_too() {
    for (code, cause) in [
        // xor eax, eax; div eax
        (&[0x31, 0xC0, 0xF7, 0xF0][..], "#DE: divide error: the divisor is 0"),
        (&[0x0F, 0x0B], "#UD: invalid opcode: the instruction that is invalid on purpose"),
        // mov rax, 1 << 47; jmp rax
        (&[0x48, 0xB8, 0, 0, 0, 0, 0, 0x80, 0, 0, 0xFF, 0xE0], "0x800000000000"),
        // mov eax, 0x200000; mov cr3, rax
        (&[0xB8, 0, 0, 0x20, 0, 0x0F, 0x22, 0xD8], "#PF: instruction fetch from 0x100008"),
        // mov eax, 8; ltr ax
        (&[0xB8, 8, 0, 0, 0, 0x0F, 0x00, 0xD8], "#GP: general protection: selector 0x8 is outside the GDT"),
    ] {
        let diagnosis = diagnosed_code(code);
        assert!(diagnosis.died && diagnosis.cause.contains(cause), "{cause:?}: {diagnosis}");
        let chain = diagnosis.chain.as_ref().expect("it is followed");
        assert_eq!(chain.end, End::Shutdown, "{diagnosis}");
        assert!(diagnosis.to_string().contains("note: no names, files and lines: "), "{diagnosis}");
    }
}

#[test]
fn new_page_tables_that_do_not_map_the_code_are_told_as_such() {
    let diagnosis = diagnosed_code(&[0xB8, 0, 0, 0x20, 0, 0x0F, 0x22, 0xD8]);
    let told = diagnosis.to_string();
    assert!(
        told.contains("CR3 is 0x200000; the tables of the start, at 0x80000, still map this code"),
        "{told}"
    );
    assert!(told.contains("the page walk ends: PML4[0] not present"), "{told}");
}

#[test]
fn an_instruction_that_kvm_lacks_is_disassembled() {
    // popcnt eax, ecx; then exit
    let finished = machine_code(&[0xF3, 0x0F, 0xB8, 0xC1, 0x31, 0xC0, 0xE6, 0xF4]).run();
    if crate::harness::needs::features().has(vmm::features::Feature::Popcnt) {
        finished.stopped_by(&StopReason::Exited { code: 0 });
        return;
    }
    let diagnosis = finished.vm.diagnose(&finished.report);
    assert!(diagnosis.cause.contains("`popcnt eax, ecx`"), "{diagnosis}");
    assert!(diagnosis.hint.as_ref().is_some_and(|hint| hint.contains("--kvm qemu")), "{diagnosis}");
}

#[test]
fn a_guest_that_spins_is_told_where() {
    let spin = probe("spin").with(|config| config.timeout = Some(patiently(Duration::from_millis(100))));
    let Finished { report, vm, .. } = spin.run();
    let diagnosis = vm.diagnose(&report);
    assert!(!diagnosis.died, "it was stopped: {diagnosis}");
    assert_eq!(diagnosis.function.as_deref(), Some("probe::ends::spin"), "{diagnosis}");
    assert!(diagnosis.facts.iter().any(|fact| fact.starts_with("it spins at 0x1")), "{diagnosis}");
}

#[test]
fn a_panic_shows_who_panicked_first() {
    let Finished { report, vm, .. } = probe("panic").run();
    let diagnosis = vm.diagnose(&report);
    assert!(!diagnosis.died && diagnosis.cause.contains("asked to panic"), "{diagnosis}");
    let first = diagnosis.backtrace.frames.first().expect("somebody panicked");
    assert!(
        first.function.as_ref().is_some_and(|name| name.starts_with("probe::ends::DEEDS")),
        "{diagnosis}"
    );
    assert_eq!(report.exits.total(), 2, "the backtrace costs the guest nothing");
}

#[test]
fn a_port_or_an_address_without_device_names_the_access() {
    for (deed, function, text) in [
        ("unclaimed-port-out", "guest_kernel::cpu::port::outw", "out dx, ax"),
        ("unclaimed-port-in", "guest_kernel::cpu::port::inb", "in al, dx"),
        ("write-hole", "probe::faults::map_the_hole_and_write", "mov qword ptr [rax], 0x1122"),
        ("halt-with-interrupts", "guest_kernel::cpu::halt::wait_for_interrupt", "hlt"),
    ] {
        let diagnosis = diagnosed(deed);
        assert!(diagnosis.died, "{deed}: {diagnosis}");
        assert_eq!(diagnosis.function.as_deref(), Some(function), "{deed}: {diagnosis}");
        assert_eq!(
            diagnosis.instruction.as_ref().map(|one| one.text.as_str()),
            Some(text),
            "{deed}: {diagnosis}"
        );
    }
}

#[test]
fn a_repeated_run_ends_where_the_first_did() {
    needs!(SingleStep);
    for deed in ["write-null", "print-and-fault", "execute-stack", "read-non-canonical"] {
        let again = repeated(probe(&format!("without-idt {deed}"))).expect(deed);
        assert_eq!(again.first, again.second, "{deed}");
    }
}

#[test]
fn a_repeated_run_is_told_the_same_time_chance_typing_and_files() {
    needs!(SingleStep);
    let directory = tempfile::tempdir().expect("a directory");
    let file = directory.path().join("file");
    std::fs::write(&file, "content").expect("a file");
    let boot = probe("without-idt fault-by-chance").with(|config| {
        config.input = vmm::Input::bytes(*b"typed words");
        config.directory = Some(vmm::Grant {
            path: directory.path().to_owned(),
            mode: vmm::GrantMode::ReadOnly,
            limits: vmm::Limits::default(),
        });
    });

    let again = repeated(boot).expect("it is told the same");

    // RAX is an address that all of it decides.
    assert_eq!(again.first, again.second);
}

#[test]
fn a_run_that_cannot_be_repeated_in_time_is_said_to_be_so() {
    needs!(SingleStep);
    let why = repeated(probe("without-idt compute-and-fault 10000")).err().expect("it takes too many steps");
    assert!(why.contains("takes more than 6s step by step"), "{why}");
}

/// The general registers at a death.
struct Again {
    /// As the first run left them.
    first: kvm_regs,
    /// As the repeated one was caught with.
    second: kvm_regs,
}

/// Runs a guest to its triple fault, and once more. Where KVM loses registers, a second repetition stands for the first
/// run.
fn repeated(boot: Boot) -> Result<Again, String> {
    // A fault sets it, an instruction clears it (Intel SDM vol. 3B, 18.3.1.1): it is not the guest's.
    const RESUME_FLAG: u64 = 1 << 16;
    let general =
        |state: &CpuState| kvm_regs { rflags: state.general.rflags & !RESUME_FLAG, ..state.general };
    let mut vm = vmm::Vm::build(boot.config).expect("the machine can be built: is /dev/kvm there?");
    vm.keep_journal();
    let report = vm.run().expect("the host can do its work");
    assert_eq!(report.stop, StopReason::TripleFault, "{report}");
    let second = general(&vm.repeat(&report)?.state);
    let left = vm.cpu_state().expect("a vCPU has registers");
    let first = if left.is_reset() { general(&vm.repeat(&report)?.state) } else { general(&left) };
    Ok(Again { first, second })
}

#[test]
fn vmm_run_says_it_in_its_first_line_and_for_programs_in_a_file() {
    let directory = tempfile::tempdir().expect("a directory");
    let json = directory.path().join("why.json");
    let json = json.to_str().expect("a path of letters");
    let seen = vmm_run("probe", &["--json-report", json, "--", "write-null"]);
    let line = seen.stderr.lines().next().unwrap_or_default();
    assert!(
        line.starts_with(
            "vmm: the guest died: #PF: write to 0x8, page 0: null dereference, in probe::faults::write at \
             guest-kernel/src/bin/probe/faults.rs:"
        ),
        "{seen:?}"
    );
    let why: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(json).expect("it was written")).expect("it is JSON");
    assert_eq!(why["exception"]["address"], "0x8", "{why}");
    assert_eq!(why["registers"]["cr2"], "0x8", "{why}");
    assert_eq!(why["function"], "probe::faults::write", "{why}");
}

#[test]
fn without_debug_information_names_are_told_and_that_there_are_no_lines() {
    let seen = vmm_run("probe", &["--no-debug-info", "--", "write-null"]);
    let line = seen.stderr.lines().next().unwrap_or_default();
    assert!(line.ends_with("null dereference, in probe::faults::write"), "{seen:?}");
    assert!(seen.stderr.contains("\nnote: no files and lines: "), "{seen:?}");
}

#[test]
fn optimised_guests_are_told_through_inlining() {
    let image = optimised_guest("probe");
    let seen = vmm(&["run", image.to_str().expect("a path of letters"), "--", "without-idt", "write-null"]);
    assert!(seen.stderr.contains("#PF: write to 0x8, page 0: null dereference, in probe::"), "{seen:?}");
    assert!(seen.stderr.contains("guest-kernel/src/bin/probe/faults.rs:"), "{seen:?}");
}

#[test]
fn without_registers_the_stack_still_tells_who_was_called() {
    let Finished { report, vm, .. } = probe("without-idt write-null").run();
    let (symbols, state) = (vm.symbols(), CpuState::default());
    let (memory, map) = (vm.memory(), vm.map());
    let evidence =
        Evidence { report: &report, state: &state, memory, map, symbols: &symbols, is_repeated: false };
    let diagnosis = evidence.diagnose_lost("the reason");
    let functions: Vec<_> =
        diagnosis.backtrace.frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    assert!(functions.contains(&"probe::main") && functions.contains(&"guest_main"), "{diagnosis}");
    assert!(diagnosis.died && diagnosis.to_string().contains("note: the reason"), "{diagnosis}");
}

/// Registers as chance has them, and as an attacker would.
fn any_word() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..0x100_0000,
        (0u64..0x2_0000).prop_map(|offset| 0x10_0000 + offset),
        Just(u64::MAX),
        Just(0),
        Just(1 << 47),
    ]
}

#[test]
fn no_registers_are_too_much_for_a_diagnosis() {
    let Finished { report, vm, .. } = probe("without-idt write-null").run();
    let symbols = vm.symbols();
    let left = vm.cpu_state().expect("a vCPU has registers");
    let stops = [
        StopReason::TripleFault,
        StopReason::Halted { interrupts_enabled: true },
        StopReason::Interrupted,
        StopReason::UnclaimedPort { port: 1, size: 1, written: None },
        StopReason::UnclaimedMmio { gpa: Gpa(0xC000_0000), size: 1, written: Some(1) },
        StopReason::EmulationFailure(InstructionBytes::default()),
        StopReason::Exited { code: 101 },
        StopReason::Exception(Box::default()),
    ];
    let mut runner = TestRunner::default();
    let words = (proptest::collection::vec(any_word(), 12), 0..stops.len());
    let outcome = runner.run(&words, |(words, stop)| {
        let [rip, rsp, rbp, rax, rcx, rdx, rsi, rdi, cr3, idt, cr2, rflags] = words[..] else {
            unreachable!()
        };
        let mut state = left;
        state.general = kvm_regs { rip, rsp, rbp, rax, rcx, rdx, rsi, rdi, rflags, ..state.general };
        state.special.cr2 = cr2;
        state.special.idt.base = idt;
        state.special.idt.limit = rdx as u16;
        if rcx % 2 == 0 {
            state.special.cr3 = cr3;
        }
        let mut stop = stops[stop].clone();
        if let StopReason::Exception(frame) = &mut stop {
            **frame =
                ExceptionFrame { rip, rsp, rbp, cr2, vector: rax % 40, rdi, ..ExceptionFrame::default() };
        }
        let report = vmm::RunReport { stop, ..report.clone() };
        let start = Instant::now();
        let evidence = Evidence {
            report: &report,
            state: &state,
            memory: vm.memory(),
            map: vm.map(),
            symbols: &symbols,
            is_repeated: false,
        };
        let told = evidence.diagnose().to_string();
        prop_assert!(start.elapsed() < patiently(Duration::from_secs(2)), "{told}");
        prop_assert!(told.len() < 64 << 10, "{} bytes", told.len());
        Ok(())
    });
    assert!(outcome.is_ok(), "{}", outcome.err().map(|error| error.to_string()).unwrap_or_default());
}
