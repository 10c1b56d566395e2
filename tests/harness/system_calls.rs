//! The system calls of a program, each seen as it is made: ptrace(2).

use std::process::{Command, Stdio};

use libc::{c_int, pid_t};
use xtask::ptrace::{self, AT_SYSTEM_CALL, Change, Until};

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
    #[expect(clippy::zombie_processes, reason = "`Traced` waits for its end")]
    let child = ptrace::spawn(&mut program).expect("the program starts, and may be traced");
    Traced(child.id() as pid_t).calls()
}

/// A process that stands still at every system call, before and behind it, and was started by this thread.
struct Traced(pid_t);

impl Traced {
    fn calls(self) -> Vec<SystemCall> {
        assert_eq!(self.wait(), Some(libc::SIGTRAP), "it stops behind its exec");
        ptrace::set_options(self.0, libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_EXITKILL)
            .expect("it stands");
        let (mut calls, mut is_inside) = (Vec::new(), false);
        let mut signal = 0;
        loop {
            ptrace::go_on(self.0, Until::SystemCall, signal).expect("it stands");
            signal = match self.wait() {
                None => return calls,
                Some(AT_SYSTEM_CALL) => {
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

    /// The signal at which it stands now; `None` when it has ended well.
    fn wait(&self) -> Option<c_int> {
        let Change { status, .. } = ptrace::wait(self.0).expect("nobody else waits for it");
        if libc::WIFSTOPPED(status) {
            return Some(libc::WSTOPSIG(status));
        }
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 0, "it ended with {status:#x}");
        None
    }

    /// The call that it is about to make.
    fn call(&self) -> SystemCall {
        let registers = ptrace::registers(self.0).expect("it stands");
        SystemCall { number: registers.orig_rax as i64, arguments: [registers.rdi, registers.rsi] }
    }
}
