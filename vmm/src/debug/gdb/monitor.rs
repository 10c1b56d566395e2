//! gdb's `monitor`: what the VMM knows and gdb does not ask for.

use std::fmt::Write as _;

use gdbstub::target::ext::monitor_cmd::{ConsoleOutput, MonitorCmd, outputln};
use shared_abi::Gva;

use super::target::Guest;
use crate::debug::mode::{self, Mode};
use crate::error::Result;
use crate::explain::{MemoryMap, Walk, When};
use crate::observe::Observer;

const HELP: &str = "\
monitor exits       how often the guest has exited, by kind
monitor map         what lies where in guest memory, with which rights
monitor walk ADDR   how the page tables translate an address, or a function's
monitor explain     why the guest stands, and where
monitor mode        which mode the CPU is in, and what its segments are
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
            ["map"] => MemoryMap::of(self.session.vm(), When::Stop, false)?.render(false),
            ["walk", word] => match self.address(word) {
                Some(gva) => Walk::of(self.session.vm(), When::Stop, gva)?.to_string(),
                None => format!("`{word}` is neither an address nor a function"),
            },
            ["explain"] => self.explain()?,
            ["mode"] => self.mode()?,
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
            ("ends of interrupts", counts.ioapic_eoi),
            ("fatal exits", counts.fatal),
            ("all", counts.total()),
            ("stops for the debugger", counts.debug),
        ];
        rows.iter().fold(String::new(), |mut text, (name, count)| {
            let _ = writeln!(text, "{count:>10}  {name}");
            text
        })
    }

    /// The address that a word means: a number, or the name of a function.
    fn address(&self, word: &str) -> Option<Gva> {
        parse(word).or_else(|| self.symbols().address_of(word))
    }

    /// gdb shows RIP and segment registers as numbers; which place they mean depends on the mode.
    fn mode(&self) -> Result<String> {
        let state = self.session.vm().cpu_state()?;
        let mut text = format!("{}, at {}\n", Mode::of(&state), mode::place(&state));
        mode::segments(&state.special).iter().for_each(|line| {
            let _ = writeln!(text, "{line}");
        });
        Ok(text)
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
