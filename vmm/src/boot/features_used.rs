//! Whether an image holds an instruction whose effect depends on CPUID.
//!
//! CPUID is more than what a guest can read. KVM takes it for what the guest's CPU has: an instruction of a feature that
//! CPUID does not show may be an invalid opcode, a bit of CR4 or EFER of such a feature may be refused. Asking KVM what it
//! can give and telling the vCPU takes half a millisecond where this host is a guest itself, as long as all the rest of a
//! start. A guest that uses none of it needs none of it, and its image shows that:
//!
//! | bytes | instruction |
//! |---|---|
//! | `0F A2` | CPUID |
//! | `0F 22`, register CR4 | MOV to CR4, without which there is no XSAVE, AVX, PCID, FSGSBASE, SMEP, SMAP, … |
//! | `0F 30`, `0F 32`, `0F 33` | WRMSR, RDMSR, RDPMC |
//! | `0F 01`, without memory | RDTSCP, XGETBV, STAC, SWAPGS, MONITOR, VMRUN, … |
//! | `0F C7`, without memory | RDRAND, RDSEED, RDPID |
//! | `0F AE`, without memory | RDFSBASE, UMWAIT, …; LFENCE, MFENCE and SFENCE are everywhere |
//! | `0F 38 80` to `82`, `0F 37` | INVPCID and its kin, GETSEC |
//!
//! (Intel SDM vol. 2, appendix A.) The bytes are looked for at every place, whether an instruction starts there or not, in
//! data too, which may be a program for user mode. So nothing is missed; and what looks like one and is none costs the time
//! that is saved otherwise. Code that comes from elsewhere is not seen: see [`CpuidUse`](crate::config::CpuidUse).

use memchr::arch::x86_64::sse2::memchr::One;
use shared_abi::Gpa;

use crate::boot::elf_headers::Segment;
use crate::memory::GuestMemory;

/// A larger image is not searched, and gets its CPUID.
const MAX_SIZE: u64 = 1 << 20;

/// Bytes that are copied at once.
const PIECE: usize = 2048;
/// Bytes of such an instruction, with the prefixes that are looked at.
const LONGEST: usize = 8;

/// Whether what `memory` holds of these segments has such an instruction.
pub(super) fn in_image(segments: &[Segment], memory: &GuestMemory) -> bool {
    if segments.iter().map(|segment| segment.file_size).sum::<u64>() > MAX_SIZE {
        return true;
    }
    segments.iter().any(|segment| in_segment(segment, memory))
}

/// Looks through a segment piece by piece; what is cut in two by the end of a piece is whole in the next.
fn in_segment(segment: &Segment, memory: &GuestMemory) -> bool {
    let mut piece = [0; PIECE];
    (0..segment.file_size).step_by(PIECE - LONGEST).any(|offset| {
        let size = PIECE.min((segment.file_size - offset) as usize);
        let bytes = piece.get_mut(..size).expect("at most a piece");
        memory.read(Gpa(segment.start.0 + offset), bytes).expect("the plan found the segment in RAM");
        in_bytes(bytes)
    })
}

fn in_bytes(bytes: &[u8]) -> bool {
    // Any faster search would first ask the CPU what it has, which takes longer than it saves.
    let escapes = One::new(0x0F).expect("every CPU of 64 bits has SSE2");
    escapes.iter(bytes).any(|escape| {
        let before = bytes.get(escape.saturating_sub(2)..escape).unwrap_or_default();
        is_one(before, bytes.get(escape + 1..).unwrap_or_default())
    })
}

/// Whether `rest`, which follows the escape byte `0F`, makes such an instruction; at most two prefixes are in `before`.
fn is_one(before: &[u8], rest: &[u8]) -> bool {
    let Some((&opcode, rest)) = rest.split_first() else { return false };
    let next = rest.first().copied();
    let names_no_memory = next.is_some_and(|modrm| modrm >= 0xC0);
    match opcode {
        0xA2 | 0x30 | 0x32 | 0x33 | 0x37 => true,
        0x22 => next.is_some_and(|modrm| modrm >> 3 & 0b111 == 4),
        0x01 | 0xC7 => names_no_memory,
        0xAE => names_no_memory && !is_fence(before, next),
        0x38 => next.is_some_and(|third| (0x80..=0x82).contains(&third)),
        _ => false,
    }
}

/// LFENCE, MFENCE, SFENCE; with a prefix the same bytes mean others.
fn is_fence(before: &[u8], modrm: Option<u8>) -> bool {
    matches!(modrm, Some(0xE8 | 0xF0 | 0xF8)) && !before.iter().any(|byte| matches!(byte, 0x66 | 0xF2 | 0xF3))
}

#[cfg(test)]
mod tests {
    use iced_x86::{Code, Decoder, DecoderOptions};

    use super::*;
    use crate::boot::region::Rights;
    use crate::config::Backing;

    #[test]
    fn instructions_of_features_are_found_wherever_they_are() {
        for (bytes, code) in [
            (&[0x0F, 0xA2][..], Code::Cpuid),
            (&[0x0F, 0x22, 0xE0], Code::Mov_cr_r64),
            (&[0x44, 0x0F, 0x22, 0xC0], Code::Mov_cr_r64), // CR8: no feature
            (&[0x0F, 0x30], Code::Wrmsr),
            (&[0x0F, 0x32], Code::Rdmsr),
            (&[0x0F, 0x01, 0xF9], Code::Rdtscp),
            (&[0x0F, 0x01, 0xD0], Code::Xgetbv),
            (&[0x0F, 0x01, 0xCB], Code::Stac),
            (&[0x0F, 0x01, 0xF8], Code::Swapgs),
            (&[0x48, 0x0F, 0xC7, 0xF0], Code::Rdrand_r64),
            (&[0xF3, 0x0F, 0xC7, 0xF8], Code::Rdpid_r64),
            (&[0xF3, 0x48, 0x0F, 0xAE, 0xC0], Code::Rdfsbase_r64),
            (&[0xF3, 0x0F, 0xAE, 0xF0], Code::Umonitor_r64),
            (&[0x66, 0x0F, 0x38, 0x82, 0x00], Code::Invpcid_r64_m128),
        ] {
            let decoded = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
            assert_eq!(decoded.code(), code, "{bytes:x?}");
            let is_feature = bytes != [0x44, 0x0F, 0x22, 0xC0];
            let surrounded = [&[0x90][..], bytes, &[0x90]].concat();
            assert_eq!(in_bytes(&surrounded), is_feature, "{code:?}");
        }
    }

    #[test]
    fn what_every_kernel_uses_is_no_feature() {
        for (bytes, code) in [
            (&[0x0F, 0x01, 0x10][..], Code::Lgdt_m1664),
            (&[0x0F, 0x01, 0x18], Code::Lidt_m1664),
            (&[0x0F, 0x01, 0x38], Code::Invlpg_m),
            (&[0x0F, 0x00, 0xD8], Code::Ltr_r32m16),
            (&[0x0F, 0x20, 0xD0], Code::Mov_r64_cr),
            (&[0x0F, 0x22, 0xD8], Code::Mov_cr_r64),
            (&[0x0F, 0x31], Code::Rdtsc),
            (&[0x0F, 0xAE, 0xF0], Code::Mfence),
            (&[0xF0, 0x0F, 0xB1, 0x0F], Code::Cmpxchg_rm32_r32),
            (&[0x48, 0x0F, 0xC7, 0x08], Code::Cmpxchg16b_m128),
            (&[0x0F, 0x0B], Code::Ud2),
        ] {
            let decoded = Decoder::with_ip(64, bytes, 0, DecoderOptions::NONE).decode();
            assert_eq!(decoded.code(), code, "{bytes:x?}");
            assert!(!in_bytes(bytes), "{code:?}");
        }
    }

    #[test]
    fn an_instruction_is_found_at_every_place_of_a_segment() {
        let memory = GuestMemory::allocate("2M".parse().expect("a size"), Backing::default()).expect("RAM");
        let (start, size) = (Gpa(0x1000), 3 * PIECE as u64);
        let end = Gpa(start.0 + size);
        let rights = Rights::ReadExecute;
        let segment = Segment { index: 0, start, end, file_offset: 0, file_size: size, rights };
        for at in (start.0..=end.0 - 4).map(Gpa) {
            // UMONITOR but for its prefix is a fence.
            memory.write(at, &[0xF3, 0x0F, 0xAE, 0xF0]).expect("RAM");
            assert!(in_image(&[segment], &memory), "at {at}");
            memory.write(at, &[0x90, 0x0F, 0xAE, 0xF0]).expect("RAM");
            assert!(!in_image(&[segment], &memory), "at {at}");
            memory.write(at, &[0; 4]).expect("RAM");
        }
    }

    #[test]
    fn an_instruction_that_is_cut_off_is_none() {
        for end in [&[0x0F][..], &[0x0F, 0x22], &[0x0F, 0x01], &[0x0F, 0x38]] {
            assert!(!in_bytes(end));
        }
    }
}
