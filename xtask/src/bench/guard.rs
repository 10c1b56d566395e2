//! `Guarded`: a program that is being measured and does not outlive its time limit, or us.
//!
//! It has a process group of its own, so that all of it can be ended; but the terminal does not tell such a group of
//! Ctrl-C, so we do.

use std::process::{Child, exit};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::progress;

/// Far more than a guest of a line takes.
const TIME_LIMIT: Duration = Duration::from_secs(60);

/// The exit code after Ctrl-C: the same number as the VMM's.
const INTERRUPTED: i32 = 130;

/// Those that run now.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

struct Running {
    group: libc::pid_t,
    end: Instant,
    is_late: bool,
}

/// A program that runs.
pub(super) struct Guarded {
    group: libc::pid_t,
}

impl Guarded {
    /// Begins to watch it. It leads a process group.
    ///
    /// # Errors
    /// When its number is none of a process.
    pub(super) fn new(child: &Child) -> Result<Self> {
        static WATCH: Once = Once::new();
        WATCH.call_once(|| drop(thread::spawn(watch)));
        let group = libc::pid_t::try_from(child.id())?;
        running().push(Running { group, end: Instant::now() + TIME_LIMIT, is_late: false });
        Ok(Self { group })
    }

    /// It has ended.
    ///
    /// # Errors
    /// When it did so because of its time limit.
    pub(super) fn release(self) -> Result<()> {
        let mut running = running();
        let is_late = running.iter().any(|running| running.group == self.group && running.is_late);
        running.retain(|running| running.group != self.group);
        if is_late {
            bail!("it took longer than {TIME_LIMIT:?}");
        }
        Ok(())
    }
}

fn running() -> MutexGuard<'static, Vec<Running>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends those that are late.
fn watch() {
    loop {
        thread::sleep(Duration::from_millis(200));
        for running in running().iter_mut().filter(|running| running.end < Instant::now()) {
            running.is_late = true;
            kill(running.group);
        }
    }
}

/// From now on Ctrl-C ends what runs, and then us, on a clean line.
///
/// # Errors
/// When the system has no room for a handler.
pub(super) fn heed_ctrl_c() -> Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM])?;
    thread::spawn(move || {
        if signals.forever().next().is_some() {
            running().iter().for_each(|running| kill(running.group));
            progress::clear();
            exit(INTERRUPTED);
        }
    });
    Ok(())
}

/// Ends all of it.
pub(super) fn kill(group: libc::pid_t) {
    // SAFETY: The call reads no memory. The group is that of a child whose end was not yet told, or just was.
    unsafe { libc::kill(-group, libc::SIGKILL) };
}
