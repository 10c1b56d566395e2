// Compatibility mode: the Opteron of 2003. 32-bit code beside 64-bit code under one kernel: which it is, the descriptor of
// CS says, by its bit L. The same byte is another instruction then.
.globl mode_compatibility, mode_compatibility_end
.set COMPATIBILITY_MARK, 0x20000
.code64
mode_compatibility:
    lgdt [rip + compatibility_gdt]
    xor eax, eax
    .byte 0x40                      // REX, a prefix without bits …
    nop                             // … of this
    cmp eax, 0
    jne compatibility_wrong

    // `retfq` takes RIP and CS from the stack: to 32-bit code.
    push 0x18
    push offset compatibility_32
    retfq
.code32
compatibility_32:
    .byte 0x40                      // inc eax
    nop
    ljmp 0x08, offset compatibility_64
.code64
compatibility_64:
    cmp eax, 1
    jne compatibility_wrong
    mov qword ptr [COMPATIBILITY_MARK], ANSWER
    call compatibility_say
    .asciz "compatibility mode: byte 40 is a prefix in 64-bit code and inc eax in 32-bit code; to there and back\n"
    END COMPATIBILITY_MARK
compatibility_wrong:
    hlt

SAY compatibility_say, rsi
    .p2align 3
compatibility_table:
    .quad 0
    .quad 0x00AF9A000000FFFF        // 0x08: code, L = 1: 64 bits
    .quad 0x00CF92000000FFFF        // 0x10: data
    .quad 0x00CF9A000000FFFF        // 0x18: code, L = 0, D = 1: 32 bits
compatibility_gdt:
    .word 31
    .quad compatibility_table
mode_compatibility_end:
