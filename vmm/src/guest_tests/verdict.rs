//! `Verdict`: what a run shows, held against what its test promises.

use std::fmt;
use std::time::Duration;

use shared_abi::exit_code;

use crate::debug::Diagnosis;
use crate::guest_tests::image::{End, GuestTest};
use crate::next::StopReason;
use crate::observe::ExitCounts;
use crate::report::RunReport;

/// What became of a test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Each promise that was not kept, with the test's place in the source.
    pub complaints: Vec<String>,
    /// How the run ended.
    pub report: RunReport,
    /// How many instructions the test executed, when that was counted.
    pub instructions: Option<u64>,
    /// Why it ended so, when that is not what the test promises.
    pub diagnosis: Option<Diagnosis>,
    /// What the guest printed.
    pub console: String,
    /// How long it took, from making the machine to its end.
    pub elapsed: Duration,
}

impl Verdict {
    /// Judges a run.
    #[must_use]
    pub fn of(
        test: &GuestTest,
        report: RunReport,
        instructions: Option<u64>,
        console: String,
        elapsed: Duration,
    ) -> Self {
        let wrong_end = wrong_end(test.end, &report.stop);
        // A panic that nobody wanted prints, and what that takes is nobody's fault.
        let max_exits = test.max_exits.filter(|_| wrong_end.is_none());
        let most_instructions = test.max_instructions.filter(|_| wrong_end.is_none());
        let too_many_instructions = too_many(most_instructions, instructions, "executed", "instructions");
        let missing_print = missing_print(&test.prints, &console);
        let too_many_exits = too_many(max_exits, Some(own_exits(&report)), "took", "exits");
        let complaints =
            [wrong_end, missing_print, too_many_exits, too_many_instructions].into_iter().flatten();
        let complaints = complaints.map(|what| format!("{}:{}: {what}", test.file, test.line)).collect();
        Self { complaints, report, instructions, diagnosis: None, console, elapsed }
    }

    /// Whether the test has kept what it promises.
    #[must_use]
    pub fn has_held(&self) -> bool {
        self.complaints.is_empty()
    }
}

fn wrong_end(end: End, stop: &StopReason) -> Option<String> {
    let is_right = match (end, stop) {
        (End::Exit(wanted), StopReason::Exited { code }) => wanted == *code,
        (End::Fault { vector, address }, StopReason::Exception(frame)) => {
            vector.is_none_or(|wanted| frame.vector() == Some(wanted))
                && address.is_none_or(|wanted| frame.fault_address() == Some(wanted))
        }
        (End::Fault { vector: None, address: None }, StopReason::TripleFault) => true,
        _ => false,
    };
    (!is_right).then(|| format!("{stop}, but should have {end}"))
}

fn missing_print(wanted: &str, console: &str) -> Option<String> {
    (!console.contains(wanted)).then(|| format!("the console does not hold {wanted:?}"))
}

/// The complaint about a test that `did` more things than it may.
fn too_many(most: Option<u64>, seen: Option<u64>, did: &str, things: &str) -> Option<String> {
    let (most, seen) = (most?, seen?);
    let are = if most == 1 { "is" } else { "are" };
    (seen > most).then(|| format!("the test {did} {seen} {things}, but at most {most} {are} allowed"))
}

/// The exits that the test caused itself: not a signal's, and not the one that ends it, which every test has.
fn own_exits(report: &RunReport) -> u64 {
    let caused = report.exits.total() - report.exits.interrupted;
    match report.stop {
        StopReason::TimedOut { .. } | StopReason::Interrupted => caused,
        _ => caused.saturating_sub(1),
    }
}

impl fmt::Display for End {
    /// What a test should have done.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(exit_code::SUCCESS) => f.write_str("returned"),
            Self::Exit(exit_code::PANICKED) => f.write_str("panicked"),
            Self::Exit(code) => write!(f, "ended with exit code {code}"),
            Self::Fault { vector, address } => {
                match vector {
                    Some(vector) => write!(f, "died of {vector}")?,
                    None => f.write_str("died of an exception")?,
                }
                address.map_or(Ok(()), |address| write!(f, " at {address}"))
            }
        }
    }
}

impl fmt::Display for Verdict {
    /// The complaints, each on its line; the report; the diagnosis; the console. Without a newline at the end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for complaint in &self.complaints {
            writeln!(f, "{complaint}")?;
        }
        write!(f, "report: {}", self.report.stop)?;
        if let Some(rip) = self.report.rip {
            write!(f, "; RIP {rip}")?;
        }
        write!(f, "; exits: {}; {:.1?}", Kinds(&self.report.exits), self.elapsed)?;
        if let Some(diagnosis) = &self.diagnosis {
            write!(f, "\n{diagnosis}")?;
        }
        match self.console.trim_end_matches('\n') {
            "" => write!(f, "\nconsole: nothing"),
            console => write!(f, "\nconsole:\n{console}"),
        }
    }
}

/// `2 hypercall, 1 pio_out`
struct Kinds<'a>(&'a ExitCounts);

impl fmt::Display for Kinds<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ExitCounts {
            pio_in,
            pio_out,
            hypercall,
            mmio_read,
            mmio_write,
            halt,
            interrupted,
            ioapic_eoi,
            fatal,
            ..
        } = self.0;
        let kinds = [
            (pio_in, "pio_in"),
            (pio_out, "pio_out"),
            (hypercall, "hypercall"),
            (mmio_read, "mmio_read"),
            (mmio_write, "mmio_write"),
            (halt, "halt"),
            (interrupted, "interrupted"),
            (ioapic_eoi, "ioapic_eoi"),
            (fatal, "fatal"),
        ];
        let seen = kinds.iter().filter(|(count, _)| **count > 0);
        let words: Vec<_> = seen.map(|(count, kind)| format!("{count} {kind}")).collect();
        f.write_str(&words.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use shared_abi::{ExceptionFrame, Gva, Vector};

    use super::*;
    use crate::cpus::VcpuCount;

    fn test() -> GuestTest {
        GuestTest {
            index: 0,
            function: Gva(0x10_0000),
            name: "a::claim".into(),
            file: "a.rs".into(),
            line: 7,
            end: End::Exit(0),
            prints: String::new(),
            max_exits: None,
            max_instructions: None,
            timeout: None,
            is_ignored: false,
            vcpus: VcpuCount::ONE,
        }
    }

    fn verdict(test: &GuestTest, stop: StopReason, hypercalls: u64, console: &str) -> Verdict {
        let exits = ExitCounts { hypercall: hypercalls, pio_out: 1, interrupted: 3, ..ExitCounts::default() };
        let report = RunReport { stop, vcpu: None, rip: None, panic: None, exits };
        Verdict::of(test, report, Some(1000), console.into(), Duration::from_millis(2))
    }

    #[test]
    fn the_exit_that_ends_a_test_and_signals_are_not_its_budgets() {
        let test = GuestTest { max_exits: Some(2), ..test() };
        assert!(verdict(&test, StopReason::Exited { code: 0 }, 2, "").has_held());
        let complaints = verdict(&test, StopReason::Exited { code: 0 }, 3, "").complaints;
        assert_eq!(complaints, ["a.rs:7: the test took 3 exits, but at most 2 are allowed"]);
    }

    #[test]
    fn instructions_are_a_budget_like_exits() {
        let test = |most| GuestTest { max_instructions: Some(most), ..test() };
        assert!(verdict(&test(1000), StopReason::Exited { code: 0 }, 0, "").has_held());
        let complaints = verdict(&test(999), StopReason::Exited { code: 0 }, 0, "").complaints;
        assert_eq!(complaints, ["a.rs:7: the test executed 1000 instructions, but at most 999 are allowed"]);
    }

    #[test]
    fn a_wrong_end_is_told_with_the_right_one() {
        for (end, stop, complaint) in [
            (End::Exit(0), StopReason::Exited { code: 101 }, "the guest panicked, but should have returned"),
            (End::Exit(101), StopReason::Exited { code: 0 }, "exit code 0, but should have panicked"),
            (End::Exit(7), StopReason::Exited { code: 8 }, "code 8, but should have ended with exit code 7"),
            (ANY_FAULT, StopReason::Exited { code: 0 }, "but should have died of an exception"),
            (PAGE_FAULT, StopReason::TripleFault, "but should have died of #PF (page fault) at 0x8"),
            (
                PAGE_FAULT,
                exception(Vector::GeneralProtection, 8),
                "the guest died of #GP (general protection), but should have died of #PF (page fault) at 0x8",
            ),
            (
                PAGE_FAULT,
                exception(Vector::PageFault, 16),
                "died of #PF (page fault) at 0x10, but should have died of #PF (page fault) at 0x8",
            ),
            (End::Exit(0), StopReason::TripleFault, "a triple fault, but should have returned"),
        ] {
            let verdict = verdict(&GuestTest { end, ..test() }, stop, 0, "");
            assert!(verdict.complaints[0].starts_with("a.rs:7: "), "{verdict}");
            assert!(verdict.complaints[0].ends_with(complaint), "{verdict}");
        }
    }

    const ANY_FAULT: End = End::Fault { vector: None, address: None };
    const PAGE_FAULT: End = End::Fault { vector: Some(Vector::PageFault), address: Some(Gva(8)) };

    fn exception(vector: Vector, cr2: u64) -> StopReason {
        StopReason::Exception(Box::new(ExceptionFrame {
            vector: vector as u64,
            cr2,
            ..ExceptionFrame::default()
        }))
    }

    #[test]
    fn a_fault_that_was_wanted_is_a_success() {
        for (end, stop) in [
            (PAGE_FAULT, exception(Vector::PageFault, 8)),
            (End::Fault { vector: Some(Vector::PageFault), address: None }, exception(Vector::PageFault, 16)),
            (
                End::Fault { vector: Some(Vector::InvalidOpcode), address: None },
                exception(Vector::InvalidOpcode, 8),
            ),
            (ANY_FAULT, exception(Vector::DivideError, 0)),
            (ANY_FAULT, StopReason::TripleFault),
        ] {
            let verdict = verdict(&GuestTest { end, ..test() }, stop, 0, "");
            assert!(verdict.has_held(), "{verdict}");
        }
    }

    #[test]
    fn every_broken_promise_is_told_and_the_console_shown() {
        let test = GuestTest { prints: "hello".into(), max_exits: Some(0), ..test() };
        let verdict = verdict(&test, StopReason::Exited { code: 0 }, 1, "bye\n");
        assert_eq!(verdict.complaints.len(), 2);
        let text = verdict.to_string();
        assert!(text.contains("exits: 1 pio_out, 1 hypercall, 3 interrupted; 2.0ms"), "{text}");
        assert!(text.ends_with("\nconsole:\nbye"), "{text}");
    }
}
