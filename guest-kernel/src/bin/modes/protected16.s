// 16-bit protected mode: the 80286 of 1982. Selectors name descriptors, with bases of 24 bits and rights; offsets still
// have 16 bits. There is no way back but a reset.
.globl mode_protected16, mode_protected16_end
.code16
mode_protected16:
    lgdt cs:[protected16_gdt - SEGMENT]
    mov ax, 1                       // MSW.PE, as the 80286 has no CR0
    lmsw ax
    ljmp 0x08, offset protected16_inside - SEGMENT
protected16_inside:
    mov ax, 0x18
    mov ss, ax                      // the stack where it was, by a descriptor
    mov ax, 0x10
    mov ds, ax
    mov word ptr [0], ANSWER        // base 0x200000, offset 0
    mov ax, 0x20
    mov ds, ax
    mov word ptr [0x400], ANSWER

    smsw ax
    test al, 1
    jz protected16_wrong
    CALL16 protected16_say
    .asciz "16-bit protected mode: selector 0x10, offset 0 is 0x200000, by a descriptor with a base of 24 bits\n"
    END 0x400
protected16_wrong:
    hlt

SAY protected16_say, si
    .p2align 3
protected16_table:                  // limit, base, rights; the upper 16 bits are 0, or the 80286 refuses
    .quad 0
    .quad 0x00009A010000FFFF        // 0x08: code, base 0x010000
    .quad 0x000092200000FFFF        // 0x10: data, base 0x200000
    .quad 0x000092070000FFFF        // 0x18: stack, base 0x070000
    .quad 0x000092000000FFFF        // 0x20: data, base 0
protected16_gdt:
    .word 39
    .long protected16_table
mode_protected16_end:
