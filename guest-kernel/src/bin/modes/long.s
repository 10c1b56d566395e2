// Long mode: the Opteron of 2003. Sixteen registers of 64 bits, and addresses of 48, of which the upper half is far away.
.globl mode_long, mode_long_end
.set LONG_MARK, 0x20000             // page 0 is not mapped, as in all our kernels
.code64
mode_long:
    mov r8, 0x100000000             // more than 32 bits hold
    mov r15, 21
    imul r15, r8                    // 21 · 2^32
    shr r15, 31
    cmp r15, ANSWER
    jne long_wrong

    // Entry 256 of the PML4 is entry 0 once more: the upper half shows the lower.
    mov rdi, cr3
    mov rax, [rdi]
    mov [rdi + 256 * 8], rax
    mov rbx, 0xFFFF800000000000 + LONG_MARK
    mov [rbx], r15
    cmp qword ptr [LONG_MARK], ANSWER
    jne long_wrong
    call long_say
    .asciz "long mode: r15 holds 64 bits, and 0xffff800000020000 is 0x20000\n"
    END LONG_MARK
long_wrong:
    hlt

SAY long_say, rsi
mode_long_end:
