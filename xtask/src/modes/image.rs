//! Guests cut out of the program `modes`: as flat images, or as ELF32.
//!
//! The compiler makes ELF64 for x86-64 and nothing else. What is 16-bit or 32-bit code in it lies between two symbols, at
//! the address that it was linked for. As a flat image that is all; ELF32 takes two headers more, which are written here
//! (System V ABI, Intel386 supplement, chapters 4 and 5).

use anyhow::{Context, Result};
use object::{Object, ObjectSection, ObjectSymbol};

/// The code of one guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where it goes, and starts.
    pub address: u64,
    /// The code.
    pub code: Vec<u8>,
}

/// The section with all guests.
const SECTION: &str = ".modes";

impl Image {
    /// Cuts the guest `name` out of the ELF file `program`.
    ///
    /// # Errors
    /// When it is not there.
    pub fn cut(program: &[u8], name: &str) -> Result<Self> {
        let elf = object::File::parse(program).context("the program `modes` is no ELF file")?;
        let symbol = |name: String| {
            let found =
                elf.symbol_by_name(&name).with_context(|| format!("the program has no symbol `{name}`"));
            found.map(|symbol| symbol.address())
        };
        let (address, end) = (symbol(format!("mode_{name}"))?, symbol(format!("mode_{name}_end"))?);
        let section = elf.section_by_name(SECTION).context("the program has no section of guests")?;
        let range = section.data_range(address, end.saturating_sub(address))?;
        let code = range.with_context(|| format!("`mode_{name}` lies outside its section"))?.to_vec();
        Ok(Self { address, code })
    }

    /// An ELF32 file with one segment, which may be read, written and executed.
    #[must_use]
    pub fn to_elf32(&self) -> Vec<u8> {
        const HEADER_SIZE: u16 = 52;
        const PROGRAM_HEADER_SIZE: u16 = 32;
        let word = |number: u64| (number as u32).to_le_bytes();
        let (address, size) = (word(self.address), word(self.code.len() as u64));
        let elf_header = [
            b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".as_slice(), // e_ident: 32 bits, little-endian
            &[2, 0, 3, 0, 1, 0, 0, 0],                           // e_type EXEC, e_machine 386, e_version
            &address,                                            // e_entry
            &u32::from(HEADER_SIZE).to_le_bytes(),               // e_phoff: right behind this header
            &[0; 4 + 4],                                         // e_shoff, e_flags
            &HEADER_SIZE.to_le_bytes(),                          // e_ehsize
            &PROGRAM_HEADER_SIZE.to_le_bytes(),                  // e_phentsize
            &[1, 0],                                             // e_phnum
            &[0; 2 + 2 + 2],                                     // e_shentsize, e_shnum, e_shstrndx
        ];
        let program_header = [
            [1, 0, 0, 0].as_slice(),                                     // p_type LOAD
            &u32::from(HEADER_SIZE + PROGRAM_HEADER_SIZE).to_le_bytes(), // p_offset
            &address,                                                    // p_vaddr
            &address,                                                    // p_paddr
            &size,                                                       // p_filesz
            &size,                                                       // p_memsz
            &[7, 0, 0, 0],                                               // p_flags RWX
            &[0; 4],                                                     // p_align: none
        ];
        [elf_header.concat(), program_header.concat(), self.code.clone()].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_elf32_file_says_where_its_code_goes() {
        let image = Image { address: 0x1_0000, code: vec![0xF4; 3] };
        let file = image.to_elf32();
        let elf = object::read::elf::ElfFile32::<object::Endianness>::parse(&*file).expect("it is ELF32");
        assert_eq!(elf.entry(), 0x1_0000);
        let segment = object::Object::segments(&elf).next().expect("it has a segment");
        assert_eq!(object::ObjectSegment::address(&segment), 0x1_0000);
        assert_eq!(object::ObjectSegment::data(&segment).expect("its bytes"), [0xF4; 3]);
    }
}
