//! A minimal client of gdb's remote protocol, for KVMs where no gdb is: one packet, one reply.
//!
//! [`debug`] runs a guest in this process, with the client at the other end of a socket.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use vmm::debug::gdb::Debugger;
use vmm::{Console, RunReport, Vm};

use super::{Boot, patiently};

/// Far more than any reply takes.
const REPLY_LIMIT: Duration = Duration::from_secs(20);

/// A client that is connected.
pub(crate) struct Client {
    stream: UnixStream,
    /// What was shown on the debugger's console.
    pub(crate) console: String,
}

/// A guest under the client.
pub(crate) struct Session {
    pub(crate) client: Client,
    thread: JoinHandle<(RunReport, String)>,
    told: Arc<Mutex<Vec<String>>>,
}

/// How a session ended.
pub(crate) struct Ended {
    pub(crate) report: RunReport,
    /// What the guest printed.
    pub(crate) console: String,
    /// What was told to who started the VMM.
    pub(crate) told: Vec<String>,
}

/// Starts the guest under a debugger.
pub(crate) fn debug(boot: Boot) -> Session {
    let (own, other) = UnixStream::pair().expect("a pair of sockets");
    own.set_read_timeout(Some(patiently(REPLY_LIMIT))).expect("a time is valid");
    let told = Arc::new(Mutex::new(Vec::new()));
    let list = Arc::clone(&told);
    let thread = std::thread::spawn(move || {
        let (console, captured) = Console::capture();
        let mut vm = Vm::build(boot.with(|config| config.console = console).config).expect("KVM");
        let tell = |sentence: &str| list.lock().expect("nobody panics").push(sentence.to_owned());
        let report = vm.debug(Debugger::Connected(other.into()), &tell).expect("the host can do its work");
        (report, captured.text())
    });
    Session { client: Client { stream: own, console: String::new() }, thread, told }
}

impl Session {
    /// Waits for the end of the run.
    pub(crate) fn end(self) -> Ended {
        let (report, console) = self.thread.join().expect("the VMM does not panic");
        let told = self.told.lock().expect("nobody panics").clone();
        Ended { report, console, told }
    }

    /// Closes the connection without a word, and waits for the end of the run.
    pub(crate) fn hang_up(self) -> Ended {
        let Self { client, thread, told } = self;
        drop(client.stream);
        let (report, console) = thread.join().expect("the VMM does not panic");
        let told = told.lock().expect("nobody panics").clone();
        Ended { report, console, told }
    }
}

impl Client {
    /// Sends a packet and gives its reply.
    #[track_caller]
    pub(crate) fn ask(&mut self, body: &str) -> String {
        self.send(body);
        self.reply()
    }

    /// Sends a packet.
    #[track_caller]
    pub(crate) fn send(&mut self, body: &str) {
        let sum = body.bytes().fold(0, u8::wrapping_add);
        self.send_raw(format!("${body}#{sum:02x}").as_bytes());
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send_raw(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the stub reads");
    }

    /// Sends bytes to a stub that may have gone.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// What gdb sends for Ctrl-C.
    pub(crate) fn interrupt(&mut self) {
        self.send_raw(&[3]);
    }

    /// The next packet that is not for the console.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let body = self.packet();
            // A stub whose guest has ended waits for nothing any more.
            let _ = self.try_send(b"+");
            match body.strip_prefix('O').filter(|rest| *rest != "K") {
                Some(text) => self.console += &String::from_utf8_lossy(&bytes(text)),
                None => return body,
            }
        }
    }

    /// A packet, checked, with its runs (`*`) written out.
    #[track_caller]
    fn packet(&mut self) -> String {
        while self.byte() != b'$' {}
        let mut raw = Vec::new();
        loop {
            match self.byte() {
                b'#' => break,
                byte => raw.push(byte),
            }
        }
        let sum = [self.byte(), self.byte()];
        let expected = format!("{:02x}", raw.iter().copied().fold(0, u8::wrapping_add));
        assert_eq!(String::from_utf8_lossy(&sum), expected, "{}", String::from_utf8_lossy(&raw));
        let mut body = String::new();
        let mut raw = raw.into_iter().map(char::from);
        while let Some(c) = raw.next() {
            match (c, body.chars().last()) {
                ('*', Some(last)) => {
                    let count = u32::from(raw.next().expect("a run has a length")) - 29;
                    (0..count).for_each(|_| body.push(last));
                }
                _ => body.push(c),
            }
        }
        body
    }

    #[track_caller]
    fn byte(&mut self) -> u8 {
        let mut byte = [0];
        self.stream.read_exact(&mut byte).expect("a reply comes in time");
        byte[0]
    }

    /// The register with this number in the target's description.
    #[track_caller]
    pub(crate) fn register(&mut self, number: usize) -> u64 {
        let reply = self.ask(&format!("p{number:x}"));
        bytes(&reply).iter().take(8).rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
    }

    /// RIP.
    #[track_caller]
    pub(crate) fn rip(&mut self) -> u64 {
        self.register(16)
    }

    /// Memory, or `None` when the stub answers an error.
    #[track_caller]
    pub(crate) fn read(&mut self, gva: u64, size: usize) -> Option<Vec<u8>> {
        let reply = self.ask(&format!("m{gva:x},{size:x}"));
        (!reply.starts_with('E')).then(|| bytes(&reply))
    }

    /// The output of a `monitor` command.
    #[track_caller]
    pub(crate) fn monitor(&mut self, command: &str) -> String {
        self.console.clear();
        let hex: String = command.bytes().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(self.ask(&format!("qRcmd,{hex}")), "OK");
        self.console.clone()
    }
}

/// The bytes that hexadecimal digits tell.
fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().map(|c| c.to_digit(16).expect("a hexadecimal digit") as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}
