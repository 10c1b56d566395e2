//! A run that is watched: trace, stats, timeline, report.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;

use vmm::observe::{ExitCounts, Observer, Stats, Summary, Timeline, Trace};
use vmm::report::{HtmlReport, Recording};
use vmm::{Error, Result, RunReport, Vm, explain};

use crate::cli::Watch;

/// Runs `vm` with those watching that were asked for. What they have seen is told even when the host fails.
pub(super) fn run(vm: &mut Vm, watch: &Watch) -> Result<RunReport> {
    let trace = start_trace(vm, watch)?;
    let wants_stats = watch.stats || watch.stats_json.is_some();
    let stats = wants_stats.then(|| Stats::new(vm));
    let timeline = watch.timeline.as_deref().map(|path| create("timeline", path)).transpose()?;
    let timeline = timeline.map(|file| Timeline::to_file(vm, file));

    let page = watch.report.as_deref().map(|path| create("report", path)).transpose()?;

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
    let told = summary.map_or(Ok(()), |summary| tell(&summary, watch));
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

fn start_trace(vm: &Vm, watch: &Watch) -> Result<Option<Trace>> {
    let filter = watch.trace.clone().unwrap_or_default();
    if let Some(path) = &watch.trace_file {
        return Ok(Some(Trace::to_file(vm, filter, create("trace", path)?)));
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

fn tell(summary: &Summary, watch: &Watch) -> Result<()> {
    if let Some(path) = &watch.stats_json {
        let mut json = serde_json::to_vec_pretty(summary).expect("numbers and strings are JSON");
        json.push(b'\n');
        let is_stdout = path.as_os_str() == "-";
        let written = if is_stdout { io::stdout().write_all(&json) } else { fs::write(path, &json) };
        written.map_err(cannot_write("stats", path))?;
    }
    if watch.stats {
        let text = format!("\n{summary}");
        io::stderr().write_all(text.as_bytes()).map_err(cannot_write("stats", Path::new("stderr")))?;
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
