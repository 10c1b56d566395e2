// 32-bit protected mode: the 80386 of 1985. Offsets of 32 bits, so one segment can be all memory; and what the rules
// forbid ends in a handler.
.globl mode_protected, mode_protected_end
.set PROTECTED_IDT, 0x30000
.code32
mode_protected:
    lgdt [protected_gdt]
    GATE32 13, protected_refused, PROTECTED_IDT
    lidt [protected_idt]
    call protected_say
    .asciz "32-bit protected mode: hello, all of memory in one segment\n"

    // A selector that no descriptor stands for. Real mode would take any number.
    mov ax, 0x40
    mov fs, ax
    hlt                             // not reached

// #GP. The CPU has pushed EFLAGS, CS, EIP and an error code, which is the selector.
protected_refused:
    pop eax
    cmp eax, 0x40
    jne protected_wrong
    mov dword ptr [0x400], ANSWER
    call protected_say
    .asciz "32-bit protected mode: selector 0x40 is refused with #GP(0x40)\n"
    END 0x400
protected_wrong:
    hlt

SAY protected_say, esi
    .p2align 3
protected_table:
    .quad 0
    .quad 0x00CF9A000000FFFF        // 0x08: code, base 0, limit 4 GiB, 32 bits
    .quad 0x00CF92000000FFFF        // 0x10: data, the same
protected_gdt:
    .word 23
    .long protected_table
protected_idt:
    .word 14 * 8 - 1
    .long PROTECTED_IDT
mode_protected_end:
