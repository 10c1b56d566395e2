//! `Progress`: how far a measurement is, for whoever waits at a terminal; one line of stderr that is written again and again.

use std::io::{IsTerminal, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// At most so many times a second: whoever measures has better things to do.
const PAUSE: Duration = Duration::from_millis(50);

/// The characters of the bar.
const BAR: usize = 24;

/// The line.
#[derive(Debug)]
pub(super) struct Progress {
    is_shown: bool,
    last: Mutex<Option<Instant>>,
}

impl Progress {
    /// A line that is shown where stderr is a terminal.
    pub(super) fn new() -> Self {
        Self { is_shown: std::io::stderr().is_terminal(), last: Mutex::new(None) }
    }

    /// Shows that `done` of `of` rounds of `name` are done.
    pub(super) fn show(&self, name: &str, done: u32, of: u32) {
        if self.is_due() {
            write(&format!("\r{}\x1b[K", line(name, done, of)));
        }
    }

    /// Shows what happens now, where nobody knows how long it takes.
    pub(super) fn say(&self, what: &str) {
        if self.is_shown {
            write(&format!("\r{what} …\x1b[K"));
        }
    }

    /// Makes room for what comes next.
    pub(super) fn end(&self) {
        clear();
    }

    fn is_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let is_due = self.is_shown && last.is_none_or(|last| last.elapsed() >= PAUSE);
        if is_due {
            *last = Some(Instant::now());
        }
        is_due
    }
}

/// Shorter than a terminal, which would break it into two that stay.
fn line(name: &str, done: u32, of: u32) -> String {
    let filled = (u64::from(done) * BAR as u64 / u64::from(of.max(1))).min(BAR as u64) as usize;
    let bar = "█".repeat(filled) + &"░".repeat(BAR - filled);
    format!("{name:32.32} {bar} {done} of {of}")
}

/// Leaves a clean line behind, where there was one.
pub(super) fn clear() {
    if std::io::stderr().is_terminal() {
        write("\r\x1b[K");
    }
}

fn write(text: &str) {
    let mut stderr = std::io::stderr();
    let _ = stderr.write_all(text.as_bytes());
    let _ = stderr.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_is_full_when_all_is_done_and_never_longer() {
        assert!(line("start", 0, 300).contains(&format!("start{:27} {} 0 of 300", "", "░".repeat(BAR))));
        assert_eq!(line("start", 300, 300).matches('█').count(), BAR);
        assert_eq!(line("start", 9, 3).matches('█').count(), BAR);
        assert!(line(&"long".repeat(30), 1, 0).chars().count() < 80);
    }
}
