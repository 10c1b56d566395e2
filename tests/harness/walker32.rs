//! Page walkers of 32-bit code: what the CPU does with two levels and with three, read from the manual and not from the
//! VMM (Intel SDM vol. 3A, 4.3 and 4.4; `EFER.NXE` = 1).
//!
//! Written out step by step, with no table of levels, so that they share no idea with `vmm/src/page_walk/`.

/// Where an address leads, and what may be done there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    pub(crate) gpa: u64,
    pub(crate) size: u64,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    pub(crate) user: bool,
}

/// Two levels; `pse` is CR4.PSE, `read` gives the 32-bit word at a guest-physical address.
pub(crate) fn two_levels(cr3: u64, pse: bool, gva: u32, read: impl Fn(u64) -> Option<u32>) -> Option<Page> {
    let gva = u64::from(gva);
    let directory = cr3 & 0xFFFF_F000;
    let pde = u64::from(read(directory + (gva >> 22) * 4)?);
    if pde & 1 == 0 {
        return None;
    }
    let (pde_writes, pde_is_user) = (pde & 2 != 0, pde & 4 != 0);
    if pse && pde & 0x80 != 0 {
        if pde & 0x20_0000 != 0 {
            return None;
        }
        // Bits 39 to 32 of the page's address are bits 20 to 13 of the entry.
        let page = (pde & 0xFFC0_0000) + ((pde & 0x1F_E000) << 19);
        let gpa = page + (gva & 0x3F_FFFF);
        return Some(Page { gpa, size: 4 << 20, writable: pde_writes, executable: true, user: pde_is_user });
    }
    let table = pde & 0xFFFF_F000;
    let pte = u64::from(read(table + (gva >> 12 & 0x3FF) * 4)?);
    if pte & 1 == 0 {
        return None;
    }
    Some(Page {
        gpa: (pte & 0xFFFF_F000) + (gva & 0xFFF),
        size: 4096,
        writable: pde_writes && pte & 2 != 0,
        executable: true,
        user: pde_is_user && pte & 4 != 0,
    })
}

/// Three levels; `read` gives the 64-bit word at a guest-physical address.
pub(crate) fn three_levels(cr3: u64, gva: u32, read: impl Fn(u64) -> Option<u64>) -> Option<Page> {
    const ADDRESS: u64 = 0xF_FFFF_FFFF_F000;
    const NX: u64 = 1 << 63;
    let gva = u64::from(gva);
    let pdpte = read((cr3 & 0xFFFF_FFE0) + (gva >> 30) * 8)?;
    // Of the low bits only P, PWT, PCD and three for software may be set; NX never.
    if pdpte & 1 == 0 || pdpte & 0x1E6 != 0 || pdpte & NX != 0 {
        return None;
    }
    let pde = read((pdpte & ADDRESS) + (gva >> 21 & 0x1FF) * 8)?;
    if pde & 1 == 0 {
        return None;
    }
    let (pde_writes, pde_is_user, pde_executes) = (pde & 2 != 0, pde & 4 != 0, pde & NX == 0);
    if pde & 0x80 != 0 {
        // Between PAT in bit 12 and the page's address nothing may be set.
        if pde & 0x1F_E000 != 0 {
            return None;
        }
        let gpa = (pde & ADDRESS & !0x1F_FFFF) + (gva & 0x1F_FFFF);
        let size = 2 << 20;
        return Some(Page { gpa, size, writable: pde_writes, executable: pde_executes, user: pde_is_user });
    }
    let pte = read((pde & ADDRESS) + (gva >> 12 & 0x1FF) * 8)?;
    if pte & 1 == 0 {
        return None;
    }
    Some(Page {
        gpa: (pte & ADDRESS) + (gva & 0xFFF),
        size: 4096,
        writable: pde_writes && pte & 2 != 0,
        executable: pde_executes && pte & NX == 0,
        user: pde_is_user && pte & 4 != 0,
    })
}
