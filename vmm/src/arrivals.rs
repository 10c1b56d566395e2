//! Arrivals: a guest that has asked for input and found none is interrupted when there is some.
//!
//! A guest that waits for several things at once cannot wait inside a hypercall. So it asks without waiting, and goes to
//! sleep when there is nothing; and the host, which has just said so, presses [`CONSOLE_INPUT`] once as soon as there is
//! input, or its end. A thread waits for that, from the first time on.
//!
//! Guest side: `guest-kernel/src/task/input.rs`.
//!
//! [`CONSOLE_INPUT`]: shared_abi::interrupts::CONSOLE_INPUT

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::JoinHandle;

use vmm_sys_util::epoll::{ControlOperation, Epoll, EpollEvent, EventSet};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::error::{Error, Result};
use crate::interrupts::IrqLine;

/// What is typed, and the line that tells of it.
#[derive(Debug)]
pub(crate) struct Arrivals {
    // Dropped first: its thread waits for the file.
    watch: Option<Watch>,
    input: File,
    line: IrqLine,
}

impl Arrivals {
    /// Input from `input` will be told of by `line`.
    pub(crate) fn new(input: File, line: IrqLine) -> Self {
        Self { watch: None, input, line }
    }

    /// Whether somebody has ever wanted to be told.
    pub(crate) fn is_wanted(&self) -> bool {
        self.watch.is_some()
    }

    /// Presses the line once, when there is input.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub(crate) fn tell_next(&mut self) -> Result<()> {
        match &self.watch {
            Some(watch) => watch.arm(&self.input, ControlOperation::Modify),
            None => Watch::start(&self.input, self.line.clone()).map(|watch| self.watch = Some(watch)),
        }
        .map_err(Error::Console)
    }
}

/// The thread that waits.
#[derive(Debug)]
struct Watch {
    epoll: Arc<Epoll>,
    end: EventFd,
    thread: Option<JoinHandle<()>>,
}

/// What the thread has waited for.
const INPUT: u64 = 0;
const END: u64 = 1;

impl Watch {
    fn start(input: &File, line: IrqLine) -> io::Result<Self> {
        let (epoll, end) = (Arc::new(Epoll::new()?), EventFd::new(EFD_NONBLOCK)?);
        epoll.ctl(ControlOperation::Add, end.as_raw_fd(), EpollEvent::new(EventSet::IN, END))?;
        let shared = Arc::clone(&epoll);
        let thread =
            std::thread::Builder::new().name("arrivals".into()).spawn(move || tell(&shared, &line))?;
        let watch = Self { epoll, end, thread: Some(thread) };
        watch.arm(input, ControlOperation::Add)?;
        Ok(watch)
    }

    /// Has the thread wait for input, once.
    fn arm(&self, input: &File, operation: ControlOperation) -> io::Result<()> {
        let event = EpollEvent::new(EventSet::IN | EventSet::ONE_SHOT, INPUT);
        self.epoll.ctl(operation, input.as_raw_fd(), event)
    }
}

/// Presses `line` whenever there is input and somebody wants to know.
fn tell(epoll: &Epoll, line: &IrqLine) {
    const FOR_EVER: i32 = -1;
    let mut events = [EpollEvent::default()];
    loop {
        match epoll.wait(FOR_EVER, &mut events) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(1..) if events.iter().all(|event| event.data() == INPUT) => {
                // A KVM that takes no interrupt any more has other troubles, and the run loop will tell of them.
                let _ = line.press();
            }
            _ => return,
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let is_told = self.end.write(1).is_ok();
        if let Some(thread) = self.thread.take().filter(|_| is_told) {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use shared_abi::interrupts::CONSOLE_INPUT;

    use super::*;
    use crate::devices::Ioapic;
    use crate::devices::ioapic::{Message, Messages};

    /// Says when a message is sent.
    #[derive(Debug)]
    struct Bell(Sender<usize>);

    impl Messages for Bell {
        fn route(&mut self, _: usize, _: Message) -> Result<()> {
            Ok(())
        }

        fn send(&mut self, pin: usize) -> Result<()> {
            self.0.send(pin).expect("the test listens");
            Ok(())
        }
    }

    #[test]
    fn each_wish_is_told_once_when_there_is_input() {
        let (bell, rings) = channel();
        let ioapic = Arc::new(Mutex::new(Ioapic::new(Box::new(Bell(bell)))));
        {
            let mut ioapic = ioapic.lock().expect("no panics");
            ioapic.write(0, 0x10 + 2 * u32::from(CONSOLE_INPUT)).expect("the bell never fails");
            ioapic.write(0x10, 0x30).expect("the bell never fails");
        }
        let (reader, mut writer) = std::io::pipe().expect("a pipe");
        let line = IrqLine::of(&ioapic, CONSOLE_INPUT).expect("there is such a pin");
        let mut arrivals = Arrivals::new(File::from(OwnedFd::from(reader)), line);
        let quiet = Duration::from_millis(20);
        let soon = Duration::from_secs(20);

        arrivals.tell_next().expect("a pipe can be waited for");
        assert!(rings.recv_timeout(quiet).is_err(), "nothing was written");
        writer.write_all(b"x").expect("a pipe");
        assert_eq!(rings.recv_timeout(soon), Ok(CONSOLE_INPUT.into()));
        assert!(rings.recv_timeout(quiet).is_err(), "it was told");
        arrivals.tell_next().expect("a pipe can be waited for");
        assert_eq!(rings.recv_timeout(soon), Ok(CONSOLE_INPUT.into()), "it is still there");
        drop(arrivals);
    }
}
