//! Hypercalls: what a guest can ask of the host.
//!
//! [`Hypercall`] is the contract: every request with its number, its arguments and its meaning. The guest puts the
//! number into RAX and the arguments into RDI, RSI, RDX, R10, R8, R9, and writes to the port
//! [`ports::HYPERCALL`](crate::ports::HYPERCALL): one exit. When the guest continues, RAX holds 0 or a
//! [`HypercallError`], RDI the answer.
//!
//! To add a call, add its variant here. The compiler then names the one other place: the host's answer.
//!
//! Host side: `vmm/src/hypercall/mod.rs`. Guest side: `guest-kernel/src/hypercall.rs`.

use crate::addr::Gva;
pub use crate::answer::{Answer, HypercallError, decode_answer, encode_answer};
pub use crate::call_types::{ExitKind, FileStatus, LogLevel, OpenFlags, SeekOrigin, Translation};
use crate::channel::Channel;
use crate::define::hypercalls;

hypercalls! {
    /// A request to the host.
    ///
    /// Each answers with a number; where nothing is said, with 0. Memory is named by guest-virtual address and size in
    /// bytes. The host walks the guest's page tables as the CPU would: reading from memory needs it mapped, writing to
    /// it needs it mapped writable, or the answer is [`HypercallError::BadAddress`] and nothing was transferred.
    pub enum Hypercall {
        /// Ends the run; 0 to 99 become the process's exit code ([`exit_code`](crate::exit_code)).
        Exit {
            /// The exit code.
            code: u64,
        } = 1,

        /// Writes text to the console, in one exit whatever its size. Answers the bytes written: all of them.
        ConsoleWrite {
            /// The text, any bytes.
            text_gva: Gva,
            /// Its size.
            text_size: u64,
        } = 2,

        /// Reads what was typed. Answers the bytes read; 0 at the end of the input.
        ConsoleRead {
            /// Where it goes.
            buffer_gva: Gva,
            /// At most so much.
            buffer_size: u64,
            /// Waits for input; else [`HypercallError::WouldBlock`] says that there is none yet, and where there are
            /// interrupt controllers, [`CONSOLE_INPUT`](crate::interrupts::CONSOLE_INPUT) tells when there is.
            wait: bool,
        } = 3,

        /// Answers how many exits this vCPU has had, this one included.
        ExitCount = 4,

        /// Answers how many exits of one kind this vCPU has had.
        ExitCountOf {
            /// The kind.
            kind: ExitKind,
        } = 5,

        /// Translates a guest-virtual address as the CPU does, and further to where the VMM has that byte.
        Translate {
            /// The address; one that is not mapped is [`HypercallError::BadAddress`].
            gva: Gva,
            /// Where the [`Translation`] goes.
            answer_gva: Gva,
        } = 6,

        /// Answers nanoseconds since some moment before the answer; the moment stays the same while the VMM runs, so the
        /// time never goes back.
        MonotonicTime = 7,

        /// Answers nanoseconds since 1970-01-01 00:00 UTC, as the host's clock has it.
        WallTime = 8,

        /// Fills memory with random bytes fit for keys. Answers their number: all.
        RandomBytes {
            /// Where they go.
            buffer_gva: Gva,
            /// How many, at most [`MAX_RANDOM_BYTES`].
            buffer_size: u64,
        } = 9,

        /// Copies the guest's arguments, each with a NUL behind it. Answers the bytes that all of them take, which may
        /// be more than were copied.
        Arguments {
            /// Where they go.
            buffer_gva: Gva,
            /// At most so much.
            buffer_size: u64,
        } = 10,

        /// Adds a record to the host's log.
        Log {
            /// How important it is.
            level: LogLevel,
            /// What it is about, such as a module: UTF-8.
            target_gva: Gva,
            /// Size of that, at most [`MAX_LOG_TARGET`].
            target_size: u64,
            /// The message: UTF-8.
            text_gva: Gva,
            /// Size of that, at most [`MAX_LOG_TEXT`].
            text_size: u64,
        } = 11,

        /// Opens another way for text out of the guest ([`channel`](crate::channel)). A channel is opened once;
        /// then [`HypercallError::AlreadyExists`]. [`HypercallError::HostFailed`] where this host's KVM has no such way.
        OpenChannel {
            /// Which.
            channel: Channel,
            /// For rings: the [`Ring`](crate::channel::Ring) and the data behind it, physically contiguous.
            ring_gva: Gva,
            /// For rings: size of the data in bytes, a power of two up to [`RING_MAX`](crate::channel::RING_MAX).
            ring_size: u64,
        } = 12,

        /// Begins a span of the program that whoever watches the run will see by its name; nobody may. Spans nest.
        MarkBegin {
            /// The name: UTF-8.
            name_gva: Gva,
            /// Size of that, at most [`MAX_MARK_NAME`].
            name_size: u64,
        } = 13,

        /// Ends the span that began last; where none is open, nothing.
        MarkEnd = 14,

        /// Opens a file or directory below the granted one. Answers its handle.
        FileOpen {
            /// The path, UTF-8, relative: nothing outside the granted directory can be named.
            path_gva: Gva,
            /// Size of that, at most [`MAX_PATH`].
            path_size: u64,
            /// How it is opened.
            flags: OpenFlags,
        } = 20,

        /// Reads from a file at its position. Answers the bytes read; 0 at its end.
        FileRead {
            /// The file.
            handle: u32,
            /// Where they go.
            buffer_gva: Gva,
            /// At most so many.
            buffer_size: u64,
        } = 21,

        /// Writes to a file at its position. Answers the bytes written.
        FileWrite {
            /// The file.
            handle: u32,
            /// The bytes.
            buffer_gva: Gva,
            /// How many.
            buffer_size: u64,
        } = 22,

        /// Moves a file's position. Answers the new one, from the file's start.
        FileSeek {
            /// The file.
            handle: u32,
            /// How far.
            offset: i64,
            /// From where.
            origin: SeekOrigin,
        } = 23,

        /// Closes a file or directory.
        FileClose {
            /// Its handle, free from now on.
            handle: u32,
        } = 24,

        /// Tells what is at a path.
        FileStat {
            /// The path.
            path_gva: Gva,
            /// Size of that, at most [`MAX_PATH`].
            path_size: u64,
            /// Where the [`FileStatus`] goes.
            answer_gva: Gva,
        } = 25,

        /// Removes a file. Directories are [`HypercallError::IsADirectory`].
        FileRemove {
            /// The path.
            path_gva: Gva,
            /// Size of that, at most [`MAX_PATH`].
            path_size: u64,
        } = 26,

        /// Copies the next names of an open directory, each with a NUL behind it, a directory's with a `/` before
        /// that. Answers the bytes copied; 0 when there are no more.
        DirectoryRead {
            /// The directory.
            handle: u32,
            /// Where they go: at least [`MAX_NAME`] bytes.
            buffer_gva: Gva,
            /// At most so many.
            buffer_size: u64,
        } = 27,

        /// Ends the run: an exception that nobody handles. Only a call that is wrong is answered.
        Exception {
            /// The registers of what was interrupted: an [`ExceptionFrame`](crate::exception::ExceptionFrame).
            frame_gva: Gva,
        } = 28,

        /// Says the last words of a guest that panicked: shown on the console, and kept for the report. A guest with
        /// more to say than one call carries makes several; it then ends with
        /// [`PANICKED`](crate::exit_code::PANICKED).
        Panic {
            /// The words, UTF-8.
            text_gva: Gva,
            /// Their size.
            text_size: u64,
        } = 29,

        /// Starts a CPU that does not run: one that was never started or, in a machine without interrupt controllers, has
        /// halted. It starts in 64-bit mode with the page tables of the caller, interrupts off and no descriptor tables, as the first CPU
        /// did. [`HypercallError::NotFound`] when the machine has no such CPU, [`HypercallError::AlreadyExists`] when it
        /// runs, [`HypercallError::BadArgument`] when it cannot start so.
        StartCpu {
            /// Its number, from 0.
            cpu: u64,
            /// RIP: the first instruction.
            entry_gva: Gva,
            /// RSP: the end of its stack.
            stack_gva: Gva,
            /// RDI: the first argument of a function.
            argument: u64,
        } = 30,

        /// Has the whole machine kept as it is now, so that it can go on from here again: answers 0 when it is kept, and to
        /// each that goes on from there later its number, from 1: the machine itself, put back, or a new one.
        /// [`HypercallError::NotGranted`] when the user keeps no snapshots, [`HypercallError::NotPermitted`] while
        /// files or channels are open, or inner guests possible, which cannot be kept.
        ///
        /// What the guest finds then: `MonotonicTime`, `WallTime` and the time-stamp counter have gone on and never go back,
        /// `RandomBytes` differ each time; [`Identity`](Self::Identity) is another. But all that lies in memory is as it was,
        /// the seed of a generator of random numbers too.
        Snapshot = 31,

        /// Answers a random number that no other machine has. It stays the same until the machine goes on from a snapshot,
        /// and is another one then: by this a guest that did not ask for snapshots finds that it must not trust what it took
        /// to be known to it alone.
        Identity = 32,
    }
}

