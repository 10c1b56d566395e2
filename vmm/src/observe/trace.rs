//! `Trace`: a line for every exit, as it happens.
//!
//! A line is written when the exit was answered, so that it can say how long that took. Nothing is kept: whatever a
//! guest does, a trace takes the memory of one line, of the names it has looked up (a limited number), and of its
//! sink's buffer.

use std::fs::File;
use std::io::{self, BufWriter, Write};

use shared_abi::hypercall::{Answer, Hypercall, Registers};

use crate::cpus::{VcpuCount, VcpuId};
use crate::debug::Symbols;
use crate::exit::Exit;
use crate::next::Next;
use crate::observe::entry::{Entry, Kind};
use crate::observe::instruction::{self, RipIs};
use crate::observe::lines::Lines;
use crate::observe::meter::{Closed, Meter};
use crate::observe::table::{place, short, what};
use crate::observe::{ExitCounts, Filter, Handlers, Observer};
use crate::output::Output;
use crate::vcpu::Place;
use crate::vm::Vm;

/// Writes a line for every exit that fits a filter.
pub struct Trace {
    meter: Meter,
    counts: ExitCounts,
    writer: LineWriter,
}

impl Trace {
    /// A trace to `sink`, which gets each line at once. A sink that blocks, blocks the machine.
    #[must_use]
    pub fn new(vm: &Vm, filter: Filter, sink: impl Write + Send + 'static) -> Self {
        let symbols = vm.symbols();
        let has_several = vm.vcpu_count() > VcpuCount::ONE;
        let head = symbols_head(&symbols, has_several);
        let writer = LineWriter {
            has_several,
            handlers: vm.handlers(),
            symbols,
            filter,
            lines: Lines::default(),
            usual: None,
            sink: Box::new(sink),
            failure: None,
        };
        let mut own = Self { meter: Meter::new(vm, true), counts: ExitCounts::default(), writer };
        own.writer.write(&head);
        own
    }

    /// A trace to a terminal or pipe. When nobody reads it, the machine can be stopped all the same.
    #[must_use]
    pub fn to_terminal(vm: &Vm, filter: Filter, file: File) -> Self {
        Self::new(vm, filter, Output::new(file, vm.stop_handle()))
    }

    /// A trace to a file, which is complete when the trace is finished.
    #[must_use]
    pub fn to_file(vm: &Vm, filter: Filter, file: File) -> Self {
        Self::new(vm, filter, BufWriter::with_capacity(64 << 10, Output::new(file, vm.stop_handle())))
    }

    /// Writes out what waits.
    ///
    /// # Errors
    /// The first that the sink has had.
    pub fn finish(mut self) -> io::Result<()> {
        match self.writer.failure.take() {
            Some(failure) => Err(failure),
            None => self.writer.sink.flush(),
        }
    }
}

/// What stands above the lines: their columns, and what names are missing.
fn symbols_head(symbols: &Symbols, has_several: bool) -> String {
    let missing = match symbols.detail() {
        crate::debug::Detail::Lines => String::new(),
        other => format!("{other}\n"),
    };
    let vcpu = if has_several { "vcpu  " } else { "" };
    format!(
        "{missing}{:>7} {vcpu}{:24} {:>5}  {:14} {:>9} {:>9}  line\n",
        "exit", "what", "bytes", "data", "in guest", "in host"
    )
}

impl Observer for Trace {
    fn needs_page_tables(&self) -> bool {
        true
    }

    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.meter.turn_to(vcpu);
    }

    fn on_entry(&mut self) {
        if let Some(closed) = self.meter.enter() {
            self.writer.add(&closed);
        }
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.meter.exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.meter.call(call, answer);
    }

    fn on_answer(&mut self, next: &Next) {
        if let Some(closed) = self.meter.answer(next) {
            self.writer.add(&closed);
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// Makes lines of entries and writes them.
struct LineWriter {
    /// Whether the machine has more than one vCPU, so that each line says whose exit it is.
    has_several: bool,
    handlers: Handlers,
    symbols: Symbols,
    filter: Filter,
    lines: Lines,
    /// Where this KVM leaves RIP after an OUT, once an exit has shown it.
    usual: Option<RipIs>,
    sink: Box<dyn Write + Send>,
    /// The first failure; nothing is written behind it.
    failure: Option<io::Error>,
}

impl LineWriter {
    fn add(&mut self, closed: &Closed<'_>) {
        let Entry { site, .. } = closed.entry;
        let handler = self.handlers.name(site.target);
        let code = closed.code();
        if matches!(site.kind, Kind::PioOut | Kind::Hypercall) {
            self.usual = code.shows().or(self.usual);
        }
        let mut text = None;
        let Self { lines, symbols, filter, usual, .. } = self;
        let mut named = || {
            let lined = lines.of(site, instruction::address(site, &code, *usual), symbols);
            place(lined.caller.as_ref(), lined.instruction.as_ref())
        };
        let fits = filter.fits(site.kind, site.target, || {
            let place = text.insert(named());
            format!("{} {place}", handler.unwrap_or_default())
        });
        if fits {
            let text = text.unwrap_or_else(named);
            let vcpu = self.has_several.then_some(closed.entry.vcpu);
            self.write(&line(closed.entry, vcpu, handler, &text));
        }
    }

    fn write(&mut self, line: &str) {
        if self.failure.is_none() {
            self.failure = self.sink.write_all(line.as_bytes()).err();
        }
    }
}

fn line(entry: &Entry, vcpu: Option<VcpuId>, handler: Option<&str>, place: &str) -> String {
    let vcpu = vcpu.map(|vcpu| format!("{:5} ", format!("cpu{}", vcpu.number()))).unwrap_or_default();
    let what = what(entry.site.kind, &entry.site.target.to_string(), handler);
    let said = entry.call.map(|(call, answer)| said(&call, answer)).unwrap_or_default();
    format!(
        "{:>7} {vcpu}{what:24} {:>5}  {:14} {:>9} {:>9}  {place}{said}\n",
        format!("#{}", entry.number),
        entry.bytes,
        entry.data,
        short(entry.guest_ns),
        short(entry.host_ns),
    )
}

/// A call with its arguments, and its answer.
fn said(call: &Registers, answer: Option<Answer>) -> String {
    let request = match Hypercall::decode(call) {
        Ok(request) => format!("{request:x?}"),
        Err(_) => format!("call {}", call.number),
    };
    match answer {
        Some(Ok(value)) => format!("  {request} = {value}"),
        Some(Err(error)) => format!("  {request} = {error:?}"),
        None => format!("  {request}"),
    }
}
