// PAE paging: the Pentium Pro of 1995, with the "no execute" bit of the Opteron. Entries have 64 bits, and the highest
// forbids to fetch instructions, which no older page table could.
.globl mode_pae, mode_pae_end
.set PAE_IDT, 0x30000
.set PAE_DATA, 0x200000             // entry 1 of the first page directory
.code32
mode_pae:
    lgdt [pae_gdt]
    GATE32 14, pae_refused, PAE_IDT
    lidt [pae_idt]
    mov byte ptr [PAE_DATA], 0xC3   // ret

    // CR3 points to four pointers; the first leads to the directory of the first GiB.
    mov edi, cr3
    mov edi, dword ptr [edi]
    and edi, 0xFFFFF000
    or dword ptr [edi + 1 * 8 + 4], 0x80000000  // bit 63: no execute
    mov eax, cr3
    mov cr3, eax                    // forget what was translated before
    cmp byte ptr [PAE_DATA], 0xC3   // reading is allowed
    jne pae_wrong
    mov eax, PAE_DATA
    call eax
pae_wrong:
    hlt

// #PF. The CPU has pushed EFLAGS, CS, EIP and an error code; CR2 has the address.
pae_refused:
    pop eax
    cmp eax, 0x11                   // bit 4: a fetch; bit 0: of a page that is present
    jne pae_wrong
    mov eax, cr2
    cmp eax, PAE_DATA
    jne pae_wrong
    mov dword ptr [0x400], ANSWER
    call pae_say
    .asciz "PAE paging: 0x200000 can be read, and to fetch from it is #PF(0x11): no execute\n"
    END 0x400

SAY pae_say, esi
    .p2align 3
pae_table:
    .quad 0
    .quad 0x00CF9A000000FFFF        // 0x08: code, base 0, limit 4 GiB, 32 bits
    .quad 0x00CF92000000FFFF        // 0x10: data, the same
pae_gdt:
    .word 23
    .long pae_table
pae_idt:
    .word 15 * 8 - 1
    .long PAE_IDT
mode_pae_end:
