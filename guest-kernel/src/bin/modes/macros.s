// Routines that the guests share. Each guest is cut out and runs alone, so each has copies of its own; and the same text
// assembles to 16-bit, 32-bit or 64-bit instructions, whichever the guest is at.

.set CONSOLE, 0xE9                  // port: a byte to the console
.set EXIT, 0xF4                     // port: the guest ends with this code
.set SEGMENT, 0x10000               // where real mode's segment 0x1000 starts, and all guests lie
.set ANSWER, 42

// SAY name: a routine that prints the text behind its `call`, up to a zero, and returns behind that.
.macro SAY name, pointer
\name:
    pop \pointer
2:  mov al, byte ptr cs:[\pointer]
    inc \pointer
    test al, al
    jz 3f
    out CONSOLE, al
    jmp 2b
3:  jmp \pointer
.endm

// HEX name: a routine that prints EAX in eight digits.
.macro HEX name, ret=ret
\name:
    mov ebx, eax
    mov ecx, 8
2:  rol ebx, 4
    mov al, bl
    and al, 15
    add al, 48                      // '0'
    cmp al, 58                      // behind '9' …
    jb 3f
    add al, 39                      // … comes 'a'
3:  out CONSOLE, al
    dec ecx
    jnz 2b
    \ret
.endm

// END mark: 42 in EAX, and exit code 0: the byte behind the 42 that was stored at `mark`.
.macro END mark
    mov esi, \mark + 1
    mov edx, EXIT
    mov eax, ANSWER
    outsb
    hlt
.endm

// CALL16 target, RET16: this assembler's `call` and `ret` of 16-bit code have return addresses of 32 bits, which no 8086
// knows. These are E8 and C3.
.macro CALL16 target
    .byte 0xE8
    .word \target - . - 2
.endm
.macro RET16
    .byte 0xC3
.endm

// FAR32 selector, target: a far jump of 16-bit code into 32-bit code: 66 EA, offset, selector.
.macro FAR32 selector, target
    .byte 0x66, 0xEA
    .long \target
    .word \selector
.endm

// GATE32 vector, handler, table: fills a gate of an IDT for 32-bit code (Intel SDM vol. 3A, figure 6-2).
.macro GATE32 vector, handler, table
    mov eax, offset \handler
    mov word ptr [\table + \vector * 8], ax
    mov word ptr [\table + \vector * 8 + 2], 0x08
    mov word ptr [\table + \vector * 8 + 4], 0x8E00
    shr eax, 16
    mov word ptr [\table + \vector * 8 + 6], ax
.endm
