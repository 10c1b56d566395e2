//! Presses interrupt lines while a guest runs: the user's button, and the host's clock.

use std::io::{self, BufRead};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use shared_abi::interrupts::{BUTTON, TICK};
use vmm::{Error, IrqLine, Vm};

use crate::cli::Press;
use crate::say::say;

/// While it lives, lines are pressed.
pub(super) struct Pressing {
    /// Its thread ends with it.
    _tick: Option<Sender<()>>,
}

impl Pressing {
    /// Presses what was typed, from now on.
    ///
    /// # Errors
    /// [`Error::NoIrqLine`], [`Error::Stop`].
    pub(super) fn start(press: &Press, vm: &Vm) -> vmm::Result<Self> {
        if press.button {
            let line = vm.irq_line(BUTTON)?;
            spawn("button", move || press_by_line(io::stdin().lock(), &line))?;
        }
        let tick = press.tick.map(|period| tick(period, vm.irq_line(TICK)?)).transpose()?;
        Ok(Self { _tick: tick })
    }
}

/// Presses with every line of `input`. Nothing waits for the thread: it may wait for ever.
fn press_by_line(input: impl BufRead, line: &IrqLine) {
    for typed in input.lines() {
        if let Err(error) = typed.map_err(Error::Console).and_then(|_| line.press()) {
            say!("vmm: the button does not work any more: {}", super::chain(&error));
            return;
        }
    }
}

/// Presses after every `period`, by the clock: delays do not add up. What was missed is not made up for.
fn tick(period: Duration, line: IrqLine) -> vmm::Result<Sender<()>> {
    let (end, ended) = channel();
    spawn("tick", move || {
        let mut next = Instant::now() + period;
        while ended.recv_timeout(next.saturating_duration_since(Instant::now()))
            == Err(RecvTimeoutError::Timeout)
        {
            if let Err(error) = line.press() {
                say!("vmm: the tick does not work any more: {}", super::chain(&error));
                return;
            }
            next = (next + period).max(Instant::now());
        }
    })?;
    Ok(end)
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> vmm::Result<()> {
    let spawned = thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned
        .map(drop)
        .map_err(|source| Error::Stop { action: "start a thread that presses an interrupt line", source })
}
