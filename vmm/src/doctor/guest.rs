//! The smallest guest: three instructions in an ELF file made in memory, run to see whether this host can.

use std::error::Error as _;
use std::iter;
use std::time::{Duration, Instant};

use shared_abi::{layout, ports};

use crate::{Contract, Error, KernelSource, MemorySize, StopReason, Vm, VmConfig};

/// What the smallest guest ends with.
pub(super) const EXIT_CODE: u8 = 42;

/// More than any host needs that works at all: a nested one takes milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

const CODE: [[u8; 2]; 3] = [
    [0xB0, EXIT_CODE],         // mov al, 42
    [0xE6, ports::EXIT as u8], // out 0xF4, al
    [0xEB, 0xFE],              // jmp $: never reached, as the run ends above
];

/// How the smallest guest fared.
#[derive(Clone, Debug)]
pub(super) enum GuestFacts {
    /// It ran, and stopped for this reason. The time is that of building, running and stopping.
    Ran { stop: StopReason, time: Duration },
    /// It did not: what the host could not do.
    Failed(String),
}

/// Builds a machine for the smallest guest and runs it.
pub(super) fn run() -> GuestFacts {
    let start = Instant::now();
    match build_and_run() {
        Ok(stop) => GuestFacts::Ran { stop, time: start.elapsed() },
        Err(error) => GuestFacts::Failed(with_causes(&error)),
    }
}

fn build_and_run() -> crate::Result<StopReason> {
    let mut config = VmConfig::new(KernelSource::Bytes(elf_image().into()));
    config.contract = Contract::None;
    config.memory = MemorySize::new(layout::MIN_RAM_SIZE).expect("the least size is a size");
    config.timeout = Some(TIMEOUT);
    Ok(Vm::build(config)?.run()?.stop)
}

/// An ELF64 executable with one segment, `CODE` (System V ABI, chapters 4 and 5).
fn elf_image() -> Vec<u8> {
    const ELF_HEADER_SIZE: u16 = 64;
    const PROGRAM_HEADER_SIZE: u16 = 56;
    let entry = layout::KERNEL.0.to_le_bytes();
    let code_offset = u64::from(ELF_HEADER_SIZE + PROGRAM_HEADER_SIZE).to_le_bytes();
    let code_size = (size_of_val(&CODE) as u64).to_le_bytes();

    let elf_header = [
        b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".as_slice(), // e_ident: 64 bits, little-endian
        &[2, 0, 62, 0, 1, 0, 0, 0],                          // e_type EXEC, e_machine x86-64, e_version
        &entry,                                              // e_entry
        &u64::from(ELF_HEADER_SIZE).to_le_bytes(),           // e_phoff: right behind this header
        &[0; 8 + 4],                                         // e_shoff, e_flags
        &ELF_HEADER_SIZE.to_le_bytes(),                      // e_ehsize
        &PROGRAM_HEADER_SIZE.to_le_bytes(),                  // e_phentsize
        &[1, 0],                                             // e_phnum
        &[0; 2 + 2 + 2],                                     // e_shentsize, e_shnum, e_shstrndx
    ];
    let program_header = [
        [1, 0, 0, 0, 5, 0, 0, 0].as_slice(), // p_type LOAD, p_flags R+X
        &code_offset,                        // p_offset
        &entry,                              // p_vaddr
        &entry,                              // p_paddr
        &code_size,                          // p_filesz
        &code_size,                          // p_memsz
        &[0; 8],                             // p_align: none
    ];
    [elf_header.concat(), program_header.concat(), CODE.concat()].concat()
}

/// The error and its causes on one line.
fn with_causes(error: &Error) -> String {
    let causes = iter::successors(error.source(), |&cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_guest_ends_with_its_code_on_this_host() {
        let facts = run();
        let GuestFacts::Ran { stop, .. } = &facts else {
            panic!("this test needs /dev/kvm: {facts:?}");
        };
        assert_eq!(*stop, StopReason::Exited { code: u32::from(EXIT_CODE) });
    }

    #[test]
    fn an_error_is_told_with_its_causes() {
        let error = Error::OpenKvm(std::io::Error::from_raw_os_error(libc::EACCES));
        assert_eq!(with_causes(&error), "cannot open /dev/kvm: Permission denied (os error 13)");
    }
}
