// The whole road: real mode, protected mode, compatibility mode, long mode, and back. At each step the guest reads its
// registers and tells them; what the descriptor of CS says it reads in its GDT.
.globl mode_road, mode_road_end
.set ROAD_TABLES, 0x30000           // PML4, PDPT, PD: a page each

// TELL name, say, hex, register, call, ret: a routine that prints CR0, CR4, EFER and CS. A `call` of 16-bit code has a name
// of its own, or this assembler takes a return address of 32 bits.
.macro TELL name, say, hex, register, call=call, ret=ret
\name:
    \call \say
    .asciz "CR0 "
    mov \register, cr0
    \call \hex
    \call \say
    .asciz " CR4 "
    mov \register, cr4
    \call \hex
    \call \say
    .asciz " EFER "
    mov ecx, 0xC0000080
    rdmsr
    \call \hex
    \call \say
    .asciz " CS "
    xor eax, eax
    mov ax, cs
    \call \hex
    \call \say
    .asciz " "
    \ret
.endm

// DESCRIPTOR hex: prints the two words of CS's descriptor, the upper one first.
.macro DESCRIPTOR hex
    xor edi, edi
    mov di, cs
    mov eax, dword ptr [edi + road_table + 4]
    call \hex
    xor edi, edi
    mov di, cs
    mov eax, dword ptr [edi + road_table]
    call \hex
.endm

.code16
mode_road:
    CALL16 road_say16
    .asciz "road: real          "
    CALL16 road_tell16
    CALL16 road_say16
    .asciz "-\n"

    // To protected mode: a GDT, CR0.PE, a far jump.
    lgdt cs:[road_gdt - SEGMENT]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    FAR32 0x08, road_protected

.code32
road_protected:
    mov ax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0x80000
    call road_say32
    .asciz "road: protected     "
    call road_tell32
    DESCRIPTOR road_hex32
    call road_say32
    .asciz "\n"

    // To compatibility mode: page tables (2 MiB to itself), CR4.PAE, EFER.LME, CR0.PG. CS still is 32-bit code.
    mov dword ptr [ROAD_TABLES], ROAD_TABLES + 0x1003
    mov dword ptr [ROAD_TABLES + 0x1000], ROAD_TABLES + 0x2003
    mov dword ptr [ROAD_TABLES + 0x2000], 0x83
    mov eax, ROAD_TABLES
    mov cr3, eax
    mov eax, cr4
    or eax, 0x20                    // CR4.PAE
    mov cr4, eax
    mov ecx, 0xC0000080
    rdmsr
    or eax, 0x100                   // EFER.LME
    wrmsr
    mov eax, cr0
    or eax, 0x80000000              // CR0.PG
    mov cr0, eax
    call road_say32
    .asciz "road: compatibility "
    call road_tell32
    DESCRIPTOR road_hex32
    call road_say32
    .asciz "\n"

    // To 64-bit mode: a far jump to a code segment with L = 1.
    ljmp 0x18, offset road_long

.code64
road_long:
    call road_say64
    .asciz "road: long          "
    call road_tell64
    DESCRIPTOR road_hex64
    call road_say64
    .asciz "\n"

    // And back: 32-bit code, paging off, LME off, PAE off.
    push 0x08
    push offset road_return
    retfq

.code32
road_return:
    mov eax, cr0
    and eax, 0x7FFFFFFF             // CR0.PG
    mov cr0, eax
    mov ecx, 0xC0000080
    rdmsr
    and eax, 0xFFFFFEFF             // EFER.LME
    wrmsr
    mov eax, cr4
    and eax, 0xFFFFFFDF             // CR4.PAE
    mov cr4, eax
    call road_say32
    .asciz "road: protected     "
    call road_tell32
    DESCRIPTOR road_hex32
    call road_say32
    .asciz "\n"

    // Real mode wants segments of 64 KiB: 16-bit code first, then CR0.PE off, then a far jump.
    ljmp 0x20, offset road_16 - SEGMENT
.code16
road_16:
    mov ax, 0x28
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov eax, cr0
    and al, 0xFE                    // CR0.PE
    mov cr0, eax
    ljmp 0x1000, offset road_real - SEGMENT
road_real:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ax, 0x7000
    mov ss, ax
    mov sp, 0xFFF0
    CALL16 road_say16
    .asciz "road: real          "
    CALL16 road_tell16
    CALL16 road_say16
    .asciz "-\n"
    mov word ptr [0x400], ANSWER
    END 0x400

SAY road_say16, si
HEX road_hex16, RET16
TELL road_tell16, road_say16, road_hex16, eax, CALL16, RET16
.code32
SAY road_say32, esi
HEX road_hex32
TELL road_tell32, road_say32, road_hex32, eax
.code64
SAY road_say64, rsi
HEX road_hex64
TELL road_tell64, road_say64, road_hex64, rax

    .p2align 3
road_table:
    .quad 0
    .quad 0x00CF9A000000FFFF        // 0x08: code, 32 bits
    .quad 0x00CF92000000FFFF        // 0x10: data
    .quad 0x00AF9A000000FFFF        // 0x18: code, 64 bits
    .quad 0x00009A010000FFFF        // 0x20: code, 16 bits, base 0x10000
    .quad 0x000092000000FFFF        // 0x28: data, limit 64 KiB, as real mode has it
road_gdt:
    .word 47
    .long road_table
mode_road_end:
