//! Ways to watch a run, as they can be typed.

use std::path::PathBuf;

use clap::Args;
use vmm::observe::Filter;

/// Who watches the exits of a run.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Watching")]
pub(crate) struct Watch {
    /// Show every exit on stderr, or those that fit one of these words, with commas between them: a kind (`pio`, `mmio`,
    /// `pio-out`, `hypercall`, `halt`, …), `port=0xe9`, `gpa=0xc0000000`, or a part of a handler's, function's or file's
    /// name.
    #[arg(long, value_name = "FILTER", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub(crate) trace: Option<Filter>,

    /// Write the trace to a file instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace_file: Option<PathBuf>,

    /// Show at the end, on stderr, how many exits each kind and each line of the guest took, and how long.
    #[arg(long)]
    pub(crate) stats: bool,

    /// Write the same as JSON; `-` is stdout, behind all that the guest has printed.
    #[arg(long, value_name = "FILE")]
    pub(crate) stats_json: Option<PathBuf>,

    /// Draw the run for <https://ui.perfetto.dev>: times in the guest and in the host, log records, and the spans that
    /// the guest marks. At most 256M; what does not fit is left out.
    #[arg(long, value_name = "FILE")]
    pub(crate) timeline: Option<PathBuf>,

    /// Write a page about the run, one HTML file: memory to scale, page tables, exits, timeline, registers, and what
    /// `vmm explain` answers.
    #[arg(long, value_name = "FILE")]
    pub(crate) report: Option<PathBuf>,
}

impl Watch {
    /// Whether nobody watches.
    pub(crate) fn is_idle(&self) -> bool {
        let Self { trace, trace_file, stats, stats_json, timeline, report } = self;
        let files = [trace_file, stats_json, timeline, report];
        trace.is_none() && !stats && files.iter().all(|file| file.is_none())
    }
}
