//! `--kvm qemu`: guests on the `kvm_amd` of a Linux in QEMU, as if they ran here.
//!
//! Most of these need QEMU and a kernel for it, and each boots a machine: `cargo xtask test --kvm qemu` runs them.

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use xtask::workspace;

use crate::harness::Seen;

/// `cargo xtask run --kvm qemu` and these words.
fn run(words: &[&str]) -> Command {
    let mut cargo = workspace::cargo();
    cargo.args(["--quiet", "xtask", "run", "--kvm", "qemu"]).args(words);
    cargo
}

/// The program behind `cargo xtask`. It is what runs this moment's tests, or what cargo has built before.
fn xtask() -> Command {
    workspace::check(workspace::cargo().args(["build", "--quiet", "--package", "xtask"]))
        .expect("xtask builds");
    Command::new(workspace::target_directory().join("debug/xtask"))
}

#[test]
#[ignore = "boots QEMU: cargo xtask test --kvm qemu"]
fn the_greeting_is_there_within_fifteen_seconds_and_alone_on_stdout() {
    // Given: all is built.
    run(&[]).output().expect("cargo starts");

    let start = Instant::now();
    let seen = Seen::of(&mut run(&[]));

    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from the guest\n"), "{seen:?}");
    assert!(seen.stderr.lines().all(|line| line.starts_with("xtask: ")), "{seen:?}");
    assert!(start.elapsed() < Duration::from_secs(15), "{:?}", start.elapsed());
}

#[test]
#[ignore = "boots QEMU: cargo xtask test --kvm qemu"]
fn options_arguments_stderr_and_the_exit_code_are_the_vmms() {
    let seen = Seen::of(&mut run(&["probe", "--memory", "4M", "--", "arguments", "two words", "", "ä"]));
    assert_eq!(
        (seen.code, seen.stdout.as_str()),
        (Some(0), "[arguments]\n[two words]\n[]\n[ä]\n"),
        "{seen:?}"
    );

    let seen = Seen::of(&mut run(&["probe", "--", "exit", "4711"]));
    assert_eq!(seen.code, Some(99), "{seen:?}");
    assert!(seen.stderr.lines().any(|line| line.starts_with("vmm: ") && line.contains("4711")), "{seen:?}");
}

#[test]
#[ignore = "boots QEMU: cargo xtask test --kvm qemu"]
fn a_mib_goes_in_by_stdin_and_out_by_stdout_unchanged() {
    // Every byte value, line ends of both kinds among them, in no order that a buffer's size divides.
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|i| (i ^ (i >> 8).wrapping_mul(31)) as u8).collect();
    let mut child = run(&["probe", "--", "echo"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("cargo starts");
    let mut stdin = child.stdin.take().expect("piped");

    let (typed, output) = std::thread::scope(|scope| {
        let typing = scope.spawn(|| stdin.write_all(&bytes).map(|()| drop(stdin)));
        let output = child.wait_with_output().expect("xtask ends");
        (typing.join().expect("no panic"), output)
    });

    typed.expect("all is taken");
    let (echo, rest) = output.stdout.split_at(bytes.len().min(output.stdout.len()));
    assert!(echo == bytes, "{} bytes came back, not all as they were", echo.len());
    assert_eq!(rest, b"(end)\n");
}

#[test]
#[ignore = "boots QEMU: cargo xtask test --kvm qemu"]
fn ctrl_c_reaches_the_vmm_inside() {
    let mut child = spinning_guest();

    send(child.id(), libc::SIGINT);

    let seen = Seen::from(wait(&mut child));
    assert_eq!(seen.code, Some(130), "{seen:?}");
    assert!(seen.stderr.contains("vmm: the guest was interrupted, in probe::ends::spin at "), "{seen:?}");
}

#[test]
#[ignore = "boots QEMU: cargo xtask test --kvm qemu"]
fn no_qemu_is_left_behind_however_xtask_ends() {
    let mut child = spinning_guest();
    let qemu = child_of(child.id());

    send(child.id(), libc::SIGKILL);

    wait(&mut child);
    let end = Instant::now() + Duration::from_secs(20);
    while is_running(qemu) {
        assert!(Instant::now() < end, "QEMU, process {qemu}, still runs");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
#[ignore = "boots QEMU, and hides /dev/kvm: cargo xtask test --kvm qemu"]
fn without_dev_kvm_run_says_what_to_do_and_that_works() {
    let seen = Seen::of(&mut without_kvm(&["run"]));
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(100), ""), "{seen:?}");
    assert!(seen.stderr.contains("`--kvm qemu` behind `cargo xtask run`"), "{seen:?}");
    assert_eq!(seen.stderr.lines().count(), 1, "one paragraph: {seen:?}");

    let seen = Seen::of(&mut without_kvm(&["run", "--kvm", "qemu"]));
    assert_eq!((seen.code, seen.stdout.as_str()), (Some(0), "hello from the guest\n"), "{seen:?}");
}

#[test]
fn without_qemu_the_package_is_named() {
    let seen = Seen::of(xtask().args(["run", "--kvm", "qemu"]).env("PATH", ""));
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(
        seen.stderr.contains("qemu-system-x86_64 not found: `apt-get install qemu-system-x86`"),
        "{seen:?}"
    );
}

#[test]
fn what_needs_files_of_this_computer_is_refused() {
    let seen = Seen::of(xtask().args(["run", "--kvm", "qemu", "--dir=data:rw"]));
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("`--dir` needs files of this computer"), "{seen:?}");
}

