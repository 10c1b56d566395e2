//! `Timeline`: a run as a picture, in the format of Chrome's trace viewer, which Perfetto shows.
//!
//! A track per vCPU, with spans that nest: those that the guest has marked, and inside them the times in the guest and
//! in the host, turn by turn. Log records are points. The file is an array of events (Trace Event Format, "JSON Array
//! Format"); it is written while the guest runs, and viewers forgive a missing `]`, should the VMM itself be killed.
//!
//! ```text
//! vCPU 0  │ boot ─────────────────────────────────────────┐      a span that the guest has marked
//!         │ guest │ host: ConsoleWrite │ guest │ host …   │
//!         │              ▲ a log record
//! ```
//!
//! A mark begins when the guest is entered behind its call and ends when the guest leaves for the call that ends it: so
//! the marks' own exits are outside, and every span lies wholly inside another or beside it.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write};

use serde_json::{Value, json};
use shared_abi::hypercall::{Answer, Registers};

use crate::cpus::VcpuId;
use crate::exit::Exit;
use crate::log::LogRecord;
use crate::next::Next;
use crate::observe::meter::{Closed, Meter};
use crate::observe::table::what;
use crate::observe::{ExitCounts, Handlers, Mark, Observer};
use crate::output::Output;
use crate::vcpu::Place;
use crate::vm::Vm;

/// Draws a run.
pub struct Timeline {
    meter: Meter,
    counts: ExitCounts,
    mark: Option<Mark>,
    picture: Picture,
}

impl Timeline {
    /// The most bytes of a timeline, unless another limit is set: more than viewers like.
    pub const LIMIT: u64 = 256 << 20;

    /// A timeline to `sink`, which should have a buffer.
    #[must_use]
    pub fn new(vm: &Vm, sink: impl Write + Send + 'static) -> Self {
        let meter = Meter::new(vm, false);
        let picture = Picture::new(vm.handlers(), Box::new(sink));
        Self { meter, counts: ExitCounts::default(), mark: None, picture }
    }

    /// A timeline to a file.
    #[must_use]
    pub fn to_file(vm: &Vm, file: File) -> Self {
        Self::new(vm, BufWriter::with_capacity(256 << 10, Output::new(file, vm.stop_handle())))
    }

    /// Draws nothing beyond so many bytes, but for the end.
    #[must_use]
    pub fn with_limit(mut self, bytes: u64) -> Self {
        self.picture.limit = bytes;
        self
    }

    /// Ends the picture. Without this it lacks its end.
    ///
    /// # Errors
    /// The first that the sink has had.
    pub fn finish(mut self) -> io::Result<()> {
        self.picture.finish()
    }
}

impl Observer for Timeline {
    fn on_vcpu(&mut self, vcpu: VcpuId) {
        self.meter.turn_to(vcpu);
    }

    fn on_entry(&mut self) {
        if let Some(closed) = self.meter.enter() {
            self.picture.add(&closed, self.mark.take());
        }
    }

    fn on_exit(&mut self, exit: &Exit<'_>, place: Option<Place>) {
        self.counts.on_exit(exit, place);
        self.meter.exit(exit, place);
    }

    fn on_call(&mut self, call: &Registers, answer: Option<Answer>) {
        self.meter.call(call, answer);
    }

    fn on_log(&mut self, record: &LogRecord) {
        let now = self.meter.now();
        self.picture.point(now, &record.to_string());
    }

    fn on_mark(&mut self, mark: &Mark) {
        self.mark = Some(mark.clone());
    }

