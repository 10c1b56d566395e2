//! `TinyGuest`: some bytes of machine code in an ELF file made in memory.
//!
//! The doctor and the probes of features run guests that no compiler was needed for, in the smallest machine there is.

use std::time::Duration;

use shared_abi::layout;

use crate::{Contract, KernelSource, MemorySize, Result, RunReport, Vm, VmConfig};

/// A guest of some bytes of machine code, which lie and start at [`layout::KERNEL`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct TinyGuest<'a> {
    /// The instructions.
    pub(crate) code: &'a [u8],
    /// How long they may run.
    pub(crate) timeout: Duration,
}

impl TinyGuest<'_> {
    /// Builds a machine for it: the smallest there is, in 64-bit mode, as every guest's.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn build(&self) -> Result<Vm> {
        let mut config = VmConfig::new(KernelSource::Bytes(elf_image(self.code).into()));
        config.contract = Contract::None;
        config.memory = MemorySize::new(layout::MIN_RAM_SIZE).expect("the least size is a size");
        config.timeout = Some(self.timeout);
        Vm::build(config)
    }

    /// Builds a machine for it and runs it.
    ///
    /// # Errors
    /// What the host could not do.
    pub(crate) fn run(&self) -> Result<RunReport> {
        self.build()?.run()
    }
}

/// An ELF64 executable with one segment, `code` (System V ABI, chapters 4 and 5).
fn elf_image(code: &[u8]) -> Vec<u8> {
    const ELF_HEADER_SIZE: u16 = 64;
    const PROGRAM_HEADER_SIZE: u16 = 56;
    let entry = layout::KERNEL.0.to_le_bytes();
    let code_offset = u64::from(ELF_HEADER_SIZE + PROGRAM_HEADER_SIZE).to_le_bytes();
    let code_size = (code.len() as u64).to_le_bytes();

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
    [elf_header.concat(), program_header.concat(), code.to_vec()].concat()
}
