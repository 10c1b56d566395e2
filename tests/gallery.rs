//! The gallery of deaths: what the host says about each way for a kernel to die.
//!
//! The guest's half is `guest-kernel/src/bin/probe/gallery/`. A diagnosis must name why, the function, and the line below
//! the marker in its source. KVMs differ in what a kernel can execute; what this one can was found by trying
//! (`harness/needs.rs`), and the diagnosis follows.

use std::time::Duration;

use vmm::debug::Diagnosis;
use vmm::features::Feature;
use vmm::next::process::{GUEST_DIED, PANICKED, TIMED_OUT};
use vmm::{RunReport, StopReason};

use crate::harness::needs::{features, needs};
use crate::harness::{patiently, probe, vmm_run};

/// The sources, by the modules that they are. They are in the program: it also runs where there are none.
const SOURCES: [(&str, &str); 7] = [
    ("control", include_str!("../guest-kernel/src/bin/probe/gallery/control.rs")),
    ("devices", include_str!("../guest-kernel/src/bin/probe/gallery/devices.rs")),
    ("jumps", include_str!("../guest-kernel/src/bin/probe/gallery/jumps.rs")),
    ("memory", include_str!("../guest-kernel/src/bin/probe/gallery/memory.rs")),
    ("numbers", include_str!("../guest-kernel/src/bin/probe/gallery/numbers.rs")),
    ("panics", include_str!("../guest-kernel/src/bin/probe/gallery/panics.rs")),
    ("tables", include_str!("../guest-kernel/src/bin/probe/gallery/tables.rs")),
];

/// The module whose source has the marker of `name`, and the line below it.
pub(crate) fn place(name: &str) -> (&'static str, u32) {
    let marker = format!("// DIES HERE: {name}");
    let line = |source: &str| source.lines().position(|line| line.trim() == marker);
    let found = SOURCES.iter().find_map(|(module, source)| Some((*module, line(source)? as u32 + 2)));
    found.unwrap_or_else(|| panic!("no source has `{marker}`"))
}

/// Whether `text` is `pattern`, in which `…` stands for anything.
fn fits(text: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|start| text.strip_prefix(start)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

/// The deaths that are none before a time limit comes, at least on some KVMs.
const ENDLESS: [&str; 3] = ["cr3-outside-ram", "endless-loop", "fault-without-end"];

/// A guest that has died, and what is said about it.
struct Death {
    name: &'static str,
    report: RunReport,
    diagnosis: Diagnosis,
}

impl Death {
    fn of(name: &'static str) -> Self {
        let mut death = probe(name);
        if ENDLESS.contains(&name) {
            death.config.timeout = Some(patiently(Duration::from_secs(1)));
        }
        let finished = death.run();
        let diagnosis = finished.vm.diagnose(&finished.report);
        Self { name, report: finished.report, diagnosis }
    }

    #[track_caller]
    fn is_of(&self, cause: &str) -> &Self {
        assert!(
            fits(&self.diagnosis.cause, cause),
            "{}: the cause is not `{cause}`:\n{}",
            self.name,
            self.diagnosis
        );
        self
    }

    /// Expects the function and the line that the markers name.
    #[track_caller]
    fn is_at_its_marker(&self) -> &Self {
        let function = self.name.replace('-', "_");
        let module = place(self.name).0;
        self.is_in(&format!("probe::gallery::{module}::{function}"))
    }

    /// Expects `function`, and the line that the marker names.
    #[track_caller]
    fn is_in(&self, function: &str) -> &Self {
        let (module, line) = place(self.name);
        let found = &self.diagnosis;
        assert_eq!(found.function.as_deref(), Some(function), "{}:\n{found}", self.name);
        assert_eq!(found.file, Some(format!("guest-kernel/src/bin/probe/gallery/{module}.rs")), "{found}");
        assert_eq!(found.line, Some(line), "{}:\n{found}", self.name);
        self
    }

    /// Expects these steps of the chain, one behind the other; others may stand between them.
    #[track_caller]
    fn follows(&self, expected: &[&str]) -> &Self {
        let steps = self.diagnosis.chain.as_ref().map(vmm::debug::autopsy::Chain::steps).unwrap_or_default();
        let mut rest = steps.iter();
        for pattern in expected {
            assert!(
                rest.any(|step| fits(step, pattern)),
                "{}: no step `{pattern}` in its place:\n{}",
                self.name,
                self.diagnosis
            );
        }
        self
    }

    /// Expects the process exit code, and a first line that says it all.
    #[track_caller]
    fn ends_with(&self, code: u8) {
        let found = &self.diagnosis;
        assert_eq!(self.report.stop.process_exit_code(), code, "{}: {}\n{found}", self.name, self.report);
        assert_eq!(found.died, code == GUEST_DIED, "{found}");
        let first = found.to_string().lines().next().unwrap_or_default().to_owned();
        assert!(
            first.contains(&found.cause) && first.ends_with(&found.place().unwrap_or_default()),
            "{first}"
        );
    }
}

/// A test for each death: its deed has the test's name, the function and the marker too.
macro_rules! deaths {
    ($($code:ident { $($test:ident: $cause:literal $(=> [$($step:literal),+])?;)+ })+) => {
        $($(
            #[test]
            fn $test() {
                let name: &str = Box::leak(stringify!($test).replace('_', "-").into_boxed_str());
                let death = Death::of(name);
                death.is_of($cause).is_at_its_marker().ends_with($code);
                $(death.follows(&[$($step),+]);)?
            }
        )+)+

        /// The names of the tests above.
        const SIMPLE: &[&str] = &[$($(stringify!($test)),+),+];
    };
}

deaths! {
    GUEST_DIED {
        null_read: "#PF: read of 0x8, page 0: null dereference";
        null_write: "#PF: write to 0x8, page 0: null dereference";
        wild_read: "#PF: read of 0x70000000, beyond RAM, which ends at 0x1000000";
        negative_offset: "#PF: write to 0xfffffffffffffff0, just below the end of all addresses: a null pointer minus something";
        non_canonical_read: "#GP: general protection: 0xdead000000000000 is not canonical";
        rodata_write: "#PF: write to 0x…, the image's .rodata (r--)…";
        text_write: "#PF: write to 0x…, the image's .text (r-x), probe::gallery::memory::text_write+0x0";
        stack_overflow: "#PF: write to 0x3f…, the guard page below the stack: stack overflow"
            => ["#PF: write to 0x3f…", "pushing the frame to the stack at 0x3f…", "#DF", "handler at 0x…"];
        own_stack_overflow: "#PF: write to 0xffff804000…, below the stack that was in use: stack overflow"
            => ["#PF: write to 0xffff804000…", "pushing the frame to the stack at 0xffff804000…", "#DF", "handler at 0x…"];
        unmapped_stack_read: "#PF: read of 0xffff804000…, where nothing is mapped";
        huge_local: "#PF: write to 0x3f…, the guard page below the stack: stack overflow";
        misaligned_sse: "#GP: general protection: 0x… is no multiple of 16, as `movaps xmm0, xmmword ptr […]` needs it";
        reserved_bit: "#PF: read of 0x8000000000, as PML4[1] has a reserved bit set";
        write_protected: "#PF: write to 0x2000, the arguments (r--)";

        null_call: "#PF: instruction fetch from 0x0, page 0: null dereference";
        wild_jump: "#PF: instruction fetch from 0x70000000, beyond RAM, which ends at 0x1000000";
        stack_execution: "#PF: instruction fetch from 0x7…, the stack…";
        data_execution: "#PF: instruction fetch from 0x…, the image's .data (rw-)…";

        div_by_zero: "#DE: divide error: the divisor is 0";
        quotient_overflow: "#DE: divide error: the quotient of `idiv …` does not fit into 64 bits";
        ud2: "#UD: invalid opcode: the instruction that is invalid on purpose";
        unknown_instruction: "#UD: invalid opcode: the bytes 06 … are no instruction";

        bad_cr3: "#PF: instruction fetch from 0x…, the image's .text (r-x), probe::gallery::control::bad_cr3+0x…"
            => ["#PF: instruction fetch from …", "reading gate 14 of the IDT …", "#DF", "reading gate 8 of the IDT …", "shutdown"];
        pae_off: "#GP: general protection: CR4 cannot be 0x…: PAE cannot be cleared in 64-bit mode";
        protection_off: "#GP: general protection: CR0 cannot be 0x…: PG needs PE";
        bad_selector: "#GP: general protection: selector 0x1230 is outside the GDT with limit 0x…";
        unknown_msr: "#GP: general protection: MSR 0xdeadbeef does not exist here or cannot be 0x0";
        stack_nowhere: "#SS: stack-segment fault: 0xdeacfffffffffff8 is not canonical";
        endless_wait: "it halted and waits for an interrupt, which nothing in this machine can send";

        idt_nowhere: "#UD: invalid opcode…"
            => ["#UD: …", "reading gate 6 of the IDT at 0x70000060: #PF: …", "shutdown"];
        idt_misaligned: "#UD: invalid opcode…" => ["#UD: …", "…gate 6 …", "shutdown"];
        idt_too_short: "#UD: invalid opcode…" => ["#UD: …", "IDT limit 0x0, no gate …", "shutdown"];
        gate_absent: "#UD: invalid opcode…" => ["#UD: …", "gate 6 (#UD) of the IDT is not present", "#NP", "handler at 0x…"];
        gate_selector: "#UD: invalid opcode…" => ["#UD: …", "…0x1230…", "#GP", "handler at 0x…"];
        gate_nowhere: "#PF: instruction fetch from 0x70000…, beyond RAM, which ends at 0x1000000";
        ist_nowhere: "#PF: write to 0x8, page 0: null dereference"
            => ["#PF: write to 0x8…", "pushing the frame to the stack IST7 …", "#DF", "pushing the frame to the stack IST7 …", "shutdown"];

        unknown_port_out: "it wrote 0xabcd (2 bytes) to port 0x1234, where no device is";
        unknown_port_in: "it read 1 bytes from port 0x60, where no device is";
        unknown_port_string: "it wrote 0x74 (1 bytes) to port 0x3f8, where no device is";
        hole_write: "it wrote 0x1122 (8 bytes) to GPA 0xc0100000, where neither RAM nor a device is";
        hole_read: "it read 4 bytes from GPA 0xc0100000, where neither RAM nor a device is";
    }
    PANICKED {
        index_out_of_bounds: "the guest panicked at …: index out of bounds: the len is 3 but the index is 7";
        arithmetic_overflow: "the guest panicked at …: attempt to add with overflow";
        checked_division: "the guest panicked at …: attempt to divide by zero";
        missing_value: "the guest panicked at …: a value is there";
        failed_assertion: "the guest panicked at …: assertion `left == right` failed: arithmetic has changed…";
        already_borrowed: "the guest panicked at …: RefCell already borrowed";
        misaligned_reference: "the guest panicked at …: misaligned pointer dereference: address must be a multiple of 0x8 but is 0x…";
        out_of_memory: "the guest panicked at …: the arena has 65 bytes";
    }
    TIMED_OUT {
        endless_loop: "the guest was stopped after its time limit of …";
    }
}

/// The deaths that need more words, by the tests below.
const OTHERS: &[&str] = &[
    "non-canonical-call",
    "cr3-outside-ram",
    "smashed-return",
    "int3",
    "software-interrupt",
    "popcnt",
    "double-panic",
    "panic-in-handler",
    "fault-in-handler",
    "fault-without-end",
    "user-privileged",
    "user-kernel-read",
    "user-kernel-jump",
];

#[test]
fn every_death_of_the_gallery_has_its_test() {
    let listed = probe("list").run().succeeded();
    let (_, gallery) = listed.split_once("the gallery of deaths:\n").expect("the probe lists it");
    let mut names: Vec<_> = gallery.lines().filter_map(|line| line.split(' ').next()).collect();
    let simple: Vec<_> = SIMPLE.iter().map(|name| name.replace('_', "-")).collect();
    let mut tested: Vec<_> = simple.iter().map(String::as_str).chain(OTHERS.iter().copied()).collect();
    names.sort_unstable();
    tested.sort_unstable();
    assert_eq!(names, tested);
}

/// The CPU finds nothing there and shuts down; a KVM with nested paging may try for ever.
#[test]
fn page_tables_outside_ram_are_a_shutdown_or_no_progress() {
    let death = Death::of("cr3-outside-ram");
    if matches!(death.report.stop, StopReason::TimedOut { .. }) {
        return death.is_of("the guest was stopped after its time limit of …").ends_with(TIMED_OUT);
    }
    death
        .is_of("#PF: instruction fetch from 0x…, the image's .text (r-x), probe::gallery::control::cr3_outside_ram+0x…")
        .is_at_its_marker()
        .follows(&["#PF: instruction fetch from …", "#DF", "shutdown"])
        .ends_with(GUEST_DIED);
}

/// Where the CPU finds out differs: at the call, or at its end.
#[test]
fn a_call_of_a_non_canonical_address_is_told_with_it() {
    Death::of("non-canonical-call").is_of("#…0xdead000000000000…").is_at_its_marker().ends_with(GUEST_DIED);
}

/// Nothing is left that leads to the function: its caller's return address was written over.
#[test]
fn a_smashed_return_address_is_told_and_what_it_is_a_sign_of() {
    let death = Death::of("smashed-return");
    death.is_of("#PF: instruction fetch from 0x41414141, beyond RAM, …");
    let hint = death.diagnosis.hint.clone().unwrap_or_default();
    assert!(hint.contains("smashed stack"), "{}", death.diagnosis);
    death.ends_with(GUEST_DIED);
}

#[test]
fn a_breakpoint_without_a_debugger_is_one_or_an_instruction_that_the_kvm_lacks() {
    let cause = emulated(Feature::Int3, "#BP: breakpoint…", "… lacks `int3`");
    Death::of("int3").is_of(cause).is_at_its_marker().ends_with(GUEST_DIED);
}

#[test]
fn an_interrupt_that_nobody_handles_is_told_by_its_vector_or_as_an_instruction_that_the_kvm_lacks() {
    let cause = emulated(
        Feature::SoftwareInterrupt,
        "vector 128: an interrupt that nobody handles: the instruction asks for it",
        "… lacks `int 0x80`",
    );
    Death::of("software-interrupt").is_of(cause).is_at_its_marker().ends_with(GUEST_DIED);
}

#[test]
fn an_instruction_that_the_kvm_lacks_is_named() {
    let death = Death::of("popcnt");
    if features().has(Feature::Popcnt) {
        assert_eq!(death.report.stop, StopReason::Exited { code: 0 });
        return;
    }
    death.is_of("… lacks `popcnt …`").is_at_its_marker().ends_with(GUEST_DIED);
}

/// What to expect, by whether this KVM has `feature`.
fn emulated(feature: Feature, there: &'static str, lacking: &'static str) -> &'static str {
    if features().has(feature) { there } else { lacking }
}

#[test]
fn a_panic_in_a_panic_is_told_at_the_second() {
    let function = "<probe::gallery::panics::Unspeakable as core::fmt::Display>::fmt";
    Death::of("double-panic")
        .is_of("the guest panicked at …: while telling of another panic")
        .is_in(function)
        .ends_with(PANICKED);
}

#[test]
fn what_goes_wrong_in_a_handler_is_told_there_with_what_it_interrupted() {
    for (name, cause, code) in [
        ("panic-in-handler", "the guest panicked at …: the handler gives up", PANICKED),
        ("fault-in-handler", "#PF: write to 0x8, page 0: null dereference", GUEST_DIED),
    ] {
        let function = format!("probe::gallery::panics::{}", name.replace('-', "_"));
        let death = Death::of(name);
        death.is_of(cause).is_in(&format!("{function}::{{{{closure}}}}"));
        let frames = &death.diagnosis.backtrace.frames;
        assert!(frames.iter().any(|frame| frame.function.as_ref() == Some(&function)), "{}", death.diagnosis);
        death.ends_with(code);
    }
}

#[test]
fn a_fault_without_end_is_seen_in_the_backtrace_of_the_time_limit() {
    let death = Death::of("fault-without-end");
    death.is_of("the guest was stopped after its time limit of …");
    let frames = &death.diagnosis.backtrace.frames;
    let is_there = |part: &str| {
        frames.iter().any(|frame| frame.function.as_ref().is_some_and(|function| function.contains(part)))
    };
    // Between handler and fault there are moments in which the stack has no frame of the function.
    assert!(
        ["::fault_without_end", "guest_kernel::exceptions::entry", "exception_entries"]
            .into_iter()
            .any(is_there),
        "{}",
        death.diagnosis
    );
    death.ends_with(TIMED_OUT);
}

#[test]
fn a_death_in_user_mode_is_told_as_one() {
    for (name, cause, whose) in [
        (
            "user-privileged",
            "#GP: general protection: the instruction is for ring 0, and this is ring 3",
            "… outside of the image, …",
        ),
        (
            "user-kernel-read",
            "#PF: read of 0x100000, the image's .text (r-x), _start+0x0",
            "… outside of the image, …",
        ),
        (
            "user-kernel-jump",
            "#PF: instruction fetch from 0x100000, the image's .text (r-x), _start+0x0",
            "… the kernel's own code",
        ),
    ] {
        let death = Death::of(name);
        death.is_of(cause).ends_with(GUEST_DIED);
        let facts = &death.diagnosis.facts;
        let pattern = format!("the CPU was in user mode (ring 3, CS 0x33): {whose}");
        assert!(facts.iter().any(|fact| fits(fact, &pattern)), "{name}:\n{}", death.diagnosis);
        let registers = death.diagnosis.registers.as_ref().expect("registers");
        assert!(registers.to_string().contains("cs 0000000000000033"), "{registers}");
    }
}

#[test]
fn a_program_that_faults_where_no_handler_is_takes_the_machine_with_it() {
    // Where registers are lost, making a process takes too many steps to repeat.
    needs!(StateAfterTripleFault);
    let finished = probe("without-idt user-privileged").run();
    let diagnosis = finished.vm.diagnose(&finished.report);
    assert_eq!(finished.report.stop, StopReason::TripleFault);
    let cause = "#GP: general protection: the instruction is for ring 0, and this is ring 3";
    assert_eq!(diagnosis.cause, cause, "{diagnosis}");
    assert!(diagnosis.facts.iter().any(|fact| fact.starts_with("the CPU was in user mode")), "{diagnosis}");
}

#[test]
fn the_first_line_on_stderr_is_the_diagnosis() {
    for (name, code, cause) in [
        ("null-write", 102, "the guest died: #PF: write to 0x8, page 0: null dereference"),
        (
            "idt-nowhere",
            102,
            "the guest died: #UD: invalid opcode: the instruction that is invalid on purpose",
        ),
        ("arithmetic-overflow", 101, "the guest panicked at …: attempt to add with overflow"),
    ] {
        let seen = vmm_run("probe", &["--", name]);
        let (module, line) = place(name);
        let function = format!("probe::gallery::{module}::{}", name.replace('-', "_"));
        let file = format!("guest-kernel/src/bin/probe/gallery/{module}.rs");
        let first = seen.stderr.lines().next().unwrap_or_default();
        assert!(fits(first, &format!("vmm: {cause}, in {function} at {file}:{line}")), "{first}");
        assert_eq!(seen.code, Some(code));
    }
}
