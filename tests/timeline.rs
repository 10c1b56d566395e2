//! Timelines: a run as a picture that viewers can open.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;
use vmm::observe::{ExitCounts, Stats, Timeline, Trace};
use vmm::{Console, Vm};

use crate::harness::{Boot, guest, patiently, probe, send, vmm_binary};

/// Bytes that are looked at when all is over.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The picture of a run, and how many exits it had.
fn drawn(mut boot: Boot, limit: u64) -> (Picture, u64) {
    boot.config.console = Console::capture().0;
    let mut vm = Vm::build(boot.config).expect("the machine can be built: is /dev/kvm there?");
    let bytes = Shared::default();
    let mut timeline = Timeline::new(&vm, bytes.clone()).with_limit(limit);
    let report = vm.run_observed(&mut timeline).expect("the host can do its work");
    timeline.finish().expect("memory takes all");
    let bytes = bytes.0.lock().expect("no panics").clone();
    (Picture::read(&bytes), report.exits.total())
}

/// A span: its name, start and end in nanoseconds.
type Span = (String, u64, u64);

/// What a viewer would show.
#[derive(Debug, Default)]
struct Picture {
    spans: Vec<Span>,
    points: Vec<String>,
    names: Vec<String>,
    size: usize,
}

impl Picture {
    fn read(bytes: &[u8]) -> Self {
        let events: Vec<Value> = serde_json::from_slice(bytes).expect("a whole array of events");
        let mut own = Self { size: bytes.len(), ..Self::default() };
        let mut open = Vec::new();
        for event in &events {
            let text = |key: &str| event[key].as_str().unwrap_or_default().to_owned();
            let ns = |key: &str| (event[key].as_f64().expect("a number") * 1000.0).round() as u64;
            assert!(event["pid"] == 1 && event["tid"] == 1, "one vCPU is one track: {event}");
            match text("ph").as_str() {
                "M" => own.names.push(event["args"]["name"].as_str().expect("a name").to_owned()),
                "X" => own.spans.push((text("name"), ns("ts"), ns("ts") + ns("dur"))),
                "B" => open.push((text("name"), ns("ts"))),
                "E" => {
                    let (name, start) = open.pop().expect("an end has a beginning");
                    own.spans.push((name, start, ns("ts")));
                }
                "i" => own.points.push(text("name")),
                other => panic!("an event of phase {other}"),
            }
        }
        assert!(open.is_empty(), "every span ends: {open:?}");
        own
    }

    /// Expects every two spans to lie one inside the other or apart.
    fn assert_nested(&self) {
        let mut spans: Vec<_> = self.spans.iter().collect();
        // Of those that start together the longest is outside.
        spans.sort_by_key(|(_, start, end)| (*start, std::cmp::Reverse(*end)));
        let mut outer: Vec<&Span> = Vec::new();
        for span in spans {
            outer.retain(|(.., end)| *end > span.1);
            let inside = outer.last().is_none_or(|(.., end)| span.2 <= *end);
            assert!(inside, "{span:?} overlaps {:?}", outer.last());
        }
    }

    fn count(&self, start_of_name: &str) -> u64 {
        self.spans.iter().filter(|(name, ..)| name.starts_with(start_of_name)).count() as u64
    }

    fn span(&self, name: &str) -> &Span {
        self.spans.iter().find(|(own, ..)| own == name).unwrap_or_else(|| panic!("no span {name}: {self:?}"))
    }
}

#[test]
fn spans_of_guest_host_and_program_nest_and_records_are_points() {
    let (picture, exits) = drawn(probe("marks"), u64::MAX);

    picture.assert_nested();
    assert_eq!(picture.names, ["guest", "vCPU 0"]);
    assert_eq!((picture.count("guest"), picture.count("host: ")), (exits, exits));
    assert_eq!(picture.count("host: ConsoleWrite"), 2);
    let (outer, inner) = (picture.span("outer"), picture.span("inner \"quoted\""));
    assert!(outer.1 < inner.1 && inner.2 < outer.2, "{outer:?} {inner:?}");
    picture.span("by hand");
    assert_eq!(picture.points[0], "INFO probe: inside both");
    assert_eq!(picture.points[1], "the guest ended with exit code 0");
}

#[test]
fn however_a_guest_ends_its_timeline_is_whole() {
    for (deed, end) in [
        ("read-null", "page fault"),
        ("without-idt read-null", "triple fault"),
        ("panic", "panicked"),
        ("unclaimed-port-out", "0x1234"),
        ("print-and-spin", "time limit"),
        ("hostile 100 3", "the guest "),
    ] {
        let mut boot = probe(deed);
        if deed == "print-and-spin" {
            boot.config.timeout = Some(patiently(Duration::from_secs(1)));
        }
        let (picture, exits) = drawn(boot, u64::MAX);
        picture.assert_nested();
        assert_eq!(picture.count("guest"), exits, "{deed}");
        assert!(picture.points.last().is_some_and(|last| last.contains(end)), "{deed}: {:?}", picture.points);
    }
}

#[test]
fn spans_that_never_end_or_never_began_do_no_harm() {
    let (open, exits) = drawn(probe("open-marks 500"), u64::MAX);
    open.assert_nested();
    assert_eq!((open.count("guest"), open.count("never ended")), (exits, 64), "the outermost are drawn");

    let (unbegun, exits) = drawn(probe("unbegun-marks 500"), u64::MAX);
    assert_eq!(unbegun.count(""), 2 * exits, "only guest and host");
}

#[test]
fn a_full_timeline_says_what_it_left_out() {
    let limit = 4000;
    let (picture, exits) = drawn(probe("open-marks 500"), limit);

    picture.assert_nested();
    let drawn = picture.count("guest");
    assert!(drawn > 0 && drawn < exits, "{drawn} of {exits}");
    let note = format!("{} exits are not drawn", exits - drawn);
    assert!(picture.points.last().is_some_and(|last| last.contains(&note)), "{:?}", picture.points);
    assert!(picture.size as u64 <= limit + 70 * 80, "{}", picture.size);
}

#[test]
fn ctrl_c_leaves_a_whole_timeline() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let mut vmm = Command::new(vmm_binary())
        .args(["run", "--timeout", "60s", "--timeline"])
        .arg(file.path())
        .arg(guest("probe"))
        .args(["--", "flood"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the VMM starts");
    sleep(patiently(Duration::from_millis(700)));
    send(&vmm, libc::SIGINT);
    let code = vmm.wait().expect("it ends").code();

    let picture = Picture::read(&fs::read(file.path()).expect("written"));
    picture.assert_nested();
    assert_eq!(code, Some(130));
    assert!(picture.points.last().is_some_and(|last| last.contains("interrupted")), "{:?}", picture.points);
}

#[test]
fn several_watch_one_run_and_agree() {
    let mut boot = probe("count-exits");
    boot.config.console = Console::capture().0;
    let mut vm = Vm::build(boot.config).expect("the machine can be built");
    let bytes = Shared::default();
    let timeline = Timeline::new(&vm, bytes.clone());
    let mut observers = (ExitCounts::default(), (Some(Stats::new(&vm)), (None::<Trace>, Some(timeline))));

    let report = vm.run_observed(&mut observers).expect("the host can do its work");

    let (counts, (stats, (_, timeline))) = observers;
    timeline.map_or(Ok(()), Timeline::finish).expect("memory takes all");
    let summary = stats.expect("it was there").summary(&vm.symbols());
    let picture = Picture::read(&bytes.0.lock().expect("no panics"));
    assert_eq!((counts, summary.counts), (report.exits, report.exits));
    assert_eq!((summary.total.exits, picture.count("guest")), (counts.total(), counts.total()));
}
