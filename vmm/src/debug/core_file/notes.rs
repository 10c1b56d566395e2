//! The notes of a core file: registers, name and signal, in the layouts that Linux has for a process on x86-64.
//!
//! A guest is no process and got no signal, but debuggers print one; [`signal`] chooses those that say the same. What has
//! no place in a process, such as the control registers, stands as text in a note of our own: `readelf --notes` shows
//! that it is there, and `strings` what it says.

use std::iter;

use kvm_bindings::{kvm_fpu, kvm_regs, kvm_sregs};
use object::LittleEndian;
use object::elf::{ELF_NOTE_CORE, NT_FPREGSET, NT_PRPSINFO, NT_PRSTATUS, NoteHeader64, NoteType};
use object::{U32, pod};
use shared_abi::exception::Vector;
use shared_abi::{ExceptionFrame, exit_code};

use crate::cpus::VcpuId;
use crate::debug::CpuState;
use crate::next::StopReason;
use crate::report::RunReport;
use crate::vm::Vm;

/// The type of our own note, which is text; small numbers would be taken for Linux's.
const TEXT: NoteType = NoteType(u32::from_le_bytes(*b"Duet"));

/// The number of the process that its threads are of.
const PROCESS: u32 = 1;

/// A vCPU as a debugger sees it: a thread.
pub(super) struct Thread {
    /// Which vCPU.
    pub(super) vcpu: VcpuId,
    /// Its registers.
    pub(super) cpu: CpuState,
    /// x87 and SSE.
    pub(super) fpu: kvm_fpu,
}

impl Thread {
    /// The number that a debugger shows; 0 would be no thread.
    fn number(&self) -> u32 {
        u32::from(self.vcpu.number()) + 1
    }
}

/// All notes, one behind the other. The first of the threads is the one that a debugger starts with; it got the signal.
pub(super) fn notes(vm: &Vm, first: &Thread, others: &[Thread], report: &RunReport) -> Vec<u8> {
    let mut notes = Vec::new();
    // The name first: a debugger compares it with the image's before anything else.
    add(&mut notes, ELF_NOTE_CORE, NT_PRPSINFO, &process(vm));
    let signals = iter::once(signal(&report.stop)).chain(iter::repeat(0));
    for (thread, signal) in iter::once(first).chain(others).zip(signals) {
        add(&mut notes, ELF_NOTE_CORE, NT_PRSTATUS, &status(thread, signal));
        add(&mut notes, ELF_NOTE_CORE, NT_FPREGSET, &fpu_registers(&thread.fpu));
    }
    add(&mut notes, b"Duet", TEXT, text(&first.cpu, report).as_bytes());
    notes
}

/// Adds a note: sizes, type, name with a NUL, contents; both padded to 4 bytes (System V ABI, chapter 5).
fn add(notes: &mut Vec<u8>, owner: &[u8], kind: NoteType, contents: &[u8]) {
    let header = NoteHeader64 {
        n_namesz: U32::new(LittleEndian, owner.len() as u32 + 1),
        n_descsz: U32::new(LittleEndian, contents.len() as u32),
        n_type: U32::new(LittleEndian, kind),
    };
    notes.extend(pod::bytes_of(&header));
    notes.extend(owner);
    notes.push(0);
    notes.resize(notes.len().next_multiple_of(4), 0);
    notes.extend(contents);
    notes.resize(notes.len().next_multiple_of(4), 0);
}

/// The Linux signal that says of a process what `stop` says of a guest; 0 when it just ended.
pub(in crate::debug) fn signal(stop: &StopReason) -> u16 {
    let signal = match stop {
        StopReason::Exited { code: exit_code::PANICKED } => libc::SIGABRT,
        StopReason::Exception(frame) => signal_of(frame),
        StopReason::TripleFault => libc::SIGSEGV,
        StopReason::UnclaimedPort { .. } | StopReason::UnclaimedMmio { .. } => libc::SIGBUS,
        StopReason::EmulationFailure(_) => libc::SIGILL,
        StopReason::TimedOut { .. } => libc::SIGXCPU,
        StopReason::Interrupted
        | StopReason::Paused
        | StopReason::SnapshotAsked
        | StopReason::DebuggerLeft { .. } => libc::SIGINT,
        StopReason::Debug(_) => libc::SIGTRAP,
        StopReason::EntryFailed { .. }
        | StopReason::InternalError { .. }
        | StopReason::RunFailed { .. }
        | StopReason::Unknown { .. } => libc::SIGKILL,
        StopReason::Exited { .. } | StopReason::Halted { .. } | StopReason::ConsoleClosed => 0,
    };
    signal as u16
}