#[test]
fn one_guest_does_not_run_on_both() {
    let seen = Seen::of(xtask().args(["run", "--kvm", "both"]));
    assert_eq!(seen.code, Some(100), "{seen:?}");
    assert!(seen.stderr.contains("--kvm host or --kvm qemu"), "{seen:?}");
}

/// An xtask whose guest spins, in a machine that has come up.
fn spinning_guest() -> Child {
    // Without cargo in between, signals are xtask's.
    run(&[]).output().expect("cargo starts");
    let mut child = xtask()
        .args(["run", "--kvm", "qemu", "probe", "--timeout", "60s", "--", "print-and-spin"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("xtask starts");
    let stderr = child.stderr.as_mut().expect("piped");
    let mut said = Vec::new();
    while !String::from_utf8_lossy(&said).contains("kvm_amd is ready") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).expect("readable"), 1, "{}", String::from_utf8_lossy(&said));
        said.extend(byte);
    }
    // The VMM inside starts, and installs its handler.
    std::thread::sleep(Duration::from_secs(3));
    child
}

/// `cargo xtask` with these words, in a mount namespace whose /dev has no kvm.
fn without_kvm(words: &[&str]) -> Command {
    let script = r#"
        mount -t tmpfs none /mnt
        for node in null zero full random urandom tty; do
            touch /mnt/$node && mount --bind /dev/$node /mnt/$node
        done
        mount --move /mnt /dev
        exec "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--map-root-user", "sh", "-ec", script, "sh"]);
    let mut xtask = xtask();
    command.arg(xtask.args(words).get_program()).args(words);
    command
}

fn wait(child: &mut Child) -> std::process::Output {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    child.stdout.take().expect("piped").read_to_end(&mut stdout).expect("readable");
    child.stderr.take().expect("piped").read_to_end(&mut stderr).expect("readable");
    std::process::Output { status: child.wait().expect("it is our child"), stdout, stderr }
}

fn send(process: u32, signal: libc::c_int) {
    // SAFETY: kill reads no memory; the child was not waited for, so its id is still its own.
    let result = unsafe { libc::kill(process as libc::pid_t, signal) };
    assert_eq!(result, 0);
}

fn child_of(process: u32) -> u32 {
    let children = format!("/proc/{process}/task/{process}/children");
    let children = std::fs::read_to_string(children).expect("it runs");
    children.trim().parse().expect("QEMU is the only child")
}

fn is_running(process: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    // A dead process that nobody has waited for is a zombie.
    !state.is_empty() && !state.contains(") Z ")
}
