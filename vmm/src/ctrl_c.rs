//! Ctrl-C, SIGTERM and SIGHUP: the first asks the guest to stop, the second ends the process at once.

use std::io;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use vmm::next::process;
use vmm::{Error, Result, StopHandle, StopRequest};
use vmm_sys_util::signal::register_signal_handler;

/// Whether one of the signals has come.
static ASKED: AtomicBool = AtomicBool::new(false);

static MACHINE: OnceLock<StopHandle> = OnceLock::new();

/// From now on these signals stop the machine of `handle`.
pub(crate) fn stop_on_signal(handle: StopHandle) -> Result<()> {
    if MACHINE.set(handle).is_err() {
        return Ok(());
    }
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        register_signal_handler(signal, on_signal).map_err(|error| Error::Stop {
            action: "install the handler of Ctrl-C",
            source: io::Error::from_raw_os_error(error.errno()),
        })?;
    }
    Ok(())
}

extern "C" fn on_signal(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {
    if let Some(machine) = MACHINE.get() {
        if ASKED.swap(true, Ordering::SeqCst) {
            // SAFETY: `_exit` is made for signal handlers; nothing of ours must be saved.
            unsafe { libc::_exit(process::INTERRUPTED.into()) };
        }
        machine.stop(StopRequest::Interrupt);
    }
}
