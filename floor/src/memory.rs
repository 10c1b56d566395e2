//! Guest RAM: the image, its page tables and the boot information in one `mmap`.

use core::ffi::CStr;

use shared_abi::BootInfo;
use shared_abi::boot_info::{RamRegion, ram_regions};
use shared_abi::{Gpa, layout};

use crate::checked;

/// RAM of every machine here: what the VMM has by default.
pub(crate) const SIZE: usize = 16 << 20;

/// RAM with a guest in it.
pub(crate) struct Memory {
    /// Where it lies in this process.
    pub(crate) hva: *mut u8,
    /// Where the guest starts.
    pub(crate) entry: u64,
}

impl Memory {
    /// Maps RAM and fills it.
    pub(crate) fn load(path: &CStr) -> Self {
        // SAFETY: Plain system calls; a new mapping touches no existing memory.
        let (hva, file) = unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
            let hva =
                libc::mmap(core::ptr::null_mut(), SIZE, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0);
            checked(hva as i64, c"mmap of RAM");
            (hva.cast::<u8>(), libc::open(path.as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC))
        };
        checked(file.into(), c"open of the image");
        let mut memory = Self { hva, entry: 0 };
        memory.read_image(file);
        memory.write_page_tables();
        memory.write_boot_info();
        memory
    }

    /// Reads the segments to where the program headers want them. ELF-64 Object File Format, figures 2 and 6.
    fn read_image(&mut self, file: i32) {
        let mut headers = [0_u8; 1024];
        // SAFETY: Reads at most as many bytes as there is room for.
        let size = unsafe { libc::pread(file, headers.as_mut_ptr().cast(), headers.len(), 0) };
        checked(size as i64, c"read of the image");
        let word = |at: usize| u64::from_le_bytes(headers[at..at + 8].try_into().expect("eight bytes"));
        let half = |at: usize| usize::from(u16::from_le_bytes([headers[at], headers[at + 1]]));
        self.entry = word(24);
        let (start, header_size, count) = (word(32) as usize, half(54), half(56));
        for header in (0..count).map(|index| start + index * header_size) {
            let is_loaded = headers[header] == 1;
            let (offset, gpa, size) = (word(header + 8), word(header + 24) as usize, word(header + 32));
            if is_loaded && gpa + size as usize <= SIZE {
                // SAFETY: The range is RAM, as just seen.
                let read =
                    unsafe { libc::pread(file, self.hva.add(gpa).cast(), size as usize, offset as i64) };
                checked(read as i64, c"read of a segment");
            }
        }
    }

    /// Maps RAM to itself by pages of 2 MiB that allow everything: three tables.
    fn write_page_tables(&self) {
        const PRESENT_WRITABLE: u64 = 0b11;
        const LARGE: u64 = 1 << 7;
        let pml4 = layout::LOW_PAGE_TABLES.0;
        self.write(pml4, (pml4 + 0x1000) | PRESENT_WRITABLE);
        self.write(pml4 + 0x1000, (pml4 + 0x2000) | PRESENT_WRITABLE);
        for page in 0..(SIZE >> 21) as u64 {
            self.write(pml4 + 0x2000 + page * 8, (page << 21) | PRESENT_WRITABLE | LARGE);
        }
    }

    fn write_boot_info(&self) {
        let none = RamRegion::new(Gpa(0), Gpa(0));
        let info = BootInfo {
            magic: BootInfo::MAGIC,
            version: BootInfo::VERSION,
            ram: ram_regions(SIZE as u64),
            image: none,
            page_tables: none,
            arguments: none,
            vcpu_count: 1,
            hypercalls: 0,
            interrupts: 0,
            tsc_khz: 0,
        };
        // SAFETY: The page of the boot info is RAM, and aligned.
        unsafe { self.hva.add(layout::BOOT_INFO.0 as usize).cast::<BootInfo>().write(info) };
    }

    fn write(&self, gpa: u64, word: u64) {
        // SAFETY: The page tables lie in RAM, in whole words.
        unsafe { self.hva.add(gpa as usize).cast::<u64>().write(word) };
    }
}
