//! Which instruction caused an exit: at RIP, or before it.
//!
//! KVM tells RIP as it happens to have it. After a read, a `rep` or a fault it is at the instruction; after HLT and a
//! write to memory behind it. After OUT it is at the instruction where KVM steps over it when the guest is entered again
//! (VMX, SVM), and behind it where KVM has emulated it. So the bytes around RIP are looked at: only one of the two
//! places has an OUT there, as a rule, and where both have one, what the rule has shown before decides.

use shared_abi::Gva;

use crate::guest_space::{GuestBuffer, GuestSpace};
use crate::observe::entry::{Kind, Site};

/// Where RIP is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RipIs {
    /// At the instruction that caused the exit.
    At,
    /// Behind it.
    Behind,
}

/// The bytes around RIP, as far as they can be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Code {
    before: Vec<u8>,
    from: Vec<u8>,
}

/// Three prefixes, the opcode.
const FROM: u64 = 4;
/// The longest OUT without prefixes: the opcode, the port.
const BEFORE: u64 = 2;

impl Code {
    /// Reads what `site` asks for.
    pub(super) fn read(space: &GuestSpace<'_>, rip: Gva) -> Self {
        let bytes =
            |gva: u64, size: u64| space.read(GuestBuffer { gva: Gva(gva), size }, size).unwrap_or_default();
        Self { before: bytes(rip.0.wrapping_sub(BEFORE), BEFORE), from: bytes(rip.0, FROM) }
    }

    /// Where RIP is after an OUT; `None` when the bytes fit both or neither.
    pub(super) fn shows(&self) -> Option<RipIs> {
        match (is_out(&self.from), self.is_behind_out()) {
            (true, false) => Some(RipIs::At),
            (false, true) => Some(RipIs::Behind),
            _ => None,
        }
    }

    fn is_behind_out(&self) -> bool {
        matches!(self.before.as_slice(), [_, 0xEE | 0xEF] | [0xE6 | 0xE7, _])
    }
}

/// Whether an OUT or OUTS starts here (Intel SDM vol. 2B, OUT and OUTS), with any prefixes (vol. 2A, 2.1.1).
fn is_out(bytes: &[u8]) -> bool {
    let is_prefix = |byte: &&u8| matches!(byte, 0x66 | 0x67 | 0xF2 | 0xF3 | 0x40..=0x4F);
    let opcode = bytes.iter().find(|byte| !is_prefix(byte));
    matches!(opcode, Some(0xE6 | 0xE7 | 0xEE | 0xEF | 0x6E | 0x6F))
}

/// An address in the instruction that caused the exit; `usual` is where RIP is where its bytes do not tell.
pub(super) fn address(site: &Site, code: &Code, usual: Option<RipIs>) -> Option<Gva> {
    let place = match site.kind {
        Kind::PioOut | Kind::Hypercall => code.shows().or(usual).unwrap_or(RipIs::At),
        Kind::MmioWrite | Kind::Halt => RipIs::Behind,
        _ => RipIs::At,
    };
    site.rip.map(|rip| match place {
        RipIs::At => rip,
        RipIs::Behind => Gva(rip.0.wrapping_sub(1)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(before: [u8; 2], from: [u8; 4]) -> Code {
        Code { before: before.to_vec(), from: from.to_vec() }
    }

    #[test]
    fn the_bytes_tell_where_an_out_is() {
        const NOP: u8 = 0x90;
        assert_eq!(code([NOP, NOP], [0xEE, NOP, NOP, NOP]).shows(), Some(RipIs::At));
        assert_eq!(code([NOP, NOP], [0x66, 0xEF, NOP, NOP]).shows(), Some(RipIs::At));
        assert_eq!(code([NOP, NOP], [0xF3, 0x6E, NOP, NOP]).shows(), Some(RipIs::At));
        assert_eq!(code([NOP, 0xEE], [NOP; 4]).shows(), Some(RipIs::Behind));
        assert_eq!(code([0xE7, 0xE8], [NOP; 4]).shows(), Some(RipIs::Behind));
        assert_eq!(code([NOP, 0xEE], [0xEE, NOP, NOP, NOP]).shows(), None, "two in a row");
        assert_eq!(code([NOP; 2], [NOP; 4]).shows(), None);
        assert_eq!(Code::default().shows(), None, "memory that cannot be read");
    }

    #[test]
    fn where_bytes_fit_both_the_usual_place_decides() {
        let site = Site { kind: Kind::PioOut, rip: Some(Gva(0x1000)), ..Site::default() };
        let two_in_a_row = code([0x90, 0xEE], [0xEE, 0x90, 0x90, 0x90]);
        assert_eq!(address(&site, &two_in_a_row, Some(RipIs::Behind)), Some(Gva(0xFFF)));
        assert_eq!(address(&site, &two_in_a_row, Some(RipIs::At)), Some(Gva(0x1000)));
        let read = Site { kind: Kind::PioIn, ..site };
        assert_eq!(address(&read, &two_in_a_row, Some(RipIs::Behind)), Some(Gva(0x1000)));
    }
}