/// The signal that Linux sends to a process for an exception (Linux arch/x86/kernel/traps.c).
fn signal_of(frame: &ExceptionFrame) -> libc::c_int {
    match frame.vector() {
        Some(Vector::DivideError | Vector::X87FloatingPoint | Vector::SimdFloatingPoint) => libc::SIGFPE,
        Some(Vector::Debug | Vector::Breakpoint) => libc::SIGTRAP,
        Some(Vector::InvalidOpcode) => libc::SIGILL,
        Some(Vector::AlignmentCheck | Vector::StackSegmentFault | Vector::SegmentNotPresent) => libc::SIGBUS,
        _ => libc::SIGSEGV,
    }
}

/// `struct elf_prstatus`: signal, thread, general registers.
fn status(thread: &Thread, signal: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(STATUS_SIZE);
    bytes.extend(u32::from(signal).to_le_bytes()); // pr_info.si_signo
    bytes.extend([0; 8]); // si_code, si_errno
    bytes.extend(signal.to_le_bytes()); // pr_cursig
    bytes.resize(32, 0); // signals pending and held
    bytes.extend(thread.number().to_le_bytes()); // pr_pid
    bytes.resize(112, 0); // parent, group, session; four times
    for register in registers(&thread.cpu.general, &thread.cpu.special) {
        bytes.extend(register.to_le_bytes());
    }
    bytes.extend(1_u32.to_le_bytes()); // pr_fpvalid
    bytes.resize(STATUS_SIZE, 0);
    bytes
}

const STATUS_SIZE: usize = 336;

/// `struct user_regs_struct`.
fn registers(general: &kvm_regs, special: &kvm_sregs) -> [u64; 27] {
    let kvm_regs { rax, rbx, rcx, rdx, rsi, rdi, rsp, rbp, r8, r9, r10, r11, r12, r13, r14, r15, .. } =
        *general;
    let kvm_sregs { cs, ss, ds, es, fs, gs, .. } = *special;
    // No system call was interrupted.
    let orig_rax = u64::MAX;
    [
        r15,
        r14,
        r13,
        r12,
        rbp,
        rbx,
        r11,
        r10,
        r9,
        r8,
        rax,
        rcx,
        rdx,
        rsi,
        rdi,
        orig_rax,
        general.rip,
        cs.selector.into(),
        general.rflags,
        rsp,
        ss.selector.into(),
        fs.base,
        gs.base,
        ds.selector.into(),
        es.selector.into(),
        fs.selector.into(),
        gs.selector.into(),
    ]
}

/// `struct user_fpregs_struct`, which is what FXSAVE writes (Intel SDM vol. 1, table 10-2).
fn fpu_registers(fpu: &kvm_fpu) -> Vec<u8> {
    const SIZE: usize = 512;
    let mut bytes = Vec::with_capacity(SIZE);
    bytes.extend(fpu.fcw.to_le_bytes());
    bytes.extend(fpu.fsw.to_le_bytes());
    bytes.extend([fpu.ftwx, 0]);
    bytes.extend(fpu.last_opcode.to_le_bytes());
    bytes.extend(fpu.last_ip.to_le_bytes());
    bytes.extend(fpu.last_dp.to_le_bytes());
    bytes.extend(fpu.mxcsr.to_le_bytes());
    bytes.extend([0; 4]); // MXCSR_MASK: the default
    bytes.extend(fpu.fpr.as_flattened());
    bytes.extend(fpu.xmm.as_flattened());
    bytes.resize(SIZE, 0);
    bytes
}

/// `struct elf_prpsinfo`: what ran, and with which arguments.
fn process(vm: &Vm) -> Vec<u8> {
    const SIZE: usize = 136;
    /// Each with a NUL at its end.
    const NAME_SIZE: usize = 16;
    const COMMAND_SIZE: usize = 80;
    let name = vm.image().path().file_name().unwrap_or_default().as_encoded_bytes();
    let arguments: Vec<_> = vm.arguments().strip_suffix(b"\0").unwrap_or_default().to_vec();
    let arguments: Vec<_> = arguments.iter().map(|&byte| if byte == 0 { b' ' } else { byte }).collect();
    let command = [name, &arguments].join(&b' ');

    let mut bytes = vec![0; 24]; // state, nice, flags, user, group
    bytes.extend(PROCESS.to_le_bytes()); // pr_pid
    bytes.resize(40, 0); // parent, group, session
    bytes.extend(name.iter().take(NAME_SIZE - 1));
    bytes.resize(40 + NAME_SIZE, 0);
    bytes.extend(command.iter().take(COMMAND_SIZE - 1));
    bytes.resize(SIZE, 0);
    bytes
}

/// What debuggers do not show.
fn text(cpu: &CpuState, report: &RunReport) -> String {
    let kvm_sregs { cr0, cr2, cr3, cr4, efer, gdt, idt, .. } = cpu.special;
    format!(
        "{report}\nCR0 {cr0:#x} CR2 {cr2:#x} CR3 {cr3:#x} CR4 {cr4:#x} EFER {efer:#x}\n\
         GDT {:#x} limit {:#x} IDT {:#x} limit {:#x}\n",
        gdt.base, gdt.limit, idt.base, idt.limit
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_lie_where_linux_has_them() {
        let mut cpu = CpuState::default();
        (cpu.general.rip, cpu.general.rsp, cpu.general.r15) = (0x1111, 0x2222, 0x3333);
        cpu.special.cs.selector = 8;
        let thread = Thread { vcpu: VcpuId::FIRST, cpu, fpu: kvm_fpu::default() };
        let status = status(&thread, 11);

        assert_eq!(status.len(), size_of::<libc::user_regs_struct>() + 120);
        let word = |offset: usize| {
            let bytes = status.get(112 + offset..).and_then(<[u8]>::first_chunk).expect("inside");
            u64::from_le_bytes(*bytes)
        };
        assert_eq!(word(std::mem::offset_of!(libc::user_regs_struct, rip)), 0x1111);
        assert_eq!(word(std::mem::offset_of!(libc::user_regs_struct, rsp)), 0x2222);
        assert_eq!(word(std::mem::offset_of!(libc::user_regs_struct, r15)), 0x3333);
        assert_eq!(word(std::mem::offset_of!(libc::user_regs_struct, cs)), 8);
        assert_eq!(status.get(12), Some(&11), "pr_cursig");
    }

    #[test]
    fn the_fpu_is_written_as_fxsave_does() {
        let mut fpu = kvm_fpu { fcw: 0x037F, mxcsr: 0x1F80, ..kvm_fpu::default() };
        fpu.xmm[15] = [0xAB; 16];
        let bytes = fpu_registers(&fpu);
        assert_eq!(bytes.len(), size_of::<libc::user_fpregs_struct>());
        assert_eq!(bytes.get(24..28), Some(&[0x80, 0x1F, 0, 0][..]));
        assert_eq!(bytes.get(160 + 15 * 16..160 + 16 * 16), Some(&[0xAB; 16][..]));
    }

    #[test]
    fn a_note_is_padded_to_four_bytes() {
        let mut notes = Vec::new();
        add(&mut notes, b"CORE", NT_PRSTATUS, &[1, 2, 3]);
        let expected = [&[5, 0, 0, 0, 3, 0, 0, 0, 1, 0, 0, 0][..], b"CORE\0\0\0\0", &[1, 2, 3, 0]].concat();
        assert_eq!(notes, expected);
    }
}
