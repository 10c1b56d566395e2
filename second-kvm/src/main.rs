//! PID 1 of the emulated machine: makes it usable, runs what the host asks for, and switches it off.
//!
//! Linux starts this program as its only process, out of an initramfs that xtask has packed
//! (`xtask/src/qemu/initramfs.rs`). There is no shell and no other program but those that are to be run.

mod machine;
mod program;

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use second_kvm::{CONSENT, Event, Order, PORT};

use program::{Current, Reply};

fn main() -> ExitCode {
    let consent = std::env::args().skip(1).eq([CONSENT]);
    if std::process::id() != 1 || !consent {
        eprintln!(
            "second-kvm: this is the first process of `cargo xtask run --kvm qemu`, and of no other machine"
        );
        return ExitCode::FAILURE;
    }
    if let Err(error) = serve() {
        // The kernel's console: xtask shows it when the machine is gone before it was ready.
        eprintln!("second-kvm: {error}");
    }
    machine::switch_off()
}

/// Makes the machine ready and carries out orders until the host closes the port.
fn serve() -> io::Result<()> {
    machine::mount_all()?;
    machine::load_modules()?;
    if !fs::exists("/dev/kvm")? {
        return Err(io::Error::other("the modules are loaded, but there is no /dev/kvm"));
    }
    let port = open_port()?;
    let reply = Reply::new(port.try_clone()?);
    reply.send(&Event::Ready)?;
    carry_out_orders(port, &reply)
}

/// Opens the port to the host, which appears some moments after its driver.
fn open_port() -> io::Result<File> {
    const PATIENCE: u32 = 1000;
    for _ in 0..PATIENCE {
        if let Some(device) = find_port()? {
            return File::options().read(true).write(true).open(device);
        }
        thread::sleep(Duration::from_millis(10));
    }
    Err(io::Error::other(format!("there is no virtio port named {PORT}")))
}

fn find_port() -> io::Result<Option<PathBuf>> {
    // The folder comes with the driver.
    for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten() {
        let entry = entry?;
        let name = fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        let device = PathBuf::from("/dev").join(entry.file_name());
        if name.trim() == PORT && device.exists() {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

/// One program at a time; what concerns the one that runs goes to it, and to nobody when none does.
fn carry_out_orders(mut port: File, reply: &Reply) -> io::Result<()> {
    let current: Current = Arc::new(Mutex::new(None));
    while let Some(order) = Order::receive(&mut port)? {
        match order {
            Order::Run(job) => program::start(&job, &current, reply)?,
            other => program::pass_on(other, &current),
        }
    }
    Ok(())
}
