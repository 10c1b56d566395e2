//! All that is done with an image before KVM is opened.

use vmm::boot::{self, kernel::KernelImage};
use vmm::memory::GuestMemory;
use vmm::{Contract, KernelSource, VmConfig};

use super::image;

pub(super) fn run(input: &[u8]) {
    for contract in [Contract::Required, Contract::None] {
        let mut config = VmConfig::new(KernelSource::Bytes(input.into()));
        config.contract = contract;
        if let Err(error) = load(&config) {
            // The sentence is a part of it.
            let _ = vmm_sentence(&error);
        }
    }
}

fn load(config: &VmConfig) -> vmm::Result<()> {
    let mut image = KernelImage::open(&config.kernel)?;
    let memory = GuestMemory::allocate(config.memory, config.backing)?;
    boot::prepare(config, &mut image, &memory).map(drop)
}

/// The error with its causes, on one line.
fn vmm_sentence(error: &dyn std::error::Error) -> String {
    let mut sentence = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        sentence.push_str(&error.to_string());
        cause = error.source();
    }
    assert!(!sentence.contains('\n'), "an error is one line: {sentence:?}");
    sentence
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    vec![image::smallest(), image::image(b"\xf4", b"")]
}
