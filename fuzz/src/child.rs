//! The child: the process that hunts. A target may take it down in ways that no code survives: a stack that overflows, an
//! endless loop, all memory. So the parent holds the file in which the child writes every input before it runs it.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{process, thread};

use anyhow::{Context, Result};

use crate::engine::{Engine, Failure, keep_panics_silent};
use crate::targets::Target;
use crate::{corpus, edges};

/// How a child ends that has found a panic; the input and what was said are in files.
pub const PANICKED: i32 = 11;
/// How a child ends whose target does not.
pub const HUNG: i32 = 12;

/// No input of a few KiB needs as much memory.
const MAX_MEMORY: u64 = 2 << 30;

/// What a child does.
#[derive(Debug)]
pub struct Hunt<'a> {
    /// The target.
    pub target: &'a Target,
    /// For how long.
    pub time: Duration,
    /// A run that takes this long does not end.
    pub hang: Duration,
    /// Of the random numbers.
    pub seed: u64,
    /// Folders of inputs to start from.
    pub corpora: Vec<PathBuf>,
    /// Where inputs are put that reach something new.
    pub kept: PathBuf,
    /// The file of the input that runs.
    pub current: PathBuf,
}

impl Hunt<'_> {
    /// Hunts, and ends the process.
    ///
    /// # Errors
    /// When files cannot be read or written.
    pub fn run(&self) -> Result<()> {
        limit_memory()?;
        keep_panics_silent();
        let current = Current::open(&self.current)?;
        let beat = Watchdog::start(self.hang);
        let mut engine = Engine::new(self.target, self.seed, |input: &[u8]| {
            beat.run_starts();
            current.hold(input);
        });
        let start = Instant::now();
        if let Err(failure) = self.hunt(&mut engine, start) {
            self.save(&engine.smaller(&failure))?;
            process::exit(PANICKED);
        }
        self.conclude(&engine, start)
    }

    fn hunt(&self, engine: &mut Engine<'_>, start: Instant) -> Result<(), Failure> {
        for seed in (self.target.seeds)() {
            engine.try_input(&seed)?;
        }
        for folder in &self.corpora {
            // A folder that cannot be read has no inputs; the parent has looked at the one that matters.
            for (_, input) in corpus::read(folder).unwrap_or_default() {
                engine.try_input(&input)?;
            }
        }
        engine.hunt(|_| start.elapsed() >= self.time)
    }

    fn save(&self, failure: &Failure) -> Result<()> {
        Current::open(&self.current)?.hold(&failure.input);
        std::fs::write(message_file(&self.current), &failure.message).context("cannot write the message")
    }

    fn conclude(&self, engine: &Engine<'_>, start: Instant) -> Result<()> {
        let progress = engine.progress();
        let known: usize = (self.target.seeds)().len()
            + self
                .corpora
                .iter()
                .map(|folder| corpus::read(folder).map_or(0, |files| files.len()))
                .sum::<usize>();
        let rate = progress.executions as f64 / start.elapsed().as_secs_f64();
        let edges = if edges::are_counted() {
            format!("{} edges, {} inputs", progress.edges, progress.pool)
        } else {
            "edges are not counted".to_owned()
        };
        println!(
            "{:12} {:9} runs, {rate:8.0} a second, {edges} (from {known}), slowest {:.1?}",
            self.target.name, progress.executions, progress.slowest
        );
        for input in corpus::distilled(self.target, engine.pool().to_vec()) {
            corpus::write(&self.kept, &input)?;
        }
        Ok(())
    }
}

/// Where a child writes what a panic said.
#[must_use]
pub fn message_file(current: &Path) -> PathBuf {
    current.with_extension("message")
}

/// The file with the input that runs: its size, then its bytes, in one write.
struct Current(File);

impl Current {
    fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).write(true).truncate(false).open(path);
        Ok(Self(file.with_context(|| format!("cannot write {}", path.display()))?))
    }

    fn hold(&self, input: &[u8]) {
        let size = (input.len() as u64).to_le_bytes();
        // A disk that is full fails the parent, which finds no input.
        let _ = self.0.write_all_at(&[&size, input].concat(), 0);
    }
}

/// The input that ran last.
///
/// # Errors
/// When there is none.
pub fn current(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let (size, input) = bytes.split_first_chunk::<8>().context("no input was written")?;
    let size = u64::from_le_bytes(*size) as usize;
    Ok(input.get(..size).context("the input was not written whole")?.to_vec())
}

/// A thread that ends the process when a run does not end.
struct Watchdog {
    started: Instant,
    /// Milliseconds from `started` to the last run's start.
    run: Arc<AtomicU64>,
}

impl Watchdog {
    fn start(hang: Duration) -> Self {
        let (started, run) = (Instant::now(), Arc::new(AtomicU64::new(0)));
        let last = Arc::clone(&run);
        thread::spawn(move || {
            loop {
                thread::sleep(hang / 20);
                let last = Duration::from_millis(last.load(Ordering::Relaxed));
                if started.elapsed().saturating_sub(last) > hang {
                    process::exit(HUNG);
                }
            }
        });
        Self { started, run }
    }

    fn run_starts(&self) {
        self.run.store(self.started.elapsed().as_millis() as u64, Ordering::Relaxed);
    }
}

/// Lets the process die of an input that takes all memory, and not the computer.
fn limit_memory() -> Result<()> {
    let limit = libc::rlimit { rlim_cur: MAX_MEMORY, rlim_max: MAX_MEMORY };
    // SAFETY: setrlimit reads the structure and keeps no pointer.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_AS, &limit) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()).context("cannot limit memory") }
}

/// Runs the target on one input, as a hunt does.
///
/// # Errors
/// When memory cannot be limited.
pub fn run_file(target: &Target, input: &[u8], hang: Duration) -> Result<()> {
    limit_memory()?;
    let watchdog = Watchdog::start(hang);
    watchdog.run_starts();
    (target.run)(input);
    Ok(())
}
