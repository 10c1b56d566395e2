// 32-bit paging: the 80386 of 1985, with the 4 MiB pages of the Pentium. The host has mapped everything to itself in
// such pages; this guest maps two places more, one in a page of each size.
.globl mode_paged32, mode_paged32_end
.set PAGED32_PT, 0x30000            // a page table of our own
.code32
mode_paged32:
    mov edi, cr3
    // 0x800000, entry 2 of the page directory: to a page table, whose first page is the one at 0.
    mov dword ptr [PAGED32_PT], 0x00000003      // page 0: R/W, P
    mov dword ptr [edi + 2 * 4], PAGED32_PT + 3 // table: R/W, P
    // 0xC0000000, entry 768: the first 4 MiB once more.
    mov dword ptr [edi + 768 * 4], 0x00000083   // page 0: PS, R/W, P
    mov cr3, edi                    // forget what was translated before

    mov eax, 0x800400
    mov dword ptr [eax], ANSWER
    mov eax, 0xC0000400
    cmp dword ptr [eax], ANSWER
    jne paged32_wrong
    cmp dword ptr [0x400], ANSWER
    jne paged32_wrong
    call paged32_say
    .asciz "32-bit paging: 0x800400 (a page of 4 KiB) and 0xc0000400 (a page of 4 MiB) are both 0x400\n"
    END 0x400
paged32_wrong:
    hlt

SAY paged32_say, esi
mode_paged32_end:
