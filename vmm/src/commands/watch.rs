//! A run that is watched: trace, stats, timeline, report.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use vmm::observe::{ExitCounts, Observer, Stats, Summary, Timeline, Trace};
use vmm::report::{HtmlReport, Recording};
use vmm::{Error, Result, RunReport, Vm, explain};

use crate::cli::Watch;
use crate::say::say;

/// The files that get what was seen. They are opened before the guest runs, and before Ctrl-C is its: a path that cannot
/// be written is known at once, and a pipe that nobody reads can be left.
pub(super) struct Outputs {
    trace: Option<File>,
    stats: Option<File>,
    timeline: Option<File>,
    report: Option<File>,
}

impl Outputs {
    /// Opens them.
    pub(super) fn open(vm: &Vm, watch: &Watch) -> Result<Self> {
        let mut taken = vec![vm.image().path().to_owned()];
        let mut open = |what, path: &Option<PathBuf>| {
            let Some(path) = path else { return Ok(None) };
            let refused = |why: &str| Err(cannot_write(what, path)(io::Error::other(why.to_owned())));
            if path.as_os_str() == "-" {
                return refused("only --stats-json writes to stdout; `./-` is a file of that name");
            }
            if taken.iter().any(|other| is_same_file(path, other)) {
                return refused("that is the kernel, or gets something else already");
            }
            taken.push(path.clone());
            create(what, path).map(Some)
        };
        let stats = watch.stats_json.clone().filter(|path| path.as_os_str() != "-");
        Ok(Self {
            trace: open("trace", &watch.trace_file)?,
            stats: open("stats", &stats)?,
            timeline: open("timeline", &watch.timeline)?,
            report: open("report", &watch.report)?,
        })
    }
}

/// Whether both paths lead to one file that is there; devices such as /dev/null take anything.
fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        fs::metadata(path).ok().filter(|data| data.is_file()).map(|data| (data.dev(), data.ino()))
    };
    identity(one).is_some_and(|own| identity(other) == Some(own))
}

/// Runs `vm` with those watching that were asked for. What they have seen is told even when the host fails.
pub(super) fn run(vm: &mut Vm, watch: &Watch, outputs: Outputs) -> Result<RunReport> {
    let Outputs { trace, stats: mut stats_file, timeline, report: page } = outputs;
    let trace = start_trace(vm, watch, trace)?;
    let wants_stats = watch.stats || watch.stats_json.is_some();
    let stats = wants_stats.then(|| Stats::new(vm));
    let timeline = timeline.map(|file| Timeline::to_file(vm, file));

    let mut observers = (ExitCounts::default(), (stats, (trace, timeline)));
    let report = match page {
        Some(file) => run_recorded(vm, watch, &mut observers, file),
        None => vm.run_observed(&mut observers),
    };

    let (_, (stats, (trace, timeline))) = observers;
    let traced = trace.map_or(Ok(()), Trace::finish).map_err(cannot_write("trace", trace_path(watch)));
    let path = watch.timeline.as_deref().unwrap_or(Path::new("-"));
    let drawn = timeline.map_or(Ok(()), Timeline::finish).map_err(cannot_write("timeline", path));
    let summary = stats.map(|stats| stats.summary(&vm.symbols()));
    let told = summary.map_or(Ok(()), |summary| tell(&summary, watch, stats_file.as_mut()));
    let report = report?;
    traced.and(drawn).and(told).map(|()| report)
}

/// Runs `vm` and writes a page about it to `file`.
fn run_recorded(vm: &mut Vm, watch: &Watch, others: &mut impl Observer, mut file: File) -> Result<RunReport> {
    let mut recording = Recording::start(vm)?;
    let mut observers = (others, recording.observer());
    let (answers, report) = explain::run_with(vm, &mut observers)?;
    drop(observers);
    let page = HtmlReport::new(vm, recording, answers, report.clone())?;
    let path = watch.report.as_deref().unwrap_or(Path::new("-"));
    file.write_all(page.render().as_bytes()).map_err(cannot_write("report", path))?;
    Ok(report)
}

fn start_trace(vm: &Vm, watch: &Watch, file: Option<File>) -> Result<Option<Trace>> {
    let filter = watch.trace.clone().unwrap_or_default();
    if let Some(file) = file {
        return Ok(Some(Trace::to_file(vm, filter, file)));
    }
    if watch.trace.is_none() {
        return Ok(None);
    }
    let stderr = io::stderr().as_fd().try_clone_to_owned();
    let stderr = stderr.map_err(cannot_write("trace", trace_path(watch)))?;
    Ok(Some(Trace::to_terminal(vm, filter, File::from(stderr))))
}

fn trace_path(watch: &Watch) -> &Path {
    watch.trace_file.as_deref().unwrap_or(Path::new("stderr"))
}

fn tell(summary: &Summary, watch: &Watch, file: Option<&mut File>) -> Result<()> {
    if let Some(path) = &watch.stats_json {
        let mut json = serde_json::to_vec_pretty(summary).expect("numbers and strings are JSON");
        json.push(b'\n');
        let written = match file {
            Some(file) => file.write_all(&json),
            None => io::stdout().write_all(&json),
        };
        match written {
            // Nobody reads it any more, such as `head`.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            written => written.map_err(cannot_write("stats", path))?,
        }
    }
    if watch.stats {
        let text = format!("\n{summary}");
        say!("{}", text.trim_end_matches('\n'));
    }
    Ok(())
}

fn create(what: &'static str, path: &Path) -> Result<File> {
    File::create(path).map_err(cannot_write(what, path))
}

fn cannot_write(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Observed { what, path, source }
}
