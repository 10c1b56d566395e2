//! The bits of a page-table entry, each by its name.
//!
//! Intel SDM vol. 3A, tables 4-15 to 4-20. The same bit means different things at different levels: bit 7 is PS in a
//! page directory and PAT in a page table, and D, G and the protection key count only where a page is mapped.

use serde::Serialize;

use super::rules::Rules;
use super::words::Hex;
use crate::config::PageSize;
use crate::page_walk::Level;

/// A bit, or a few that belong together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Bit {
    /// Its name in the manual; `ignored` for those the CPU leaves to software, `reserved` for those that must be 0.
    pub name: &'static str,
    /// The lowest bit.
    pub low: u32,
    /// The highest bit.
    pub high: u32,
    /// The value.
    pub value: Hex,
}

/// Every bit of `word` but those of its address, lowest first. Of an entry that is not present the CPU looks at none.
#[must_use]
pub fn bits(level: Level, word: u64, rules: Rules) -> Vec<Bit> {
    if word & 1 == 0 {
        let high = if level.is_32_bit() { 31 } else { 63 };
        let ignored = Bit { name: "ignored", low: 1, high, value: Hex(word >> 1) };
        return vec![Bit { name: "P", low: 0, high: 0, value: Hex(0) }, ignored];
    }
    if level == Level::PaePdpt {
        return pointer_bits(word, rules);
    }
    let page = level.page(word);
    let when_page = |name| if page.is_some() { name } else { "ignored" };
    let mut bits: Vec<(&'static str, u32, u32)> = vec![
        ("P", 0, 0),
        ("R/W", 1, 1),
        ("U/S", 2, 2),
        ("PWT", 3, 3),
        ("PCD", 4, 4),
        ("A", 5, 5),
        (when_page("D"), 6, 6),
        (bit_7(level), 7, 7),
        (when_page("G"), 8, 8),
        ("ignored", 9, 11),
    ];
    match page {
        None | Some(PageSize::Size4K) => {}
        // PSE-36: eight more bits of the address.
        Some(PageSize::Size4M) => bits.extend([("PAT", 12, 12), ("reserved", 21, 21)]),
        Some(_) => bits.extend([("PAT", 12, 12), ("reserved", 13, level.shift() - 1)]),
    }
    if !level.is_32_bit() {
        bits.extend(upper_bits(level, rules, when_page("key")));
    }
    named(word, &bits)
}

/// Bits 63 to MAXPHYADDR.
fn upper_bits(level: Level, rules: Rules, key: &'static str) -> Vec<(&'static str, u32, u32)> {
    let no_execute = if rules.no_execute && level != Level::PaePdpt { "NX" } else { "reserved" };
    let mut bits = Vec::new();
    if level.is_pae() {
        bits.push(("reserved", rules.address_bits.min(52), 62));
    } else {
        if rules.address_bits < 52 {
            bits.push(("reserved", rules.address_bits, 51));
        }
        bits.extend([("ignored", 52, 58), (key, 59, 62)]);
    }
    bits.push((no_execute, 63, 63));
    bits
}

/// The top of PAE paging: no rights (Intel SDM vol. 3A, table 4-8).
fn pointer_bits(word: u64, rules: Rules) -> Vec<Bit> {
    let mut bits = vec![
        ("P", 0, 0),
        ("reserved", 1, 2),
        ("PWT", 3, 3),
        ("PCD", 4, 4),
        ("reserved", 5, 8),
        ("ignored", 9, 11),
    ];
    bits.extend(upper_bits(Level::PaePdpt, rules, "reserved"));
    named(word, &bits)
}

fn named(word: u64, bits: &[(&'static str, u32, u32)]) -> Vec<Bit> {
    let value = |low: u32, high: u32| Hex(word << (63 - high) >> (63 - high) >> low);
    bits.iter().map(|&(name, low, high)| Bit { name, low, high, value: value(low, high) }).collect()
}

fn bit_7(level: Level) -> &'static str {
    match level {
        Level::Pml4 | Level::PaePdpt => "reserved",
        Level::Pd32WithoutPse => "ignored",
        Level::Pdpt | Level::Pd | Level::PaePd | Level::Pd32 => "PS",
        Level::Pt | Level::PaePt | Level::Pt32 => "PAT",
    }
}

/// All on one line: `P=1 R/W=1 …`; what is ignored or reserved, with its bits when it is not 0.
#[must_use]
pub(super) fn line(bits: &[Bit]) -> String {
    let words: Vec<String> = bits
        .iter()
        .filter_map(|bit| match (bit.name, bit.value.0) {
            ("ignored" | "reserved", 0) => None,
            ("ignored" | "reserved", value) if bit.low == bit.high => {
                Some(format!("{}[{}]={value}", bit.name, bit.low))
            }
            ("ignored" | "reserved", value) => {
                Some(format!("{}[{}:{}]={value:#x}", bit.name, bit.high, bit.low))
            }
            (name, value) => Some(format!("{name}={value}")),
        })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_has_one_name_at_every_level() {
        for (level, word) in Level::ALL.into_iter().flat_map(|level| [(level, 0x3), (level, 0x83)]) {
            let mut address = if level.is_32_bit() { 0xFFFF_F000 } else { 0xF_FFFF_FFFF_F000u64 };
            let mut named = 0u64;
            for bit in bits(level, word, Rules { address_bits: 39, no_execute: true }) {
                for number in bit.low..=bit.high {
                    assert_eq!(named >> number & 1, 0, "{level}: bit {number} has two names");
                    named |= 1 << number;
                    address &= !(1 << number);
                }
            }
            let all = if level.is_32_bit() { u64::from(u32::MAX) } else { u64::MAX };
            assert_eq!(named | address, all, "{level}");
        }
    }

    #[test]
    fn an_entry_that_is_not_present_has_one_bit() {
        assert_eq!(line(&bits(Level::Pt, 0, Rules::WIDEST)), "P=0");
        assert_eq!(line(&bits(Level::Pt, 0x86, Rules::WIDEST)), "P=0 ignored[63:1]=0x43");
    }

    #[test]
    fn a_line_names_what_is_set_and_what_could_be() {
        let rules = Rules { address_bits: 39, no_execute: true };
        let large = line(&bits(Level::Pd, 1 << 63 | 0x20_0000 | 0x11E3, rules));
        assert_eq!(large, "P=1 R/W=1 U/S=0 PWT=0 PCD=0 A=1 D=1 PS=1 G=1 PAT=1 key=0 NX=1");
        let strange = line(&bits(Level::Pml4, 0x2 << 59 | 1 << 45 | 0x2E83, rules));
        assert_eq!(
            strange,
            "P=1 R/W=1 U/S=0 PWT=0 PCD=0 A=0 reserved[7]=1 ignored[11:9]=0x7 reserved[51:39]=0x40 ignored[62:59]=0x2 NX=0"
        );
    }
}
