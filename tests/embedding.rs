//! The library in somebody else's program.

use std::sync::Arc;

use vmm::{Console, KernelSource, StopReason, Vm, VmConfig};
use xtask::workspace;

use crate::harness::{Seen, guest, probe};

#[test]
fn several_machines_in_one_process_keep_apart() {
    let image: Arc<[u8]> = std::fs::read(guest("probe")).expect("the guest was built").into();
    let machines = (0..4).map(|number: u32| {
        let image = Arc::clone(&image);
        std::thread::spawn(move || {
            let (console, captured) = Console::capture();
            let mut config = VmConfig::new(KernelSource::Bytes(image));
            config.console = console;
            config.arguments = vec!["arguments".to_owned(), number.to_string()];
            let report = Vm::build(config).and_then(|mut vm| vm.run()).expect("the host works");
            (number, report, captured.text())
        })
    });
    for machine in machines.collect::<Vec<_>>() {
        let (number, report, console) = machine.join().expect("no panic");
        assert_eq!(report.stop, StopReason::Exited { code: 0 });
        assert_eq!(console, format!("[arguments]\n[{number}]\n"));
    }
}

#[test]
fn two_machines_have_their_own_consoles_directories_and_counts() {
    let machines = ["left", "right"].map(|name| {
        std::thread::spawn(move || {
            let directory = tempfile::tempdir().expect("a directory");
            std::fs::write(directory.path().join("name"), name).expect("writable");
            let grant = vmm::Grant {
                path: directory.path().to_owned(),
                mode: vmm::GrantMode::ReadOnly,
                limits: vmm::Limits::default(),
            };
            let again = if name == "left" { "" } else { " seek=start:0 read=60" };
            probe(&format!("files open=r:name read=60{again}"))
                .with(|config| config.directory = Some(grant))
                .run()
        })
    });
    let [left, right] = machines.map(|machine| machine.join().expect("no panic"));
    let (left_calls, right_calls) = (left.report.exits.hypercall, right.report.exits.hypercall);
    let (left, right) = (left.succeeded(), right.succeeded());
    assert!(left.contains("\"left\"") && !left.contains("right"), "{left}");
    assert!(right.contains("\"right\"") && !right.contains("left"), "{right}");
    assert!(left_calls < right_calls, "{left_calls} < {right_calls}");
}

#[test]
fn the_example_runs_a_guest() {
    let mut cargo = workspace::cargo();
    cargo.args(["run", "--quiet", "--package", "vmm", "--example", "embed", "--"]).arg(guest("01_hello"));
    let seen = Seen::of(&mut cargo);
    assert_eq!(seen.code, Some(0), "{seen:?}");
    assert!(seen.stdout.contains("hello from the guest"), "{seen:?}");
}
