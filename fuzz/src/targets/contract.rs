//! The notes of an image: the contract, as a stranger may have written it.

use super::image;

pub(super) fn run(input: &[u8]) {
    // Several segments, as a file may have them.
    let segments = input.split(|&byte| byte == 0xFE);
    if let Err(error) = vmm::boot::contract::check(segments) {
        let sentence = error.to_string();
        assert!(!sentence.contains(char::is_control), "a stranger's text is shown: {sentence:?}");
        assert!(sentence.len() < 4096, "a stranger's text fills the screen: {} bytes", sentence.len());
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let few_lines = b"contract: 1\nHypercall.Mine: 77 (x: u64)\n";
    vec![image::contract(), image::note(1, few_lines), image::note(2, &[0; 16])]
}
