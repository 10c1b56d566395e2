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

use crate::cpus::{VcpuCount, VcpuId};
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
    /// Whose turn it is.
    vcpu: VcpuId,
    /// What each vCPU's call has marked that is being answered.
    marks: Vec<Option<Mark>>,
    picture: Picture,
}

impl Timeline {
    /// The most bytes of a timeline, unless another limit is set: more than viewers like.
    pub const LIMIT: u64 = 256 << 20;

    /// A timeline to `sink`, which should have a buffer.
    #[must_use]
    pub fn new(vm: &Vm, sink: impl Write + Send + 'static) -> Self {
        let meter = Meter::new(vm, false);
        let picture = Picture::new(vm.handlers(), vm.vcpu_count(), Box::new(sink));
        let marks = vec![None; vm.vcpu_count().get().into()];
        Self { meter, counts: ExitCounts::default(), vcpu: VcpuId::FIRST, marks, picture }
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
        self.vcpu = vcpu;
    }

    fn on_entry(&mut self) {
        if let Some(closed) = self.meter.enter() {
            let mark = self.marks.get_mut(self.vcpu.index()).and_then(Option::take);
            self.picture.add(&closed, mark);
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
        self.picture.point(self.vcpu, now, &record.to_string());
    }

    fn on_mark(&mut self, mark: &Mark) {
        if let Some(own) = self.marks.get_mut(self.vcpu.index()) {
            *own = Some(mark.clone());
        }
    }

    fn on_answer(&mut self, next: &Next) {
        if let Some(closed) = self.meter.answer(next) {
            let mark = self.marks.get_mut(self.vcpu.index()).and_then(Option::take);
            self.picture.add(&closed, mark);
        }
        if let Next::Stop(reason) = next {
            let end_ns = self.picture.track(self.vcpu).end_ns;
            self.picture.point(self.vcpu, end_ns, &reason.to_string());
        }
    }

    fn counts(&self) -> &ExitCounts {
        &self.counts
    }
}

/// The process: any number.
const PROCESS: u32 = 1;

/// The number of a vCPU's track, which some viewers want not to be 0.
fn track_number(vcpu: VcpuId) -> u32 {
    u32::from(vcpu.number()) + 1
}

/// The most spans that may be open at once on a track; those further inside are not drawn.
const MAX_OPEN: u64 = 64;

/// The track of a vCPU.
#[derive(Clone, Copy, Debug, Default)]
struct Track {
    /// Spans that the guest has begun and not ended.
    open: u64,
    /// Those of them that are drawn: the outermost.
    drawn: u64,
    /// When the last exit was answered.
    end_ns: u64,
}

/// The events, as they are written.
struct Picture {
    handlers: Handlers,
    sink: Box<dyn Write + Send>,
    limit: u64,
    written: u64,
    /// An event as text; kept, so that it is allocated once.
    text: String,
    /// One for each vCPU.
    tracks: Vec<Track>,
    /// Exits that were not drawn.
    left_out: u64,
    /// The first failure; nothing is written behind it.
    failure: Option<io::Error>,
}

impl Picture {
    fn new(handlers: Handlers, vcpus: VcpuCount, sink: Box<dyn Write + Send>) -> Self {
        let mut own = Self {
            handlers,
            sink,
            limit: Timeline::LIMIT,
            written: 0,
            text: String::new(),
            tracks: vec![Track::default(); vcpus.get().into()],
            left_out: 0,
            failure: None,
        };
        own.text.push('[');
        own.name("process_name", VcpuId::FIRST, "guest");
        for vcpu in vcpus.ids() {
            own.text.push(',');
            own.name("thread_name", vcpu, &vcpu.to_string());
        }
        own.write();
        own
    }

    /// Names the process or a track.
    fn name(&mut self, what: &str, vcpu: VcpuId, name: &str) {
        let track = track_number(vcpu);
        let _ = write!(
            self.text,
            "\n{}",
            json!({ "name": what, "ph": "M", "pid": PROCESS, "tid": track, "args": { "name": name } })
        );
    }

    fn track(&mut self, vcpu: VcpuId) -> &mut Track {
        self.tracks.get_mut(vcpu.index()).expect("every vCPU of the machine has its track")
    }

    /// Draws an exit: the guest's span before it, the host's behind it, and a mark's edge between two spans.
    fn add(&mut self, closed: &Closed<'_>, mark: Option<Mark>) {
        let entry = closed.entry;
        let vcpu = entry.vcpu;
        self.track(vcpu).end_ns = entry.end_ns();
        let is_full = self.is_full();
        self.left_out += u64::from(is_full);
        if !is_full {
            self.event(
                vcpu,
                "guest",
                "X",
                entry.entered_ns,
                format_args!(r#","dur":{}"#, micros(entry.guest_ns)),
            );
        }
        if mark == Some(Mark::End) {
            self.end_span(vcpu, entry.left_ns());
        }
        if !is_full {
            let site = &entry.site;
            let host = what(site.kind, &site.target.to_string(), self.handlers.name(site.target));
            let (duration, number, bytes) = (micros(entry.host_ns), entry.number, entry.bytes);
            let rest = format_args!(r#","dur":{duration},"args":{{"exit":{number},"bytes":{bytes}}}"#);
            self.event(vcpu, &format!("host: {host}"), "X", entry.left_ns(), rest);
        }
        if let Some(Mark::Begin(name)) = mark {
            self.begin_span(vcpu, &name);
        }
    }

    fn is_full(&self) -> bool {
        self.written >= self.limit
    }

    /// Begins a span inside all others. Inside one that is not drawn none is.
    fn begin_span(&mut self, vcpu: VcpuId, name: &str) {
        let is_full = self.is_full();
        let track = self.track(vcpu);
        let is_drawn = track.open == track.drawn && track.drawn < MAX_OPEN && !is_full;
        track.open += 1;
        if is_drawn {
            track.drawn += 1;
            let at_ns = track.end_ns;
            self.event(vcpu, name, "B", at_ns, format_args!(""));
        }
    }

    /// Ends the innermost span, if there is one.
    fn end_span(&mut self, vcpu: VcpuId, at_ns: u64) {
        let track = self.track(vcpu);
        let is_drawn = track.open > 0 && track.open == track.drawn;
        track.open = track.open.saturating_sub(1);
        if is_drawn {
            track.drawn -= 1;
            self.event(vcpu, "", "E", at_ns, format_args!(""));
        }
    }

    /// Something that happened at one moment.
    fn point(&mut self, vcpu: VcpuId, at_ns: u64, name: &str) {
        if !self.is_full() {
            self.event(vcpu, name, "i", at_ns, format_args!(r#","s":"t""#));
        }
    }

    fn event(&mut self, vcpu: VcpuId, name: &str, phase: &str, at_ns: u64, rest: fmt::Arguments<'_>) {
        let (track, name, time) = (track_number(vcpu), Value::from(name), micros(at_ns));
        // Writing to a `String` never fails.
        let _ = write!(
            self.text,
            ",\n{{\"name\":{name},\"ph\":\"{phase}\",\"ts\":{time},\"pid\":{PROCESS},\"tid\":{track}{rest}}}"
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
        let vcpus: Vec<_> = (0..).map_while(VcpuId::new).take(self.tracks.len()).collect();
        for vcpu in vcpus {
            let track = self.track(vcpu);
            track.open = track.drawn;
            let end_ns = track.end_ns;
            while self.track(vcpu).open > 0 {
                self.end_span(vcpu, end_ns);
            }
        }
        if self.left_out > 0 {
            let text = format!("the timeline is full: {} exits are not drawn", self.left_out);
            let end_ns = self.track(VcpuId::FIRST).end_ns;
            self.event(VcpuId::FIRST, &text, "i", end_ns, format_args!(r#","s":"t""#));
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
