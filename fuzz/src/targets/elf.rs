//! All that is done with an image before KVM is opened.

use shared_abi::{Gpa, Gva};
use vmm::boot::{self, kernel::KernelImage};
use vmm::memory::GuestMemory;
use vmm::{Contract, Flat, KernelSource, Start, StartMode, VmConfig};

use super::image;

pub(super) fn run(input: &[u8]) {
    let mut config = VmConfig::new(KernelSource::Bytes(input.into()));
    try_to_load(&config);
    config.contract = Contract::None;
    // What lies at the end of the input is an address, too.
    let address = input.last_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let flat = [0x7C00, address].map(|gpa| Some(Flat { load_at: Gpa(gpa), entry: Gva(gpa) }));
    for (mode, flat) in
        StartMode::ALL.into_iter().flat_map(|mode| [None, flat[0], flat[1]].map(|flat| (mode, flat)))
    {
        config.start = Start { mode, flat };
        try_to_load(&config);
    }
}

fn try_to_load(config: &VmConfig) {
    if let Err(error) = load(config) {
        // The sentence is a part of it.
        let _ = vmm_sentence(&error);
    }
}

fn load(config: &VmConfig) -> vmm::Result<()> {
    let mut image = KernelImage::open_as(&config.kernel, config.start)?;
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
