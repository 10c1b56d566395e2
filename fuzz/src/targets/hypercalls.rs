//! Calls of a guest, decoded and answered by a real machine whose guest does not run: the registers are set from outside.

use shared_abi::Hypercall;
use shared_abi::hypercall::Registers;
use vmm::next::Next;
use vmm::{Grant, GrantMode, KernelSource, Limits, Vm, VmConfig};

use super::{Words, image};

/// Calls of one input.
const MAX_CALLS: usize = 48;

pub(super) fn run(input: &[u8]) {
    let mut words = Words(input);
    let folder = tempfile::tempdir().expect("the host has room for a folder");
    std::fs::write(folder.path().join("a"), b"some text").expect("and for a file");
    let mut config = VmConfig::new(KernelSource::Bytes(image::smallest().into()));
    config.arguments = vec!["one".to_owned(), "two".to_owned()];
    config.directory = Some(Grant {
        path: folder.path().to_owned(),
        mode: GrantMode::ReadWrite,
        limits: Limits { open_files: 4, written_bytes: 1 << 16, made_files: 8 },
    });
    let mut vm = Vm::build(config).expect("this target needs /dev/kvm");
    // A text to point at: what is left of the input, at addresses that the words have.
    let _ = vm.memory().write(shared_abi::Gpa(0x1_0000), input);

    for _ in 0..MAX_CALLS {
        if words.is_empty() {
            break;
        }
        let number = u64::from(words.byte() % 40);
        let registers = Registers::new(number, &std::array::from_fn::<_, 6, _>(|_| words.word()));
        if let Ok(call) = Hypercall::decode(&registers) {
            assert_eq!(Hypercall::decode(&call.encode()), Ok(call), "a call survives");
        }
        match vm.hypercall(&registers).expect("the host can do its work") {
            Next::Resume | Next::Stand => {}
            Next::Stop(_) => break,
        }
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    // Each call once with small words, and once with addresses.
    let each = |word: u8| (0..40).flat_map(|number| [number, word, word, word, 1, 1, 1]).collect();
    vec![each(0x90), each(0x81), vec![12, 0x90, 1, 1, 0, 0, 0, b'a'], each(1)]
}
