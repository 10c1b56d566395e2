//! Console rings: bytes in guest RAM, read by a host thread.
//!
//! The guest never exits to be heard. With a doorbell, its OUT is answered inside KVM, which wakes the thread through
//! an eventfd (Linux Documentation/virt/kvm/api.rst, 4.59). Polled, the thread looks all the time and so costs a host
//! CPU; when nothing comes for a while it looks less often.
//!
//! The positions are the guest's words. What they say is bounded by the ring's size; a guest that claims more than a
//! ring holds has broken its ring, and it is read no more.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kvm_ioctls::{IoEventAddress, NoDatamatch, VmFd};
use shared_abi::channel::{RING_DATA, Ring};
use shared_abi::{Gpa, HypercallError, ports};
use vmm_sys_util::eventfd::EventFd;

use crate::console::Console;
use crate::memory::GuestMemory;
use crate::next::Next;
use crate::output::Writer;
use crate::stop::{StopHandle, StopRequest};

/// What makes the thread look into the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wake {
    /// A write to the doorbell port.
    Doorbell,
    /// It never stops looking.
    Poll,
}

/// The reading end of a ring.
#[derive(Debug)]
pub(super) struct RingReader {
    ring: Gpa,
    size: u64,
    /// Bytes read so far. Ours: the guest could change the one in its memory.
    read: u64,
    broken: bool,
    memory: Arc<GuestMemory>,
    console: Arc<Mutex<Console>>,
    stop: StopHandle,
}

impl RingReader {
    /// A reader of the ring at `ring`, which is RAM of `RING_DATA + size` bytes; `size` is a power of two.
    pub(super) fn new(
        ring: Gpa,
        size: u64,
        memory: Arc<GuestMemory>,
        console: Arc<Mutex<Console>>,
        stop: StopHandle,
    ) -> Self {
        Self { ring, size, read: 0, broken: false, memory, console, stop }
    }

    /// Prints what the guest has written since, and says whether there was anything.
    fn drain(&mut self) -> bool {
        let Some(written) = self.written() else { return false };
        let waiting = written.wrapping_sub(self.read);
        if waiting > self.size {
            self.broken = true;
            return false;
        }
        let position = self.read & (self.size - 1);
        let to_end = waiting.min(self.size - position);
        for (start, size) in [(position, to_end), (0, waiting - to_end)] {
            self.print(Gpa(self.ring.0 + RING_DATA + start), size);
        }
        self.read = written;
        let read_gpa = Gpa(self.ring.0 + core::mem::offset_of!(Ring, read) as u64);
        self.broken |= self.memory.store_u64(read_gpa, written).is_err();
        waiting > 0
    }

    fn written(&self) -> Option<u64> {
        let gpa = Gpa(self.ring.0 + core::mem::offset_of!(Ring, written) as u64);
        self.memory.load_u64(gpa).ok().filter(|_| !self.broken)
    }

    fn print(&mut self, gpa: Gpa, size: u64) {
        if size == 0 {
            return;
        }
        let Ok(slice) = self.memory.slice(gpa, size) else {
            self.broken = true;
            return;
        };
        let mut console = self.console.lock().unwrap_or_else(PoisonError::into_inner);
        let failure = match console.write_guest(&slice, Writer::Helper) {
            Ok(Next::Resume | Next::Stand) => return,
            Ok(Next::Stop(_)) => None,
            Err(error) => error.into_console_failure(),
        };
        // Nobody reads any more, or nobody can be told: the machine has no reason to go on.
        failure.into_iter().for_each(|failure| console.remember(failure));
        self.stop.stop(StopRequest::ConsoleClosed);
    }
}

/// The thread that reads a ring; it ends when this is dropped.
#[derive(Debug)]
pub(super) struct RingThread {
    reader: Arc<Mutex<RingReader>>,
    end: Arc<AtomicBool>,
    doorbell: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
}

impl RingThread {
    /// Starts reading.
    pub(super) fn start(reader: RingReader, wake: Wake, vm: &VmFd) -> Result<Self, HypercallError> {
        let doorbell = EventFd::new(0).map_err(|_| HypercallError::HostFailed)?;
        if wake == Wake::Doorbell {
            let port = IoEventAddress::Pio(ports::CONSOLE_DOORBELL.into());
            vm.register_ioevent(&doorbell, &port, NoDatamatch).map_err(|_| HypercallError::HostFailed)?;
        }
        let reader = Arc::new(Mutex::new(reader));
        let end = Arc::new(AtomicBool::new(false));
        let doorbell = Arc::new(doorbell);
        let body = {
            let (reader, end, doorbell) = (Arc::clone(&reader), Arc::clone(&end), Arc::clone(&doorbell));
            move || match wake {
                Wake::Doorbell => read_when_rung(&reader, &end, &doorbell),
                Wake::Poll => read_always(&reader, &end),
            }
        };
        let thread = std::thread::Builder::new().name("console-ring".into()).spawn(body);
        let thread = Some(thread.map_err(|_| HypercallError::HostFailed)?);
        Ok(Self { reader, end, doorbell, thread })
    }

    /// Prints what is there now, on the calling thread.
    pub(super) fn drain(&self) {
        drain(&self.reader);
    }
}

impl Drop for RingThread {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Release);
        let _ = self.doorbell.write(1);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn drain(reader: &Mutex<RingReader>) -> bool {
    reader.lock().unwrap_or_else(PoisonError::into_inner).drain()
}

fn read_when_rung(reader: &Mutex<RingReader>, end: &AtomicBool, doorbell: &EventFd) {
    loop {
        match doorbell.read() {
            // A signal meant for somebody else.
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(_) if !end.load(Ordering::Acquire) => drop(drain(reader)),
            _ => return,
        }
    }
}

fn read_always(reader: &Mutex<RingReader>, end: &AtomicBool) {
    let mut last_text = Instant::now();
    while !end.load(Ordering::Acquire) {
        if drain(reader) {
            last_text = Instant::now();
        } else if last_text.elapsed() < BUSY {
            std::hint::spin_loop();
        } else {
            std::thread::sleep(IDLE);
        }
    }
}

/// For so long after the last text the thread looks without a pause.
const BUSY: Duration = Duration::from_millis(1);
/// Then it pauses for so long between two looks.
const IDLE: Duration = Duration::from_micros(50);
