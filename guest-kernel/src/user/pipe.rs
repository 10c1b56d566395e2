//! A pipe: bytes from one process to another, through a buffer of fixed size.
//!
//! A full pipe has its writer wait, an empty one its reader; so whoever is faster learns of it, and no pipe grows. It ends
//! when all senders are gone: then what is in it can still be read. When all receivers are gone nobody ever will, and
//! writing is an error.
//!
//! Ends are owned: a process that ends drops what it has. The kernel may have ends, too, and use them between runs.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use user_library::abi::SystemError;

use super::end::Wait;

/// Bytes that a pipe holds.
pub const CAPACITY: usize = 256;

/// What both ends have.
#[derive(Debug)]
struct Shared {
    buffer: RefCell<VecDeque<u8>>,
    senders: Cell<usize>,
    receivers: Cell<usize>,
}

/// The end to write to. Each clone is one more sender.
#[derive(Debug)]
pub struct Sender(Rc<Shared>);

/// The end to read from. Each clone is one more receiver: who reads first has the bytes.
#[derive(Debug)]
pub struct Receiver(Rc<Shared>);

/// Makes a pipe.
#[must_use]
pub fn pipe() -> (Sender, Receiver) {
    let buffer = RefCell::new(VecDeque::with_capacity(CAPACITY));
    let shared = Rc::new(Shared { buffer, senders: Cell::new(1), receivers: Cell::new(1) });
    (Sender(Rc::clone(&shared)), Receiver(shared))
}

/// Counts the ends of one kind.
macro_rules! counted {
    ($end:ident, $count:ident) => {
        impl Clone for $end {
            fn clone(&self) -> Self {
                self.0.$count.update(|count| count + 1);
                Self(Rc::clone(&self.0))
            }
        }

        impl Drop for $end {
            fn drop(&mut self) {
                self.0.$count.update(|count| count - 1);
            }
        }
    };
}

counted!(Sender, senders);
counted!(Receiver, receivers);

/// What becomes of a transfer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transfer {
    /// So many bytes were moved.
    Done(usize),
    /// None could be, yet.
    MustWait(Wait),
}

impl Sender {
    /// Puts in as many of `bytes` as there is room for.
    ///
    /// # Errors
    /// [`SystemError::Broken`] when nobody will read them.
    pub fn send(&self, bytes: &[u8]) -> Result<Transfer, SystemError> {
        if self.0.receivers.get() == 0 {
            return Err(SystemError::Broken);
        }
        let mut buffer = self.0.buffer.borrow_mut();
        let count = bytes.len().min(CAPACITY - buffer.len());
        if count == 0 && !bytes.is_empty() {
            return Ok(Transfer::MustWait(Wait::Room));
        }
        buffer.extend(bytes.get(..count).unwrap_or_default());
        Ok(Transfer::Done(count))
    }
}

impl Receiver {
    /// Takes out as many bytes as there are, up to all of `bytes`. `Done(0)` when no more will come.
    pub fn receive(&self, bytes: &mut [u8]) -> Transfer {
        let mut buffer = self.0.buffer.borrow_mut();
        let count = bytes.len().min(buffer.len());
        if count == 0 && !bytes.is_empty() && self.0.senders.get() > 0 {
            return Transfer::MustWait(Wait::Bytes);
        }
        let (bytes, _) = bytes.split_at_mut(count);
        // The buffer is a ring: its bytes lie in two pieces.
        let (first, second) = buffer.as_slices();
        let (to_first, to_second) = bytes.split_at_mut(count.min(first.len()));
        to_first.copy_from_slice(&first[..to_first.len()]);
        to_second.copy_from_slice(&second[..to_second.len()]);
        buffer.drain(..count);
        Transfer::Done(count)
    }
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_out_as_they_went_in() {
        let (sender, receiver) = pipe();
        assert_eq!(sender.send(b"abcde"), Ok(Transfer::Done(5)));
        let mut bytes = [0; 3];
        assert_eq!((receiver.receive(&mut bytes), bytes), (Transfer::Done(3), *b"abc"));
        assert_eq!((receiver.receive(&mut bytes), &bytes[..2]), (Transfer::Done(2), &b"de"[..]));
        assert_eq!(receiver.receive(&mut bytes), Transfer::MustWait(Wait::Bytes));
    }

    #[test]
    fn a_full_pipe_takes_what_fits_and_then_nothing() {
        let (sender, receiver) = pipe();
        assert_eq!(sender.send(&[1; CAPACITY - 1]), Ok(Transfer::Done(CAPACITY - 1)));
        assert_eq!(sender.send(&[2; 9]), Ok(Transfer::Done(1)));
        assert_eq!(sender.send(&[3; 9]), Ok(Transfer::MustWait(Wait::Room)));
        assert_eq!(receiver.receive(&mut [0; 4]), Transfer::Done(4));
        assert_eq!(sender.send(&[3; 9]), Ok(Transfer::Done(4)));
    }

    #[test]
    fn a_pipe_ends_with_its_last_sender_and_breaks_with_its_last_receiver() {
        let (sender, receiver) = pipe();
        let second = sender.clone();
        assert_eq!(second.send(b"x"), Ok(Transfer::Done(1)));
        drop(sender);
        let mut bytes = [0; 2];
        assert_eq!(receiver.receive(&mut bytes), Transfer::Done(1));
        assert_eq!(receiver.receive(&mut bytes), Transfer::MustWait(Wait::Bytes));
        drop(second);
        assert_eq!(receiver.receive(&mut bytes), Transfer::Done(0));

        let (sender, receiver) = pipe();
        drop(receiver);
        assert_eq!(sender.send(b"x"), Err(SystemError::Broken));
    }
}
