//! The system calls of a program, each seen as it is made: ptrace(2).

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::ptr;

use libc::{c_int, pid_t};

/// A system call as it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SystemCall {
    /// `SYS_*`.
    pub(crate) number: i64,
    /// The first two arguments: for an ioctl the file and the request.
    pub(crate) arguments: [u64; 2],
}

impl SystemCall {
    /// KVM_RUN: `_IO(KVMIO, 0x80)`.
    const KVM_RUN: u64 = 0xAE80;

    /// Whether it enters a guest.
    pub(crate) fn enters_a_guest(&self) -> bool {
        self.number == libc::SYS_ioctl && self.arguments[1] == Self::KVM_RUN
    }
}

/// What the first thread of `program` calls until it ends well, in order. What it prints is thrown away.
pub(crate) fn of(mut program: Command) -> Vec<SystemCall> {
    program.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // SAFETY: Between fork and exec there is one system call, which takes no memory and no lock.
    unsafe { program.pre_exec(trace_me) };
    #[expect(clippy::zombie_processes, reason = "`Traced` waits for its end")]
    let child = program.spawn().expect("the program starts, and may be traced");
    Traced(child.id() as pid_t).calls()
}

fn trace_me() -> io::Result<()> {
    // SAFETY: The call has no arguments.
    match unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, ptr::null_mut::<u8>(), ptr::null_mut::<u8>()) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// A process that stands still at every system call, before and behind it, and was started by this thread.
struct Traced(pid_t);

impl Traced {
    /// The signal of a stop at a system call: PTRACE_O_TRACESYSGOOD sets bit 7.
    const AT_CALL: c_int = libc::SIGTRAP | 0x80;

    fn calls(self) -> Vec<SystemCall> {
        assert_eq!(self.wait(), Some(libc::SIGTRAP), "it stops behind its exec");
        let options = (libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL) as usize;
        // SAFETY: The options are a number.
        let set = unsafe { libc::ptrace(libc::PTRACE_SETOPTIONS, self.0, ptr::null_mut::<u8>(), options) };
        assert_eq!(set, 0, "{}", io::Error::last_os_error());
        let (mut calls, mut is_inside) = (Vec::new(), false);
        let mut signal = 0;
        loop {
            self.go_on(signal);
            signal = match self.wait() {
                None => return calls,
                Some(Self::AT_CALL) => {
                    is_inside = !is_inside;
                    if is_inside {
                        calls.push(self.call());
                    }
                    0
                }
                // One of its own, which it shall have.
                Some(signal) => signal,
            };
        }
    }

    /// Lets it run to its next call or to the way back.
    fn go_on(&self, signal: c_int) {
        // SAFETY: The signal is a number.
        let gone =
            unsafe { libc::ptrace(libc::PTRACE_SYSCALL, self.0, ptr::null_mut::<u8>(), signal as usize) };
        assert_eq!(gone, 0, "{}", io::Error::last_os_error());
    }

    /// The signal at which it stands now; `None` when it has ended well.
    fn wait(&self) -> Option<c_int> {
        let mut status = 0;
        // SAFETY: The status lives for the call. Nobody else waits for this process.
        let waited = unsafe { libc::waitpid(self.0, &raw mut status, 0) };
        assert_eq!(waited, self.0, "{}", io::Error::last_os_error());
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "it ended with {status:#x}");
        None
    }

    /// The call that it is about to make.
    fn call(&self) -> SystemCall {
        // SAFETY: All zeros is a value of these integers.
        let mut registers: libc::user_regs_struct = unsafe { std::mem::zeroed() };
        let target = &raw mut registers;
        // SAFETY: The process stands still, and the registers fit what they are read into.
        let read = unsafe { libc::ptrace(libc::PTRACE_GETREGS, self.0, ptr::null_mut::<u8>(), target) };
        assert_eq!(read, 0, "{}", io::Error::last_os_error());
        SystemCall { number: registers.orig_rax as i64, arguments: [registers.rdi, registers.rsi] }
    }
}