/// The most random bytes of one call.
pub const MAX_RANDOM_BYTES: u64 = 1 << 20;
/// The longest target of a log record, in bytes.
pub const MAX_LOG_TARGET: u64 = 256;
/// The longest message of a log record, in bytes.
pub const MAX_LOG_TEXT: u64 = 4096;
/// The longest name of a span, in bytes.
pub const MAX_MARK_NAME: u64 = 128;
/// The longest path, in bytes.
pub const MAX_PATH: u64 = 4096;
/// The longest name in a directory, in bytes, with its `/` and its NUL.
pub const MAX_NAME: u64 = 258;

/// A hypercall as registers hold it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// RAX: the number of the call.
    pub number: u64,
    /// RDI, RSI, RDX, R10, R8, R9: the arguments.
    pub arguments: [u64; 6],
    /// How many of them the call has; a guest need not load the others. The host does not look at this.
    pub count: usize,
}

impl Registers {
    /// The call `number` with `arguments`; unused registers are 0.
    ///
    /// # Panics
    /// With more than six arguments. The compiler sees the number, so a guest that compiles never panics here.
    #[must_use]
    #[inline]
    pub const fn new(number: u64, arguments: &[u64]) -> Self {
        let mut registers = Self { number, arguments: [0; 6], count: arguments.len() };
        let mut index = 0;
        while index < arguments.len() {
            registers.arguments[index] = arguments[index];
            index += 1;
        }
        registers
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_survives_the_registers() {
        let calls = [
            Hypercall::Exit { code: 7 },
            Hypercall::ExitCount,
            Hypercall::ConsoleRead { buffer_gva: Gva(u64::MAX), buffer_size: 1 << 40, wait: true },
            Hypercall::FileSeek { handle: 3, offset: -1, origin: SeekOrigin::End },
            Hypercall::FileOpen {
                path_gva: Gva(1),
                path_size: 2,
                flags: OpenFlags::READ.and(OpenFlags::WRITE),
            },
        ];
        for call in calls {
            assert_eq!(Hypercall::decode(&call.encode()), Ok(call));
        }
    }

    #[test]
    fn numbers_that_mean_nothing_are_refused() {
        let refused = |number, arguments: &[u64]| Hypercall::decode(&Registers::new(number, arguments));
        assert_eq!(refused(0, &[]), Err(HypercallError::UnknownCall));
        assert_eq!(refused(u64::MAX, &[]), Err(HypercallError::UnknownCall));
        assert_eq!(refused(3, &[0, 0, 2]), Err(HypercallError::BadArgument), "a bool of 2");
        assert_eq!(refused(23, &[1 << 32, 0, 0]), Err(HypercallError::BadArgument), "a handle of 33 bits");
        assert_eq!(refused(20, &[0, 0, 128]), Err(HypercallError::BadArgument), "an unknown flag");
        assert_eq!(refused(5, &[0]), Err(HypercallError::BadArgument), "no kind of exit");
    }

    #[test]
    fn answers_survive_the_registers() {
        for answer in [Ok(0), Ok(u64::MAX), Err(HypercallError::BadAddress), Err(HypercallError::HostFailed)]
        {
            let (rax, rdi) = encode_answer(answer);
            assert_eq!(decode_answer(rax, rdi), answer);
        }
        assert_eq!(decode_answer(999, 0), Err(HypercallError::HostFailed));
    }
}
