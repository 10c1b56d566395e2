//! Other ways for text out of a guest.

use guest_kernel::channel::{MmioConsole, RingMemory, RingWriter};
use guest_kernel::guest_test;
use guest_kernel::hypercall::HypercallError;

#[guest_test(max_exits = 1, prints = "8 bytes.")]
fn eight_bytes_to_the_mmio_console_are_one_exit() -> Result<(), HypercallError> {
    MmioConsole::open()?.write(b"8 bytes.");
    Ok(())
}

#[guest_test(max_exits = 3, prints = "8 bytes.+2")]
fn odd_bytes_to_the_mmio_console_are_an_exit_each() -> Result<(), HypercallError> {
    MmioConsole::open()?.write(b"8 bytes.+2");
    Ok(())
}

#[guest_test(max_exits = 1, prints = "all around")]
fn a_ring_takes_one_exit_to_open_and_none_to_write() -> Result<(), HypercallError> {
    static RING: RingMemory<64> = RingMemory::new();
    RingWriter::open_polled(&RING)?.write(b"all around");
    Ok(())
}

#[guest_test]
fn a_ring_is_opened_once() -> Result<(), HypercallError> {
    static RING: RingMemory<64> = RingMemory::new();
    RingWriter::open_polled(&RING)?;
    assert_eq!(RingWriter::open_polled(&RING).err(), Some(HypercallError::AlreadyExists));
    Ok(())
}
