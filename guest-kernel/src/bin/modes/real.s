// Real mode: the 8086 of 1978. Two numbers of 16 bits are an address of 20, and interrupts are far pointers at address 0.
.globl mode_real, mode_real_end
.code16
mode_real:
    // A system call, as DOS had it: vector 0x21 of the table at 0 gets offset and segment of a handler.
    mov word ptr [0x21 * 4], offset real_print - SEGMENT
    mov word ptr [0x21 * 4 + 2], cs
    int 0x21
    .asciz "real mode: hello through int 21h, by the vector table at address 0\n"

    // The same byte has many addresses: 0040:0000 is 0000:0400.
    mov ax, 0x40
    mov es, ax
    mov word ptr es:[0], ANSWER
    cmp word ptr [0x400], ANSWER
    jne real_wrong
    CALL16 real_say
    .asciz "real mode: 0040:0000 and 0000:0400 are one address\n"

    // FFFF:0510 is 0x100500: 21 bits. An 8086 has 20 address lines and gets 0x500.
    mov word ptr [0x500], 0x8086
    mov ax, 0xFFFF
    mov es, ax
    cmp word ptr es:[0x510], 0x8086
    je real_wraps
    CALL16 real_say
    .asciz "real mode: FFFF:0510 is 0x100500: line A20 is on, as nowhere before the 80286\n"
    jmp real_done
real_wraps:
    CALL16 real_say
    .asciz "real mode: FFFF:0510 is 0x500: addresses wrap at 20 bits, as on the 8086\n"
real_done:
    END 0x400
real_wrong:
    hlt

// The handler: prints the text behind the `int`, and returns behind that. The CPU has pushed IP, CS, FLAGS.
real_print:
    pop si
2:  mov al, byte ptr cs:[si]
    inc si
    test al, al
    jz 3f
    out CONSOLE, al
    jmp 2b
3:  push si
    iret

SAY real_say, si
mode_real_end:
