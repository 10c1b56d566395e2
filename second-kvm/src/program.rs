//! A program under orders: started, fed, listened to, and reported when it ends.
//!
//! A thread each carries stdin, stdout and stderr, and a fourth one waits; so the first process always has an ear for
//! the host. stdin, stdout and stderr are pipes, as in a shell's pipeline.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use second_kvm::wire::CHUNK_SIZE;
use second_kvm::{Event, Job, Order, Stream};

/// The program that runs, if one does.
pub(crate) type Current = Arc<Mutex<Option<Running>>>;

/// What is needed to reach a program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    id: u32,
    /// Gone when stdin has ended.
    input: Option<Sender<Vec<u8>>>,
    output_unread: Arc<AtomicBool>,
}

/// The way back to the host, for every thread.
#[derive(Clone, Debug)]
pub(crate) struct Reply(Arc<Mutex<std::fs::File>>);

impl Reply {
    pub(crate) fn new(port: std::fs::File) -> Self {
        Self(Arc::new(Mutex::new(port)))
    }

    pub(crate) fn send(&self, event: &Event) -> io::Result<()> {
        event.send(&mut *lock(&self.0))
    }
}

/// Starts the program; from then on threads look after it.
pub(crate) fn start(job: &Job, current: &Current, reply: &Reply) -> io::Result<()> {
    let mut child = match spawn(job) {
        Ok(child) => child,
        Err(error) => return reply.send(&Event::Failed(format!("cannot start {:?}: {error}", job.command))),
    };
    let output_unread = Arc::new(AtomicBool::new(false));
    let stdout = child.stdout.take().expect("stdout is piped");
    let stderr = child.stderr.take().expect("stderr is piped");
    let relays = [
        relay(stdout, Stream::Stdout, reply, &output_unread),
        relay(stderr, Stream::Stderr, reply, &Arc::default()),
    ];
    let input = feed(child.stdin.take().expect("stdin is piped"), reply);
    *lock(current) = Some(Running { id: child.id(), input: Some(input), output_unread });
    report_end(child, relays, Arc::clone(current), reply.clone());
    Ok(())
}

fn spawn(job: &Job) -> io::Result<Child> {
    let mut words = job.command.iter();
    let program = words.next().ok_or(io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command.args(words).env_clear().current_dir("/tmp");
    for variable in &job.environment {
        let bytes = variable.as_bytes();
        if let Some(end) = bytes.iter().position(|&byte| byte == b'=') {
            command.env(OsStr::from_bytes(&bytes[..end]), OsStr::from_bytes(&bytes[end + 1..]));
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()
}

/// Tells the host what the program writes, until it has closed its end or nobody wants to know.
fn relay(
    mut from: impl Read + Send + 'static,
    stream: Stream,
    reply: &Reply,
    unread: &Arc<AtomicBool>,
) -> JoinHandle<()> {
    let (reply, unread) = (reply.clone(), Arc::clone(unread));
    thread::spawn(move || {
        let mut buffer = vec![0; CHUNK_SIZE];
        while let Ok(size @ 1..) = from.read(&mut buffer) {
            let event = Event::Output(stream, buffer[..size].to_vec());
            if unread.load(Ordering::Relaxed) || reply.send(&event).is_err() {
                break;
            }
        }
    })
}

/// Writes to the program's stdin whatever is sent; the end of the sender is the end of stdin.
fn feed(mut stdin: ChildStdin, reply: &Reply) -> Sender<Vec<u8>> {
    let (sender, chunks): (_, Receiver<Vec<u8>>) = mpsc::channel();
    let reply = reply.clone();
    thread::spawn(move || {
        for chunk in chunks {
            // A program may close its stdin; what it is sent then is lost, as in any pipeline.
            let written = stdin.write_all(&chunk);
            if reply.send(&Event::InputTaken).is_err() || written.is_err() {
                break;
            }
        }
    });
    sender
}

/// Waits for the program, and for the last of its output, before the host is told that it has ended.
fn report_end(mut child: Child, relays: [JoinHandle<()>; 2], current: Current, reply: Reply) {
    thread::spawn(move || {
        let status = child.wait();
        *lock(&current) = None;
        for relay in relays {
            relay.join().expect("a relay does not panic");
        }
        let event = match status {
            Ok(status) => Event::Ended(exit_code(status)),
            Err(error) => Event::Failed(format!("cannot wait for the program: {error}")),
        };
        // Without a host there is nobody to be told; the first process notices that by itself.
        drop(reply.send(&event));
    });
}

/// As shells count: a program that signal n killed has ended with 128 + n.
fn exit_code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// Hands an order to the program that runs. It may just have ended: then there is nothing to do.
pub(crate) fn pass_on(order: Order, current: &Current) {
    let mut current = lock(current);
    let Some(running) = current.as_mut() else {
        return;
    };
    match order {
        Order::Input(bytes) => {
            if let Some(input) = &running.input {
                drop(input.send(bytes));
            }
        }
        Order::InputEnd => running.input = None,
        Order::OutputUnread => running.output_unread.store(true, Ordering::Relaxed),
        Order::Signal(number) => kill(running.id, number),
        Order::Run(_) => {}
    }
}

fn kill(id: u32, signal: i32) {
    // SAFETY: kill(2) reads no memory. `current` is locked and still has the program, so its id is at most a
    // moment out of date, and this machine hands out no id twice so soon.
    unsafe { libc::kill(id as libc::pid_t, signal) };
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
