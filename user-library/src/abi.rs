//! The agreement between a program and the kernel: numbers of calls, errors, and the one address both know.
//!
//! ```text
//! RAX ◄── number        syscall, or int 0x80      RAX ──► the answer, or minus the error
//! RDI, RSI, RDX ◄── arguments                     RCX, R11 are lost with `syscall`; all others stay
//! ```
//!
//! Kernel and programs compile this file; no number stands on two sides.

/// Where programs are linked (`user-library/link.ld` says the same).
pub const IMAGE: u64 = 0x80_0010_0000;

/// The handle of the console, which every process has.
pub const CONSOLE: u64 = 0;

/// The exit code of a program that panicked.
pub const PANICKED: u64 = 101;

/// The vector of the other way into the kernel: `int 0x80`, as Linux has it for 32-bit programs.
pub const INT: u8 = 0x80;

/// The most bytes that one call reads or writes; more is done in pieces.
pub const MAX_TRANSFER: u64 = 4096;

/// Writes an enum of numbers, and the way back from a number.
macro_rules! numbers {
    ($(#[$meta:meta])* pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $number:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u64)]
        pub enum $name {
            $($(#[$variant_meta])* $variant = $number,)*
        }

        impl $name {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The one with this number.
            #[must_use]
            pub const fn from_number(number: u64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

numbers! {
    /// What a program can ask for.
    pub enum SystemCall {
        /// Ends the process. RDI: the exit code. No answer.
        Exit = 0,
        /// Writes to the console or into a pipe. RDI: handle, RSI: address, RDX: bytes. Answers how many were taken;
        /// waits while a pipe is full.
        Write = 1,
        /// Reads from the console or out of a pipe. RDI: handle, RSI: address, RDX: bytes. Answers how many were put
        /// there, 0 when no more will come; waits while there is nothing.
        Read = 2,
        /// Closes a handle. RDI: handle.
        Close = 3,
        /// Lets others run.
        Yield = 4,
        /// Waits. RDI: nanoseconds.
        Sleep = 5,
        /// Answers the number of the process.
        ProcessId = 6,
        /// Answers nanoseconds since some moment that stays the same; never goes back.
        Time = 7,
        /// Gives more memory, zeros. RDI: bytes. Answers the address; what was given before ends there.
        Grow = 8,
        /// Answers the number that the kernel was told to give to this process.
        Argument = 9,
    }
}

numbers! {
    /// Why the kernel did not do what was asked.
    pub enum SystemError {
        /// There is no call of this number.
        NoSuchCall = 1,
        /// The process has no such handle, or not for this direction.
        BadHandle = 2,
        /// The memory is not the program's, or not to be used so.
        BadAddress = 3,
        /// The argument is outside of what the call takes.
        BadArgument = 4,
        /// The process has all the memory that it may have, or there is none left.
        OutOfMemory = 5,
        /// Nobody will ever read what goes into this pipe.
        Broken = 6,
    }
}

/// The answer to a call.
pub type Answer = Result<u64, SystemError>;

/// The answer as RAX holds it.
#[must_use]
pub const fn encode(answer: Answer) -> u64 {
    match answer {
        Ok(value) => value,
        Err(error) => (error as u64).wrapping_neg(),
    }
}

/// The answer that RAX holds. Answers never come near 2⁶⁴: what does is an error.
///
/// # Errors
/// What the kernel had to say. A number that this library does not know is [`SystemError::NoSuchCall`].
pub const fn decode(rax: u64) -> Answer {
    match rax.wrapping_neg() {
        error @ 1..=MAX_ERROR => match SystemError::from_number(error) {
            Some(error) => Err(error),
            None => Err(SystemError::NoSuchCall),
        },
        _ => Ok(rax),
    }
}

/// Errors are numbers up to this.
const MAX_ERROR: u64 = 4095;

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn an_answer_survives_the_register() {
        for value in [0, 1, 4096, u64::MAX - MAX_ERROR - 1] {
            assert_eq!(decode(encode(Ok(value))), Ok(value));
        }
        for &error in SystemError::ALL {
            assert_eq!(decode(encode(Err(error))), Err(error));
        }
    }

    #[test]
    fn a_number_leads_back_to_its_call() {
        for &call in SystemCall::ALL {
            assert_eq!(SystemCall::from_number(call as u64), Some(call));
        }
        assert_eq!(SystemCall::from_number(u64::MAX), None);
    }
}
