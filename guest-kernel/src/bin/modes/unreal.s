// Unreal mode: real mode with a limit of 4 GiB, found in the 80286's time and used by games and boot loaders since the
// 80386. The limit of a segment is in the hidden part of its register; real mode checks it and never writes it.
.globl mode_unreal, mode_unreal_end
.code16
mode_unreal:
    // Into protected mode and out again, with a selector of a large segment loaded there.
    lgdt cs:[unreal_gdt - SEGMENT]
    mov eax, cr0
    or al, 1                        // CR0.PE
    mov cr0, eax
    mov bx, 0x08
    mov ds, bx
    and al, 0xFE
    mov cr0, eax

    // Real mode again: a selector is a number times 16. The limit has stayed.
    xor bx, bx
    mov ds, bx
    mov ebx, 0x200000
    mov dword ptr [ebx], ANSWER
    cmp dword ptr [ebx], ANSWER
    jne unreal_wrong
    mov word ptr [0x400], ANSWER
    CALL16 unreal_say
    .asciz "unreal mode: 16-bit code without protection has written at 0x200000\n"
    END 0x400
unreal_wrong:
    hlt

SAY unreal_say, si
    .p2align 3
unreal_table:
    .quad 0
    .quad 0x00CF92000000FFFF        // 0x08: data, base 0, limit 4 GiB
unreal_gdt:
    .word 15
    .long unreal_table
mode_unreal_end:
