//! Both ends of the link to the machine in QEMU: what is sent, and what Ctrl-C does.
//!
//! QEMU's stdin and stdout are the link. When this process ends in whatever way, QEMU's stdin ends, the first process
//! in the machine sees its port closed and switches the machine off: no QEMU is left behind.

use std::io;
use std::process::{Child, ChildStdin, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use second_kvm::Order;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// The way to the machine, for every thread.
#[derive(Clone, Debug)]
pub(crate) struct Link(Arc<Ends>);

#[derive(Debug)]
struct Ends {
    orders: Mutex<Option<ChildStdin>>,
    qemu: Mutex<Child>,
    /// Whether a signal is for the program inside.
    forwards_signals: AtomicBool,
    /// Whether a signal ends all this: then its thread has the last word.
    is_ending: AtomicBool,
}

impl Link {
    /// The link to a QEMU whose stdin is piped.
    pub(super) fn to(mut qemu: Child) -> Self {
        let orders = Mutex::new(qemu.stdin.take());
        Self(Arc::new(Ends {
            orders,
            qemu: Mutex::new(qemu),
            forwards_signals: AtomicBool::default(),
            is_ending: AtomicBool::default(),
        }))
    }

    pub(crate) fn send(&self, order: &Order) -> io::Result<()> {
        match lock(&self.0.orders).as_mut() {
            Some(orders) => order.send(orders),
            None => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    /// Says from when on, or until when, signals are for the program inside.
    pub(super) fn forward_signals(&self, forward: bool) {
        self.0.forwards_signals.store(forward, Ordering::Relaxed);
    }

    /// Ends the machine, in good order if it takes less than `patience`.
    pub(super) fn close(&self, patience: Duration) -> io::Result<ExitStatus> {
        while self.0.is_ending.load(Ordering::Relaxed) {
            thread::park();
        }
        drop(lock(&self.0.orders).take());
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Some(status) = lock(&self.0.qemu).try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(5));
        }
        self.kill()
    }

    fn kill(&self) -> io::Result<ExitStatus> {
        let mut qemu = lock(&self.0.qemu);
        // An error says that it has ended by itself.
        drop(qemu.kill());
        qemu.wait()
    }

    /// From now on Ctrl-C and SIGTERM are the program's inside: once, and a second one ends everything here.
    ///
    /// Where no program runs that should have them, the first one does. `clean_up` is called before.
    pub(super) fn listen_to_signals(&self, clean_up: impl Fn() + Send + 'static) -> Result<()> {
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot catch Ctrl-C")?;
        let link = self.clone();
        thread::spawn(move || {
            for signal in &mut signals {
                let forward = link.0.forwards_signals.swap(false, Ordering::Relaxed);
                if forward && link.send(&Order::Signal(signal)).is_ok() {
                    continue;
                }
                link.0.is_ending.store(true, Ordering::Relaxed);
                drop(link.kill());
                clean_up();
                std::process::exit(128 + signal);
            }
        });
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
