// Virtual-8086 mode: the 80386 of 1985. 16-bit code of DOS's days runs as a task of ring 3; what it may not do itself
// ends in a monitor, which does it in its place. Here that is `int 21h`.
.globl mode_v86, mode_v86_end
.set V86_IDT, 0x30000
.set V86_TSS, 0x31000
.set V86_STACK, 0x34000             // the monitor's, while the task runs
.code32
mode_v86:
    lgdt [v86_gdt]
    GATE32 13, v86_monitor, V86_IDT
    lidt [v86_idt]
    mov dword ptr [V86_TSS + 4], V86_STACK      // ESP0
    mov dword ptr [V86_TSS + 8], 0x10           // SS0
    mov ax, 0x18
    ltr ax

    // Into the task: an `iretd` whose EFLAGS have VM set takes nine words (Intel SDM vol. 3B, 21.2.5).
    push 0                          // GS
    push 0                          // FS
    push 0x1000                     // DS
    push 0                          // ES
    push 0x7000                     // SS
    push 0xFFF0                     // ESP
    push 0x20002                    // EFLAGS: VM, and IOPL 0, so that `int n` is not the task's to do
    push 0x1000                     // CS
    mov eax, offset v86_task - SEGMENT
    push eax                        // EIP
    iretd

// #GP: the task has met something that is not its to do. The CPU has pushed what `iretd` took, and an error code.
v86_monitor:
    add esp, 4                      // the error code
    movzx ebx, word ptr [esp + 4]   // CS
    shl ebx, 4
    add ebx, dword ptr [esp]        // EIP
    cmp word ptr [ebx], 0x21CD      // int 21h
    je v86_print
    cmp word ptr [ebx], 0x20CD      // int 20h
    je v86_done
    hlt

// Function 9 of DOS: prints the text at DS:DX up to a `$`.
v86_print:
    add dword ptr [esp], 2          // behind the `int`
    movzx esi, word ptr [esp + 24]  // DS
    shl esi, 4
    movzx edx, dx
    add esi, edx
2:  lodsb
    cmp al, 36                      // '$'
    je 3f
    out CONSOLE, al
    jmp 2b
3:  iretd

v86_done:
    call v86_say
    .asciz "virtual-8086 mode: its monitor in ring 0 has emulated int 21h and int 20h\n"
    mov dword ptr [0x400], ANSWER
    END 0x400

SAY v86_say, esi

// The task. It could run on the DOS of 1981.
.code16
v86_task:
    mov ah, 9
    mov dx, offset v86_text - SEGMENT
    int 0x21
    int 0x20
v86_text:
    .ascii "virtual-8086 mode: hello from a DOS program, by int 21h\n$"

    .p2align 3
v86_table:
    .quad 0
    .quad 0x00CF9A000000FFFF        // 0x08: code, base 0, limit 4 GiB, 32 bits
    .quad 0x00CF92000000FFFF        // 0x10: data, the same
    .quad 0x0000890310000067        // 0x18: TSS of 32 bits, base 0x31000
v86_gdt:
    .word 31
    .long v86_table
v86_idt:
    .word 14 * 8 - 1
    .long V86_IDT
mode_v86_end:
