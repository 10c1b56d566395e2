//! `Exception`: what a CPU raises, and what the bits of its error code say (Intel SDM vol. 3A, chapter 6).

use std::fmt;

use serde::{Serialize, Serializer};
use shared_abi::{Gva, Vector};

/// An exception as the CPU raises it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Exception {
    /// The vector, 0 to 31; an `int n` may raise any up to 255.
    pub vector: u8,
    /// The error code, of the vectors that have one.
    pub error: Option<u32>,
    /// What CR2 gets: the address of a page fault.
    #[serde(serialize_with = "optional_address")]
    pub address: Option<Gva>,
}

/// Names of vectors that our own code speaks of.
pub mod vector {
    #![expect(missing_docs, reason = "the names are the manual's")]
    pub const DE: u8 = 0;
    pub const DB: u8 = 1;
    pub const BP: u8 = 3;
    pub const UD: u8 = 6;
    pub const NM: u8 = 7;
    pub const DF: u8 = 8;
    pub const TS: u8 = 10;
    pub const NP: u8 = 11;
    pub const SS: u8 = 12;
    pub const GP: u8 = 13;
    pub const PF: u8 = 14;
    pub const CP: u8 = 21;
}

/// The manual's short name of a vector: `#PF`; `vector 15` when no exception has it.
#[must_use]
pub fn mnemonic(vector: u8) -> String {
    Vector::from_number(vector.into())
        .map_or_else(|| format!("vector {vector}"), |known| known.mnemonic().to_owned())
}

/// The manual's name of a vector: `page fault`.
#[must_use]
pub fn name(vector: u8) -> &'static str {
    match Vector::from_number(vector.into()) {
        Some(known) => known.name(),
        None if vector < 32 => "a reserved vector",
        None => "an interrupt that nobody handles",
    }
}

/// Bits of a page fault's error code. Intel SDM vol. 3A, 4.7.
pub mod page_fault {
    /// The page is present, and its rights are what is missing.
    pub const PRESENT: u32 = 1 << 0;
    /// It was a write.
    pub const WRITE: u32 = 1 << 1;
    /// It was made in user mode.
    pub const USER: u32 = 1 << 2;
    /// An entry has a bit set that must be 0.
    pub const RESERVED: u32 = 1 << 3;
    /// It was an instruction fetch.
    pub const FETCH: u32 = 1 << 4;
    /// A protection key forbids it.
    pub const PROTECTION_KEY: u32 = 1 << 5;
    /// It was an access to a shadow stack.
    pub const SHADOW_STACK: u32 = 1 << 6;
    /// SGX forbids it.
    pub const SGX: u32 = 1 << 15;
}

/// Bits of an error code that names a descriptor. Intel SDM vol. 3A, 6.13.
mod selector {
    /// It happened while something else was delivered to the guest.
    pub(super) const EXTERNAL: u32 = 1 << 0;
    /// The index is of the IDT.
    pub(super) const IDT: u32 = 1 << 1;
    /// The index is of the LDT, not of the GDT.
    pub(super) const LDT: u32 = 1 << 2;
}

impl Exception {
    /// An exception without error code.
    #[must_use]
    pub fn plain(vector: u8) -> Self {
        Self { vector, error: None, address: None }
    }

    /// An exception with this error code.
    #[must_use]
    pub fn with_error(vector: u8, error: u32) -> Self {
        Self { vector, error: Some(error), address: None }
    }

    /// A page fault.
    #[must_use]
    pub fn page_fault(address: Gva, error: u32) -> Self {
        Self { vector: vector::PF, error: Some(error), address: Some(address) }
    }

    /// Whether it is a page fault by an entry of the page tables that has a bit set which must be 0.
    #[must_use]
    pub fn is_of_malformed_tables(&self) -> bool {
        self.vector == vector::PF && self.error.is_some_and(|error| error & page_fault::RESERVED != 0)
    }

    /// Whether it is a page fault of an instruction fetch.
    #[must_use]
    pub fn is_fetch(&self) -> bool {
        self.vector == vector::PF && self.error.is_some_and(|error| error & page_fault::FETCH != 0)
    }

    /// What was tried, in a few words: `write to 0x8` of a page fault, else the exception's name.
    #[must_use]
    pub fn action(&self) -> String {
        let (Some(address), Some(error)) = (self.address, self.error) else {
            return name(self.vector).to_owned();
        };
        format!("{} {address}", access_words(error))
    }

    /// What the error code says; `None` when there is none, or nothing to say.
    #[must_use]
    pub fn explain_error(&self) -> Option<String> {
        let error = self.error?;
        match self.vector {
            vector::PF => Some(page_fault_words(error)),
            vector::TS..=vector::GP => selector_words(error),
            _ => None,
        }
    }
}

impl fmt::Display for Exception {
    /// `#PF: write to 0x8`, `#DE: divide error`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", mnemonic(self.vector), self.action())
    }
}

fn access_words(error: u32) -> &'static str {
    if error & page_fault::FETCH != 0 {
        "instruction fetch from"
    } else if error & page_fault::WRITE != 0 {
        "write to"
    } else {
        "read of"
    }
}

/// A page fault's error code, bit by bit: `write to a page that is not present, in kernel mode`.
#[must_use]
pub fn page_fault_words(error: u32) -> String {
    let page = if error & page_fault::RESERVED != 0 {
        "an address behind an entry with a reserved bit set"
    } else if error & page_fault::PRESENT == 0 {
        "a page that is not present"
    } else if error & page_fault::PROTECTION_KEY != 0 {
        "a page whose protection key forbids it"
    } else if error & page_fault::FETCH != 0 {
        "a page that is not executable here"
    } else if error & page_fault::WRITE != 0 {
        "a page that is not writable here"
    } else {
        "a page that may not be read here"
    };
    let mode = if error & page_fault::USER != 0 { "user" } else { "kernel" };
    let mut words = format!("{} {page}, in {mode} mode", access_words(error));
    if error & page_fault::SHADOW_STACK != 0 {
        words.push_str(", by a shadow-stack access");
    }
    if error & page_fault::SGX != 0 {
        words.push_str(", forbidden by SGX");
    }
    words
}

/// An error code that names a descriptor; `None` for 0, which names none.
fn selector_words(error: u32) -> Option<String> {
    if error == 0 {
        return None;
    }
    let index = error >> 3 & 0x1FFF;
    let descriptor = match error & (selector::IDT | selector::LDT) {
        0 if index == 0 => "no descriptor".to_owned(),
        0 => format!("GDT descriptor {index} (selector {:#x})", error & 0xFFF8),
        selector::LDT => format!("LDT descriptor {index}"),
        _ => format!("IDT gate {index} ({})", mnemonic(index.min(255) as u8)),
    };
    let when = if error & selector::EXTERNAL != 0 { ", while an exception was delivered" } else { "" };
    Some(format!("{descriptor}{when}"))
}

/// Writes an address as people read it: `"0x8"`.
pub(super) fn address<S: Serializer>(gva: &Gva, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(gva)
}

/// As [`address`], or null.
pub(super) fn optional_address<S: Serializer>(gva: &Option<Gva>, serializer: S) -> Result<S::Ok, S::Error> {
    match gva {
        Some(gva) => serializer.collect_str(gva),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vector_has_a_name_of_its_own() {
        let mut seen: Vec<_> = (0..32).map(mnemonic).collect();
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 32);
        assert_eq!((mnemonic(14).as_str(), name(14)), ("#PF", "page fault"));
        assert_eq!((mnemonic(32).as_str(), name(255)), ("vector 32", "an interrupt that nobody handles"));
    }

    #[test]
    fn every_bit_of_a_page_faults_error_code_is_told() {
        for (error, words) in [
            (0, "read of a page that is not present, in kernel mode"),
            (2, "write to a page that is not present, in kernel mode"),
            (3, "write to a page that is not writable here, in kernel mode"),
            (0x11, "instruction fetch from a page that is not executable here, in kernel mode"),
            (5, "read of a page that may not be read here, in user mode"),
            (9, "read of an address behind an entry with a reserved bit set, in kernel mode"),
            (0x23, "write to a page whose protection key forbids it, in kernel mode"),
            (0x43, "write to a page that is not writable here, in kernel mode, by a shadow-stack access"),
            (0x8005, "read of a page that may not be read here, in user mode, forbidden by SGX"),
        ] {
            assert_eq!(page_fault_words(error), words, "{error:#x}");
        }
    }

    #[test]
    fn an_error_code_that_names_a_descriptor_is_told() {
        for (error, words) in [
            (0, None),
            (1, Some("no descriptor, while an exception was delivered")),
            (0x18, Some("GDT descriptor 3 (selector 0x18)")),
            (0x1C, Some("LDT descriptor 3")),
            (0x73, Some("IDT gate 14 (#PF), while an exception was delivered")),
        ] {
            let exception = Exception::with_error(vector::GP, error);
            assert_eq!(exception.explain_error().as_deref(), words, "{error:#x}");
        }
    }
}
