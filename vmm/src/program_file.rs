//! Where constants of this program lie in its own file, so that guest RAM can map them instead of taking a copy.
//!
//! A constant is bytes of the file that the host's kernel has mapped to run the program: whoever maps them once more, privately,
//! shares the very same pages and takes none of his own until he writes. The kernel tells every program where its headers are
//! (getauxval(3): AT_PHDR), and they say which part of the file is which memory (ELF specification, "Program Header").

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::slice;

use libc::{Elf64_Ehdr, Elf64_Phdr, PF_W, PT_LOAD};

/// Opens the file, and tells where in it `constant` lies. `None` when it is no constant of this file, when there is no /proc,
/// and when the file says otherwise: a program may be started by another, such as a packer or a dynamic linker.
pub(crate) fn find(constant: &[u8]) -> Option<(File, u64)> {
    let offset = offset_of(constant)?;
    let file = File::open("/proc/self/exe").ok()?;
    // The end: so the file is as long as it should be, too. To look at all of it would take as long as to copy it.
    let end: &[u8; WORD] = constant.last_chunk()?;
    let mut read = [0; WORD];
    file.read_exact_at(&mut read, offset + (constant.len() - WORD) as u64).ok()?;
    (read == *end).then_some((file, offset))
}

/// Bytes of a constant that are compared.
const WORD: usize = 8;

/// Where the headers say that memory which nobody can write to comes from.
fn offset_of(constant: &[u8]) -> Option<u64> {
    let headers = program_headers()?;
    let parts = || headers.iter().filter(|header| header.p_type == PT_LOAD);
    // The part that begins where the file does tells how far memory is from where the file would have it.
    let start = headers.as_ptr() as u64 - size_of::<Elf64_Ehdr>() as u64;
    let shift = start.wrapping_sub(parts().find(|part| part.p_offset == 0)?.p_vaddr);
    let address = (constant.as_ptr() as u64).wrapping_sub(shift);
    let part = parts().filter(|part| part.p_flags & PF_W == 0).find(|part| {
        part.p_vaddr <= address && address + constant.len() as u64 <= part.p_vaddr + part.p_filesz
    })?;
    Some(address - part.p_vaddr + part.p_offset)
}

fn program_headers() -> Option<&'static [Elf64_Phdr]> {
    // SAFETY: The call reads what the kernel told this process at its start, and touches nothing else.
    let told = |of| unsafe { libc::getauxval(of) } as usize;
    let (headers, count) = (told(libc::AT_PHDR), told(libc::AT_PHNUM));
    if headers == 0 || told(libc::AT_PHENT) != size_of::<Elf64_Phdr>() {
        return None;
    }
    // SAFETY: The kernel has mapped so many headers there, aligned as in the file; they are the program's own, nobody writes
    // to them or unmaps them while it runs.
    Some(unsafe { slice::from_raw_parts(headers as *const Elf64_Phdr, count) })
}

#[cfg(test)]
mod tests {
    use super::*;

    static CONSTANT: [u8; 32] = *b"bytes that only this file holds!";

    #[test]
    fn a_constant_is_found_in_the_file() {
        let (file, offset) = find(&CONSTANT).expect("tests have a /proc");
        let mut read = [0; CONSTANT.len()];
        file.read_exact_at(&mut read, offset).expect("it is there");
        assert_eq!(read, CONSTANT);
    }

    #[test]
    fn what_can_be_written_to_or_is_made_later_is_not() {
        static MUTABLE: std::sync::Mutex<[u8; 32]> = std::sync::Mutex::new([1; 32]);
        let made = CONSTANT.to_vec();
        let mutable = MUTABLE.lock().expect("nobody else has it");
        assert!(find(&made).is_none() && find(&mutable[..]).is_none() && find(&[]).is_none());
    }
}
