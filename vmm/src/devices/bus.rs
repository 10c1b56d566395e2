//! The two buses: which device answers which port, and which answers which address.

use std::fmt;
use std::sync::{Mutex, PoisonError};

use shared_abi::Gpa;

use crate::error::Result;
use crate::exit::little_endian;
use crate::next::{Next, StopReason};
use crate::origin::Origin;

/// A device behind an I/O port.
pub trait PioDevice: Send + fmt::Debug {
    /// What people call it, in one word.
    fn name(&self) -> &'static str;

    /// Answers one IN: fills `data`, 1, 2 or 4 bytes, little-endian.
    ///
    /// # Errors
    /// What the host could not do.
    fn read(&mut self, data: &mut [u8]) -> Result<Next>;

    /// Takes one OUT of 1, 2 or 4 bytes, little-endian.
    ///
    /// # Errors
    /// What the host could not do.
    fn write(&mut self, data: &[u8]) -> Result<Next>;
}

/// The ports of a machine and their devices.
#[derive(Debug, Default)]
pub struct PioBus {
    devices: Vec<(u16, Origin, SharedPioDevice)>,
}

/// A device as the vCPUs share it.
type SharedPioDevice = Mutex<Box<dyn PioDevice>>;

impl PioBus {
    /// Puts `device` at `port`.
    ///
    /// # Panics
    /// When the port has a device: the machine's own plan would be wrong.
    #[track_caller]
    pub fn attach(&mut self, port: u16, device: Box<dyn PioDevice>) {
        assert!(self.device(port).is_none(), "two devices at port {port:#x}");
        self.devices.push((port, Origin::here(), Mutex::new(device)));
    }

    /// Lets the device at `port` answer; `data` holds one or more accesses of `size` bytes.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn read(&self, port: u16, size: u8, data: &mut [u8]) -> Result<Next> {
        let Some(device) = self.device(port) else {
            return Ok(Next::Stop(StopReason::UnclaimedPort { port, size, written: None }));
        };
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        for access in data.chunks_mut(usize::from(size).max(1)) {
            let next = device.read(access)?;
            if next != Next::Resume {
                return Ok(next);
            }
        }
        Ok(Next::Resume)
    }

    /// Lets the device at `port` take `data`: one or more accesses of `size` bytes.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn write(&self, port: u16, size: u8, data: &[u8]) -> Result<Next> {
        let Some(device) = self.device(port) else {
            let written = Some(little_endian(data.get(..usize::from(size)).unwrap_or(data)) as u32);
            return Ok(Next::Stop(StopReason::UnclaimedPort { port, size, written }));
        };
        let mut device = device.lock().unwrap_or_else(PoisonError::into_inner);
        for access in data.chunks(usize::from(size).max(1)) {
            let next = device.write(access)?;
            if next != Next::Resume {
                return Ok(next);
            }
        }
        Ok(Next::Resume)
    }

    /// The ports that have a device, and its name.
    pub fn names(&self) -> impl Iterator<Item = (u16, &'static str)> {
        self.devices
            .iter()
            .map(|(port, _, device)| (*port, device.lock().unwrap_or_else(PoisonError::into_inner).name()))
    }

    fn device(&self, port: u16) -> Option<&SharedPioDevice> {
        self.devices.iter().find(|(own, ..)| *own == port).map(|(_, _, device)| device)
    }

    /// The line that put a device at `port`; `None` where there is none.
    #[must_use]
    pub fn attached_at(&self, port: u16) -> Option<Origin> {
        self.devices.iter().find(|(own, ..)| *own == port).map(|(_, origin, _)| *origin)
    }
}

/// A device behind guest-physical addresses without RAM.
pub trait MmioDevice: Send + fmt::Debug {
    /// What people call it, in one word.
    fn name(&self) -> &'static str;

    /// Answers a read at `offset` from the device's first byte: fills `data`, 1 to 8 bytes, little-endian.
    ///
    /// # Errors
    /// What the host could not do.
    fn read(&mut self, offset: u64, data: &mut [u8]) -> Result<Next>;

    /// Takes a write of 1 to 8 bytes at `offset`, little-endian.
    ///
    /// # Errors
    /// What the host could not do.
    fn write(&mut self, offset: u64, data: &[u8]) -> Result<Next>;
}

