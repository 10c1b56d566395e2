// Five levels of page tables: Ice Lake of 2019. Addresses have 57 bits instead of 48. CR4.LA57 can be set only while
// paging is off, so this guest starts in protected mode and makes its tables itself.
.globl mode_la57, mode_la57_end
.set LA57_TABLES, 0x30000           // PML5, PML4, PDPT, PD: a page each
.code32
mode_la57:
    lgdt [la57_gdt]
    mov dword ptr [LA57_TABLES], LA57_TABLES + 0x1003
    mov dword ptr [LA57_TABLES + 4 * 8], LA57_TABLES + 0x1003   // entry 4: from 2^50 on, the same once more
    mov dword ptr [LA57_TABLES + 0x1000], LA57_TABLES + 0x2003
    mov dword ptr [LA57_TABLES + 0x2000], LA57_TABLES + 0x3003
    mov dword ptr [LA57_TABLES + 0x3000], 0x83
    mov eax, LA57_TABLES
    mov cr3, eax
    mov eax, cr4
    or eax, 0x1020                  // CR4.LA57, CR4.PAE
    mov cr4, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100                   // EFER.LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000000              // CR0.PG
    mov cr0, eax
    ljmp 0x08, offset la57_long
.code64
la57_long:
    mov rax, 0x4000000000000        // 2^50: no address for four levels
    mov dword ptr [rax + 0x400], ANSWER
    cmp dword ptr [0x400], ANSWER
    jne la57_wrong
    call la57_say
    .asciz "5-level paging: 0x4000000000400 is an address, and leads to 0x400\n"
    END 0x400
la57_wrong:
    hlt

SAY la57_say, rsi
    .p2align 3
la57_table:
    .quad 0
    .quad 0x00AF9A000000FFFF        // 0x08: code, 64 bits
la57_gdt:
    .word 15
    .long la57_table
mode_la57_end:
