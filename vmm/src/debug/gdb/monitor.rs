//! gdb's `monitor`: what the VMM knows and gdb does not ask for.

use std::fmt::Write as _;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, outputln};
use shared_abi::Gva;

use super::target::Guest;
use crate::error::Result;
use crate::observe::Observer;
use crate::page_walk;

const HELP: &str = "\
monitor exits       how often the guest has exited, by kind
monitor map         what was put where in guest memory at start
monitor walk ADDR   how the page tables translate an address
monitor explain     why the guest stands, and where
monitor abilities   what this host's KVM can do for a debugger";

impl MonitorCmd for Guest<'_> {
    fn handle_monitor_cmd(&mut self, command: &[u8], mut out: ConsoleOutput<'_>) -> Result<()> {
        for sentence in self.sentences.drain(..) {
            outputln!(out, "{sentence}");
        }
        let command = String::from_utf8_lossy(command);
        let words: Vec<&str> = command.split_whitespace().collect();
        let text = match words.as_slice() {
            ["exits"] => self.exits(),
            ["map"] => self.regions(),
            ["walk", address] => match parse(address) {
                Some(gva) => self.walk(gva)?,
                None => format!("`{address}` is not an address"),
            },
            ["explain"] => self.explain()?,
            ["abilities"] => self.abilities()?.to_string(),
            [] | ["help"] => HELP.to_owned(),
            _ => format!("`monitor {command}` is unknown\n{HELP}"),
        };
        outputln!(out, "{}", text.trim_end());
        Ok(())
    }
}

/// An address as people type it: hexadecimal behind `0x`, else decimal.
fn parse(text: &str) -> Option<Gva> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
    .map(Gva)
}

impl Guest<'_> {
    fn exits(&self) -> String {
        let counts = self.steps.counts();
        let rows = [
            ("hypercalls", counts.hypercall),
            ("port reads", counts.pio_in),
            ("port writes", counts.pio_out),
            ("MMIO reads", counts.mmio_read),
            ("MMIO writes", counts.mmio_write),
            ("halts", counts.halt),
            ("signals", counts.interrupted),
            ("fatal exits and debugger's stops", counts.fatal),
            ("all", counts.total()),
        ];
        rows.iter().fold(String::new(), |mut text, (name, count)| {
            let _ = writeln!(text, "{count:>10}  {name}");
            text
        })
    }

    fn regions(&self) -> String {
        self.session.vm().map().regions().iter().fold(String::new(), |mut text, region| {
            let (start, end) = (region.start, region.end);
            let _ = writeln!(text, "{start}..{end}  {}  {}", region.rights, region.kind.name());
            text
        })
    }

    fn walk(&self, gva: Gva) -> Result<String> {
        let Some(cr3) = self.vcpu().page_tables()? else {
            return Ok(format!("paging is off: {gva} is GPA {gva}"));
        };
        let trace = page_walk::trace(cr3, gva, |gpa| self.memory.read_u64(gpa).ok());
        let steps = trace
            .steps
            .iter()
            .map(|step| match step.entry {
                Some(entry) => format!("{step} at GPA {} is {entry:#018x}\n", step.entry_gpa),
                None => format!("{step} at GPA {} is not in RAM\n", step.entry_gpa),
            })
            .collect::<String>();
        Ok(match trace.end {
            Ok(mapping) => format!("{steps}{gva} is GPA {}: {}", mapping.gpa, trace.reason()),
            Err(_) => format!("{steps}{gva} is not mapped: {}", trace.reason()),
        })
    }

    fn explain(&self) -> Result<String> {
        let rip = self.shown_rip()?;
        let mut text = match &self.end {
            Some(end) => format!("{end}; RIP is {rip}\n"),
            None => format!("the guest stands at RIP {rip}\n"),
        };
        for frame in self.symbols().frames(rip) {
            let _ = writeln!(text, "{frame}");
        }
        Ok(text)
    }
}
