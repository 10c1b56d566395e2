//! The library in somebody else's program: two machines at once, each with a console of its own.
//!
//! `cargo run --package vmm --example embed -- target/x86_64-unknown-none/debug/01_hello`

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use vmm::{Console, KernelSource, MemorySize, Vm, VmConfig};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args_os().nth(1).ok_or("usage: embed KERNEL")?;
    let image: Arc<[u8]> = std::fs::read(path)?.into();

    let machines = ["left", "right"].map(|name| {
        let image = Arc::clone(&image);
        thread::spawn(move || run(name, image))
    });
    for machine in machines {
        println!("{}", machine.join().map_err(|_| "a machine's thread panicked")??);
    }
    Ok(())
}

/// Runs one machine and says in one line what became of it.
fn run(name: &str, image: Arc<[u8]>) -> vmm::Result<String> {
    let (console, output) = Console::capture();
    let mut config = VmConfig::new(KernelSource::Bytes(image));
    config.memory = MemorySize::DEFAULT;
    config.arguments = vec![name.to_owned()];
    config.timeout = Some(Duration::from_secs(10));
    config.console = console;

    let report = Vm::build(config)?.run()?;
    Ok(format!("{name}: {report}, {} exits, printed {:?}", report.exits.total(), output.text()))
}
