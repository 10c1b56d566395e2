//! `Peek`: bytes of guest memory, by physical or by virtual address, as a hexdump.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;
use shared_abi::addr::PAGE_SIZE;
use shared_abi::{Gpa, Gva};

use super::moment::{Moment, When};
use super::words::Hex;
use crate::config::parse_bytes;
use crate::error::Result;
use crate::page_walk::Walker;
use crate::vm::Vm;

/// Which addresses are meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Space {
    /// Guest-physical.
    Physical,
    /// Guest-virtual, by the tables that the guest has when it is looked at.
    Virtual,
}

/// What somebody wants to see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeekRequest {
    /// The first address.
    pub address: u64,
    /// How many bytes: at least 1, at most [`MAX_PEEK`].
    pub size: u64,
}

/// The most bytes of one look: 64 KiB.
pub const MAX_PEEK: u64 = 64 << 10;

impl FromStr for PeekRequest {
    type Err = String;

    /// Reads `ADDRESS:SIZE`, such as `0x100000:64` or `4096:4K`.
    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("`{text}` is not ADDRESS:SIZE, such as 0x100000:64");
        let (address, size) = text.split_once(':').ok_or_else(wrong)?;
        let address = parse_address(address).ok_or_else(wrong)?;
        let size = size
            .strip_prefix("0x")
            .map_or_else(|| parse_bytes(size), |hex| u64::from_str_radix(hex, 16).ok());
        match size.ok_or_else(wrong)? {
            size @ 1..=MAX_PEEK => Ok(Self { address, size }),
            size => Err(format!("{size} bytes are not between 1 and {MAX_PEEK}")),
        }
    }
}

/// Reads an address: `0x` and hexadecimal digits, or decimal ones; `_` may stand between them.
#[must_use]
pub fn parse_address(text: &str) -> Option<u64> {
    let digits = text.replace('_', "");
    match digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => digits.parse().ok(),
    }
}

/// Bytes of guest memory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Peek {
    /// Which addresses these are.
    pub space: Space,
    /// The first.
    pub address: Hex,
    /// The bytes; `None` where there is no RAM, or nothing is mapped.
    pub bytes: Vec<Option<u8>>,
}

impl Peek {
    /// Looks at the machine as it is now.
    ///
    /// # Errors
    /// [`Error::Kvm`](crate::Error::Kvm), when the registers cannot be read.
    pub fn of(vm: &Vm, space: Space, request: PeekRequest) -> Result<Self> {
        let mut walker = match space {
            Space::Physical => None,
            Space::Virtual => Moment::of(vm, When::Stop)?.tables().map(Walker::new),
        };
        let memory = vm.memory();
        let mut gpa_of = |address: u64| match &mut walker {
            None => Some(Gpa(address)),
            Some(walker) => {
                walker.walk(Gva(address), |gpa| memory.read_u64(gpa).ok()).ok().map(|page| page.gpa)
            }
        };
        let mut bytes = Vec::with_capacity(request.size as usize);
        // A page at a time: what holds for one byte of it holds for all.
        while (bytes.len() as u64) < request.size {
            let left = request.size - bytes.len() as u64;
            let Some(address) = request.address.checked_add(bytes.len() as u64) else {
                bytes.resize(request.size as usize, None);
                break;
            };
            let part = left.min(PAGE_SIZE - address % PAGE_SIZE) as usize;
            let mut buffer = vec![0; part];
            match gpa_of(address).filter(|gpa| memory.read(*gpa, &mut buffer).is_ok()) {
                Some(_) => bytes.extend(buffer.into_iter().map(Some)),
                None => bytes.resize(bytes.len() + part, None),
            }
        }
        Ok(Self { space, address: Hex(request.address), bytes })
    }
}

impl fmt::Display for Peek {
    /// Sixteen bytes a line: address, numbers, text. Lines without any byte are told once.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let space = match self.space {
            Space::Physical => "GPA",
            Space::Virtual => "GVA",
        };
        write!(f, "{space} {}, {} bytes", self.address, self.bytes.len())?;
        let mut was_empty = false;
        for (number, line) in (0u64..).zip(self.bytes.chunks(LINE)) {
            let address = self.address.0.wrapping_add(number * LINE as u64);
            let is_empty = line.iter().all(Option::is_none);
            if is_empty && !was_empty {
                write!(f, "\n{address:#014x}  nothing is there")?;
            }
            was_empty = is_empty;
            if is_empty {
                continue;
            }
            let numbers: Vec<String> =
                line.iter().map(|byte| byte.map_or("--".to_owned(), |byte| format!("{byte:02x}"))).collect();
            let text: String = line.iter().map(|byte| byte.map_or(' ', printable)).collect();
            write!(f, "\n{address:#014x}  {:width$}  {text}", numbers.join(" "), width = LINE * 3 - 1)?;
        }
        Ok(())
    }
}

/// Bytes on a line.
const LINE: usize = 16;

fn printable(byte: u8) -> char {
    if byte.is_ascii_graphic() || byte == b' ' { char::from(byte) } else { '.' }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_read_and_bounded() {
        for (text, address, size) in
            [("0x1000:64", 0x1000, 64), ("4096:4K", 4096, 4096), ("0xffff_8000:0x10", 0xFFFF_8000, 16)]
        {
            assert_eq!(text.parse(), Ok(PeekRequest { address, size }), "{text}");
        }
        for wrong in ["", "1", ":", "0x:4", "0:0", "0:65537", "0:1T", "main:4", "0x1:x"] {
            assert!(wrong.parse::<PeekRequest>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_hexdump_shows_bytes_text_and_what_is_not_there() {
        let mut bytes: Vec<_> = b"hello\n".iter().copied().map(Some).collect();
        bytes.resize(64, None);
        let peek = Peek { space: Space::Virtual, address: Hex(0x1000), bytes };
        let lines: Vec<String> = peek.to_string().lines().map(str::to_owned).collect();
        assert_eq!(lines[0], "GVA 0x1000, 64 bytes");
        assert_eq!(
            lines[1],
            format!("0x000000001000  68 65 6c 6c 6f 0a{}  hello.          ", " --".repeat(10))
        );
        assert_eq!(lines[2], "0x000000001010  nothing is there");
        assert_eq!(lines.len(), 3);
    }

    #[test]
    fn the_last_addresses_do_not_overflow() {
        let peek = Peek { space: Space::Virtual, address: Hex(u64::MAX - 3), bytes: vec![Some(7); 40] };
        assert!(peek.to_string().contains("0xfffffffffffffffc"));
    }
}
