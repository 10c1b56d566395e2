//! The words of all explanations: addresses in hexadecimal, ranges, rights, sizes.

use std::fmt;

use serde::{Serialize, Serializer, ser::SerializeStruct};

use crate::page_walk::Mapping;

/// A number that is an address or a word of bits: shown and serialized in hexadecimal, as JSON's numbers end at 2^53.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hex(pub u64);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

impl Serialize for Hex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Addresses `start..start + size`, of whichever space the field's name says. The end may be 2^64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// The first address.
    pub start: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Span {
    /// From `start` to before `end`; empty when that is not behind it.
    #[must_use]
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, size: end.saturating_sub(start) }
    }

    /// The first address behind it; 2^64 does not fit and is `u64::MAX`.
    #[must_use]
    pub fn end(self) -> u64 {
        self.start.saturating_add(self.size)
    }

    /// What both have in common, if anything.
    #[must_use]
    pub fn common(self, other: Self) -> Option<Self> {
        let common = Self::new(self.start.max(other.start), self.end().min(other.end()));
        (common.size > 0).then_some(common)
    }

    /// Whether `address` lies in it.
    #[must_use]
    pub fn contains(self, address: u64) -> bool {
        address.checked_sub(self.start).is_some_and(|offset| offset < self.size)
    }

    /// The part of another space, which starts at `start` there, that corresponds to `part` of this one.
    pub(super) fn corresponding(self, part: Self, start: u64) -> Self {
        Self { start: start.wrapping_add(part.start.wrapping_sub(self.start)), size: part.size }
    }
}

impl fmt::Display for Span {
    /// `start..end`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = u128::from(self.start) + u128::from(self.size);
        f.pad(&format!("{:#x}..{end:#x}", self.start))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let end = u128::from(self.start) + u128::from(self.size);
        let mut span = serializer.serialize_struct("Span", 3)?;
        span.serialize_field("start", &Hex(self.start))?;
        span.serialize_field("end", &format!("{end:#x}"))?;
        span.serialize_field("size", &self.size)?;
        span.end()
    }
}

/// What may be done with mapped memory, over all levels of the walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PageRights {
    /// Ring 0 may write.
    pub writable: bool,
    /// Instructions may be fetched.
    pub executable: bool,
    /// Ring 3 may use it at all.
    pub user: bool,
}

impl From<&Mapping> for PageRights {
    fn from(mapping: &Mapping) -> Self {
        Self { writable: mapping.writable, executable: mapping.executable, user: mapping.user }
    }
}

impl fmt::Display for PageRights {
    /// `rwx`, a dash for what is missing; `u` behind it when user mode may.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (write, execute) =
            (if self.writable { 'w' } else { '-' }, if self.executable { 'x' } else { '-' });
        let user = if self.user { "u" } else { "" };
        f.pad(&format!("r{write}{execute}{user}"))
    }
}

/// A size in the largest unit that divides it: `16 MiB`, `5 KiB`, `21 bytes`.
#[must_use]
pub(crate) fn size(bytes: u64) -> String {
    match [(30, "GiB"), (20, "MiB"), (10, "KiB")].iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift) {
        Some((shift, unit)) if bytes > 0 => format!("{} {unit}", bytes >> shift),
        _ => format!("{bytes} byte{}", plural(bytes)),
    }
}

/// The `s` of more than one.
#[must_use]
pub(super) fn plural(count: u64) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_up_to_the_last_address_ends_at_two_to_the_64() {
        let last_page = Span { start: !0xFFF, size: 0x1000 };
        assert_eq!(last_page.to_string(), "0xfffffffffffff000..0x10000000000000000");
        assert!(last_page.contains(u64::MAX) && !last_page.contains(0));
    }

    #[test]
    fn sizes_have_the_unit_that_divides_them() {
        for (bytes, words) in
            [(0, "0 bytes"), (1, "1 byte"), (5 << 10, "5 KiB"), (2 << 20, "2 MiB"), (4097, "4097 bytes")]
        {
            assert_eq!(size(bytes), words);
        }
    }

    #[test]
    fn corresponding_parts_have_the_same_offset() {
        let ram = Span { start: 0x1000, size: 0x3000 };
        assert_eq!(
            ram.corresponding(Span { start: 0x2000, size: 16 }, 0x7F00_1000),
            Span { start: 0x7F00_2000, size: 16 }
        );
    }
}
