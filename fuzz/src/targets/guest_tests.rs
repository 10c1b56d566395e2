//! The list of tests in an image: the input is what lies in memory, and before it what the note says of the list.

use shared_abi::guest_test::{NOTE_TYPE, TestRecord, UNLIMITED};
use shared_abi::layout;
use vmm::guest_tests::TestImage;

use super::image;

/// Where the list lies, from and to.
const NOTE_SIZE: usize = 16;

pub(super) fn run(input: &[u8]) {
    let (note, loaded) = input.split_at(input.len().min(NOTE_SIZE));
    let notes = [image::contract(), image::note(NOTE_TYPE, note)].concat();
    let image = TestImage::from_bytes(image::image(loaded, &notes).into(), "fuzz".as_ref());
    match image {
        Ok(Some(image)) => {
            for test in image.tests() {
                let shown = [&test.name, &test.file];
                assert!(shown.iter().all(|text| !text.contains(char::is_control)), "{test:?}");
            }
        }
        Ok(None) => {}
        Err(error) => assert!(!error.to_string().contains('\n')),
    }
}

/// Two tests with their texts.
pub(super) fn seeds() -> Vec<Vec<u8>> {
    let start = layout::KERNEL.0;
    let text = start + 2 * size_of::<TestRecord>() as u64;
    let record = |ending: u64| {
        [start, text, 4, text + 4, 5, 7, ending, 0, text, 2, UNLIMITED, 50, 0].map(u64::to_le_bytes).concat()
    };
    let list = [start, text].map(u64::to_le_bytes).concat();
    vec![[list, record(0), record(1), b"namea.rs".to_vec()].concat()]
}