/// The addresses of a machine where devices are.
#[derive(Debug, Default)]
pub struct MmioBus {
    /// First byte, size in bytes, who put it there, and the device.
    devices: Vec<(Gpa, u64, Origin, SharedMmioDevice)>,
}

/// A device as the vCPUs share it.
type SharedMmioDevice = Mutex<Box<dyn MmioDevice>>;

impl MmioBus {
    /// Puts `device` at `size` bytes from `start`.
    ///
    /// # Panics
    /// When another device is there: the machine's own plan would be wrong.
    #[track_caller]
    pub fn attach(&mut self, start: Gpa, size: u64, device: Box<dyn MmioDevice>) {
        let overlaps = |own: Gpa, own_size: u64| own.0 < start.0 + size && start.0 < own.0 + own_size;
        assert!(!self.devices.iter().any(|(own, size, ..)| overlaps(*own, *size)), "two devices at {start}");
        self.devices.push((start, size, Origin::here(), Mutex::new(device)));
    }

    /// Lets the device at `gpa` answer.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn read(&self, gpa: Gpa, data: &mut [u8]) -> Result<Next> {
        match self.device(gpa, data.len()) {
            Some((offset, device)) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).read(offset, data)
            }
            None => Ok(Next::Stop(StopReason::unclaimed_read(gpa, data))),
        }
    }

    /// Lets the device at `gpa` take `data`.
    ///
    /// # Errors
    /// What the host could not do.
    pub fn write(&self, gpa: Gpa, data: &[u8]) -> Result<Next> {
        match self.device(gpa, data.len()) {
            Some((offset, device)) => {
                device.lock().unwrap_or_else(PoisonError::into_inner).write(offset, data)
            }
            None => Ok(Next::Stop(StopReason::unclaimed_write(gpa, data))),
        }
    }

    /// The addresses that have a device, as first byte and size, and its name.
    pub fn names(&self) -> impl Iterator<Item = (Gpa, u64, &'static str)> {
        let name = |device: &SharedMmioDevice| device.lock().unwrap_or_else(PoisonError::into_inner).name();
        self.devices.iter().map(move |(start, size, _, device)| (*start, *size, name(device)))
    }

    /// Where devices are: first byte, size in bytes, and the line that put it there.
    pub fn places(&self) -> impl Iterator<Item = (Gpa, u64, Origin)> + '_ {
        self.devices.iter().map(|(start, size, origin, _)| (*start, *size, *origin))
    }

    /// The device that has all bytes of the access, and the access's offset in it.
    fn device(&self, gpa: Gpa, length: usize) -> Option<(u64, &SharedMmioDevice)> {
        self.devices.iter().find_map(|(start, size, _, device)| {
            let offset = gpa.0.checked_sub(start.0)?;
            let end = offset.checked_add(length as u64)?;
            (end <= *size).then_some((offset, device))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers every access.
    #[derive(Debug, Default)]
    struct Recorder(std::sync::Arc<Mutex<Vec<Vec<u8>>>>);

    impl PioDevice for Recorder {
        fn name(&self) -> &'static str {
            "test"
        }

        fn read(&mut self, data: &mut [u8]) -> Result<Next> {
            data.fill(0xAB);
            Ok(Next::Resume)
        }

        fn write(&mut self, data: &[u8]) -> Result<Next> {
            self.0.lock().expect("no panics").push(data.to_vec());
            Ok(Next::Resume)
        }
    }

    #[test]
    fn a_repeated_out_reaches_the_device_as_single_accesses() {
        let recorder = Recorder::default();
        let seen = std::sync::Arc::clone(&recorder.0);
        let mut bus = PioBus::default();
        bus.attach(0x42, Box::new(recorder));

        bus.write(0x42, 2, &[1, 2, 3, 4]).expect("the recorder never fails");

        assert_eq!(*seen.lock().expect("no panics"), [vec![1, 2], vec![3, 4]]);
    }

    #[test]
    fn a_port_without_device_stops_the_machine_and_is_named() {
        let bus = PioBus::default();
        let next = bus.write(0x3F8, 2, &[0x34, 0x12]).expect("no device, no failure");
        let expected = StopReason::UnclaimedPort { port: 0x3F8, size: 2, written: Some(0x1234) };
        assert_eq!(next, Next::Stop(expected));
        let next = bus.read(0x60, 1, &mut [0]).expect("no device, no failure");
        assert_eq!(next, Next::Stop(StopReason::UnclaimedPort { port: 0x60, size: 1, written: None }));
    }
}
