//! Debug information and symbol tables, as an image has them: read, and asked for some addresses.
//!
//! The small images with debug information that hunts start from are files of the corpus: `tests/corpus/README.md`.

use shared_abi::{Gva, layout};
use vmm::coverage::{Coverage, LineTable, Method};
use vmm::debug::Symbols;

use super::image;

pub(super) fn run(input: &[u8]) {
    let symbols = Symbols::read(input);
    let mut asked = [0, 1, 0x40_0000, 0x40_1000, u64::MAX].to_vec();
    asked.extend((0..64).map(|offset| layout::KERNEL.0 + offset * 4));
    // Addresses are in the file, and some are right.
    asked.extend(input.as_chunks::<8>().0.iter().take(64).map(|bytes| u64::from_le_bytes(*bytes)));
    for gva in asked.into_iter().map(Gva) {
        for frame in symbols.frames(gva) {
            assert!(frame.line != Some(0) && frame.to_string().len() < 1 << 20);
        }
        let _ = symbols.function_at(gva);
    }
    let _ = symbols.address_of("main");
    if let Ok(table) = LineTable::read(input) {
        assert!(table.addresses().is_sorted());
        let coverage = Coverage::new(table, Some(Method::Steps)).expect("nothing is tried");
        let summary = coverage.summary();
        assert!(summary.covered == 0 && summary.lines <= input.len(), "{summary}");
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![image::smallest()]
}