    fn on_answer(&mut self, next: &Next) {
        if let Some(closed) = self.meter.answer(next) {
            self.picture.add(&closed, self.mark.take());
        }
        if let Next::Stop(reason) = next {
            self.picture.point(self.picture.end_ns, &reason.to_string());
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// The process and the track of the only vCPU: any two numbers.
const PROCESS: u32 = 1;
const TRACK: u32 = 1;

/// The most spans that may be open at once; those further inside are not drawn.
const MAX_OPEN: u64 = 64;

/// The events, as they are written.
struct Picture {
    handlers: Handlers,
    sink: Box<dyn Write + Send>,
    limit: u64,
    written: u64,
    /// An event as text; kept, so that it is allocated once.
    text: String,
    /// Spans that the guest has begun and not ended.
    open: u64,
    /// Those of them that are drawn: the outermost.
    drawn: u64,
    /// When the last exit was answered.
    end_ns: u64,
    /// Exits that were not drawn.
    left_out: u64,
    /// The first failure; nothing is written behind it.
    failure: Option<io::Error>,
}

impl Picture {
    fn new(handlers: Handlers, sink: Box<dyn Write + Send>) -> Self {
        let mut own = Self {
            handlers,
            sink,
            limit: Timeline::LIMIT,
            written: 0,
            text: String::new(),
            open: 0,
            drawn: 0,
            end_ns: 0,
            left_out: 0,
            failure: None,
        };
        own.text.push('[');
        own.name("process_name", "guest");
        own.text.push(',');
        own.name("thread_name", "vCPU 0");
        own.write();
        own
    }

    /// Names the process or the track.
    fn name(&mut self, what: &str, name: &str) {
        let _ = write!(
            self.text,
            "\n{}",
            json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": TRACK, "args": { "name": name } })
        );
    }

    /// Draws an exit: the guest's span before it, the host's behind it, and a mark's edge between two spans.
    fn add(&mut self, closed: &Closed<'_>, mark: Option<Mark>) {
        let entry = closed.entry;
        self.end_ns = entry.end_ns();
        let is_full = self.is_full();
        self.left_out += u64::from(is_full);
        if !is_full {
            self.event("guest", "X", entry.entered_ns, format_args!(r#","dur":{}"#, micros(entry.guest_ns)));
        }
        if mark == Some(Mark::End) {
            self.end_span(entry.left_ns());
        }
        if !is_full {
            let site = &entry.site;
            let host = what(site.kind, &site.target.to_string(), self.handlers.name(site.target));
            let (duration, number, bytes) = (micros(entry.host_ns), entry.number, entry.bytes);
            let rest = format_args!(r#","dur":{duration},"args":{{"exit":{number},"bytes":{bytes}}}"#);
            self.event(&format!("host: {host}"), "X", entry.left_ns(), rest);
        }
        if let Some(Mark::Begin(name)) = mark {
            self.begin_span(&name);
        }
    }

    fn is_full(&self) -> bool {
        self.written >= self.limit
    }

    /// Begins a span inside all others. Inside one that is not drawn none is.
    fn begin_span(&mut self, name: &str) {
        if self.open == self.drawn && self.drawn < MAX_OPEN && !self.is_full() {
            self.drawn += 1;
            self.event(name, "B", self.end_ns, format_args!(""));
        }
        self.open += 1;
    }

    /// Ends the innermost span, if there is one.
    fn end_span(&mut self, at_ns: u64) {
        if self.open > 0 && self.open == self.drawn {
            self.drawn -= 1;
            self.event("", "E", at_ns, format_args!(""));
        }
        self.open = self.open.saturating_sub(1);
    }

    /// Something that happened at one moment.
    fn point(&mut self, at_ns: u64, name: &str) {
        if !self.is_full() {
            self.event(name, "i", at_ns, format_args!(r#","s":"t""#));
        }
    }

    fn event(&mut self, name: &str, phase: &str, at_ns: u64, rest: fmt::Arguments<'_>) {
        let (name, time) = (Value::from(name), micros(at_ns));
        // Writing to a `String` never fails.
        let _ = write!(
            self.text,
            ",\n{{\"name\":{name},\"ph\":\"{phase}\",\"ts\":{time},\"pid\":{PROCESS},\"tid\":{TRACK}{rest}}}"
        );
        self.write();
    }

    fn write(&mut self) {
        self.written += self.text.len() as u64;
        if self.failure.is_none() {
            self.failure = self.sink.write_all(self.text.as_bytes()).err();
        }
        self.text.clear();
    }

    fn finish(&mut self) -> io::Result<()> {
        self.open = self.drawn;
        while self.open > 0 {
            self.end_span(self.end_ns);
        }
        if self.left_out > 0 {
            let text = format!("the timeline is full: {} exits are not drawn", self.left_out);
            self.event(&text, "i", self.end_ns, format_args!(r#","s":"t""#));
        }
        self.text.push_str("\n]\n");
        self.write();
        match self.failure.take() {
            Some(failure) => Err(failure),
            None => self.sink.flush(),
        }
    }
}

/// The format's unit, with nanoseconds behind the point.
fn micros(ns: u64) -> f64 {
    ns as f64 / 1000.0
}
