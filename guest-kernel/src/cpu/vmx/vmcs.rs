//! The VMCS: the fields of a virtual CPU, by the numbers that `vmread` and `vmwrite` have for them.
//!
//! ```text
//! number   15   14 13    12  11 10    9       1   0
//!          │ 0 │ width │ 0 │ kind  │   index   │ 0 │     width: 16, 64, 32 bits, or a register's
//!                                                       kind: control, what an exit told, guest, host
//! ```
//!
//! Intel SDM vol. 3D, appendix B.

use super::msr;
use crate::cpu::{control, cr3, tables};

/// A field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
#[expect(missing_docs, reason = "the names are the manual's")]
pub enum Field {
    GuestEs = 0x0800,
    GuestCs = 0x0802,
    GuestSs = 0x0804,
    GuestDs = 0x0806,
    GuestFs = 0x0808,
    GuestGs = 0x080A,
    GuestLdtr = 0x080C,
    GuestTr = 0x080E,
    HostEs = 0x0C00,
    HostCs = 0x0C02,
    HostSs = 0x0C04,
    HostDs = 0x0C06,
    HostFs = 0x0C08,
    HostGs = 0x0C0A,
    HostTr = 0x0C0C,
    /// All ones: there is no shadow VMCS.
    Link = 0x2800,
    GuestEfer = 0x2806,
    HostEfer = 0x2C02,
    PinControls = 0x4000,
    ProcessorControls = 0x4002,
    ExceptionBitmap = 0x4004,
    Cr3TargetCount = 0x400A,
    ExitControls = 0x400C,
    ExitMsrStoreCount = 0x400E,
    ExitMsrLoadCount = 0x4010,
    EntryControls = 0x4012,
    EntryMsrLoadCount = 0x4014,
    EntryInterruptInfo = 0x4016,
    InstructionError = 0x4400,
    ExitReason = 0x4402,
    ExitInstructionLength = 0x440C,
    GuestEsLimit = 0x4800,
    GuestCsLimit = 0x4802,
    GuestSsLimit = 0x4804,
    GuestDsLimit = 0x4806,
    GuestTrLimit = 0x480E,
    GuestGdtrLimit = 0x4810,
    GuestIdtrLimit = 0x4812,
    GuestEsRights = 0x4814,
    GuestCsRights = 0x4816,
    GuestSsRights = 0x4818,
    GuestDsRights = 0x481A,
    GuestFsRights = 0x481C,
    GuestGsRights = 0x481E,
    GuestLdtrRights = 0x4820,
    GuestTrRights = 0x4822,
    GuestInterruptibility = 0x4824,
    GuestActivity = 0x4826,
    Cr0Mask = 0x6000,
    Cr4Mask = 0x6002,
    ExitQualification = 0x6400,
    GuestCr0 = 0x6800,
    GuestCr3 = 0x6802,
    GuestCr4 = 0x6804,
    GuestTrBase = 0x6814,
    GuestDr7 = 0x681A,
    GuestRsp = 0x681C,
    GuestRip = 0x681E,
    GuestRflags = 0x6820,
    GuestPendingDebug = 0x6822,
    HostCr0 = 0x6C00,
    HostCr3 = 0x6C02,
    HostCr4 = 0x6C04,
    HostFsBase = 0x6C06,
    HostGsBase = 0x6C08,
    HostTrBase = 0x6C0A,
    HostGdtrBase = 0x6C0C,
    HostIdtrBase = 0x6C0E,
    HostRsp = 0x6C14,
    HostRip = 0x6C16,
}

pub(super) const EFER: u32 = 0xC000_0080;
const FS_BASE: u32 = 0xC000_0100;
const GS_BASE: u32 = 0xC000_0101;

/// Processor-based: `hlt` and all ports leave.
const HLT_EXITING: u32 = 1 << 7;
const UNCONDITIONAL_IO_EXITING: u32 = 1 << 24;
/// At an exit: to 64-bit code; EFER is saved and loaded.
const HOST_64_BIT: u32 = 1 << 9;
const SAVE_EFER: u32 = 1 << 20;
const LOAD_HOST_EFER: u32 = 1 << 21;
/// At an entry: to long mode; EFER is loaded.
const GUEST_LONG_MODE: u32 = 1 << 9;
const LOAD_GUEST_EFER: u32 = 1 << 15;

/// The four controls, with what each needs and what its MSR says: the one of appendix A.3 to A.5, or its "true" one.
pub(super) fn controls(has_true: bool, read: impl Fn(u32) -> u64) -> [(Field, u64); 4] {
    [
        (Field::PinControls, 0, [0x481, 0x48D]),
        (Field::ProcessorControls, HLT_EXITING | UNCONDITIONAL_IO_EXITING, [0x482, 0x48E]),
        (Field::ExitControls, HOST_64_BIT | SAVE_EFER | LOAD_HOST_EFER, [0x483, 0x48F]),
        (Field::EntryControls, GUEST_LONG_MODE | LOAD_GUEST_EFER, [0x484, 0x490]),
    ]
    .map(|(field, wanted, [msr, true_msr])| {
        let allowed = read(if has_true { true_msr } else { msr });
        (field, allowed_control(wanted, allowed).into())
    })
}

/// `wanted`, with the bits that must be 1 (the lower half of the MSR), without those that must be 0 (the upper half).
fn allowed_control(wanted: u32, msr: u64) -> u32 {
    (wanted | msr as u32) & (msr >> 32) as u32
}

/// Flat 64-bit code and data, a busy TSS, and no segment at all.
const CODE: u64 = 0xA09B;
const DATA: u64 = 0xC093;
const BUSY_TSS: u64 = 0x8B;
const UNUSABLE: u64 = 1 << 16;
const LIMIT: u64 = 0xFFFF_FFFF;

/// A CPU in 64-bit mode, ring 0, without tables; bases that are not here are 0 after `vmclear`, and written as such.
pub(super) const GUEST_64_BIT_MODE: [(Field, u64); 36] = [
    (Field::Link, u64::MAX),
    (Field::ExceptionBitmap, 0),
    (Field::Cr3TargetCount, 0),
    (Field::ExitMsrStoreCount, 0),
    (Field::ExitMsrLoadCount, 0),
    (Field::EntryMsrLoadCount, 0),
    (Field::EntryInterruptInfo, 0),
    (Field::Cr0Mask, 0),
    (Field::Cr4Mask, 0),
    (Field::GuestCs, 0x08),
    (Field::GuestSs, 0x10),
    (Field::GuestDs, 0x10),
    (Field::GuestEs, 0x10),
    (Field::GuestFs, 0),
    (Field::GuestGs, 0),
    (Field::GuestLdtr, 0),
    (Field::GuestTr, 0x18),
    (Field::GuestCsLimit, LIMIT),
    (Field::GuestSsLimit, LIMIT),
    (Field::GuestDsLimit, LIMIT),
    (Field::GuestEsLimit, LIMIT),
    (Field::GuestTrLimit, 0x67),
    (Field::GuestGdtrLimit, 0),
    (Field::GuestIdtrLimit, 0),
    (Field::GuestCsRights, CODE),
    (Field::GuestSsRights, DATA),
    (Field::GuestDsRights, DATA),
    (Field::GuestEsRights, DATA),
    (Field::GuestFsRights, UNUSABLE),
    (Field::GuestGsRights, UNUSABLE),
    (Field::GuestLdtrRights, UNUSABLE),
    (Field::GuestTrRights, BUSY_TSS),
    (Field::GuestInterruptibility, 0),
    (Field::GuestActivity, 0),
    (Field::GuestDr7, 0x400),
    (Field::GuestRflags, 1 << 1),
];

/// The hypervisor, as an exit shall find it again; RSP and RIP are written right before an entry.
pub(super) fn host() -> [(Field, u64); 17] {
    let loaded = tables::read();
    [
        (Field::HostCs, loaded.cs.into()),
        (Field::HostSs, loaded.ss.into()),
        (Field::HostDs, 0),
        (Field::HostEs, 0),
        (Field::HostFs, 0),
        (Field::HostGs, 0),
        (Field::HostTr, loaded.tr.into()),
        (Field::HostTrBase, loaded.tr_base),
        (Field::HostGdtrBase, loaded.gdt_base),
        (Field::HostIdtrBase, loaded.idt_base),
        (Field::HostFsBase, msr::read(FS_BASE)),
        (Field::HostGsBase, msr::read(GS_BASE)),
        (Field::HostCr0, control::cr0()),
        (Field::HostCr3, cr3::read().0),
        (Field::HostCr4, control::cr4()),
        (Field::HostEfer, msr::read(EFER)),
        (Field::GuestPendingDebug, 0),
    ]
}

#[cfg(all(test, not(target_os = "none")))]
mod tests {
    use super::*;

    #[test]
    fn a_control_has_what_it_must_and_may() {
        assert_eq!(allowed_control(0b0110, 0b0111 << 32 | 0b0001), 0b0111);
        assert_eq!(allowed_control(0b1000, 0b0111 << 32), 0, "bit 3 may not be 1");
    }

    #[test]
    fn every_field_is_written_once_and_has_the_width_of_its_number() {
        for (index, (field, value)) in GUEST_64_BIT_MODE.into_iter().enumerate() {
            assert!(!GUEST_64_BIT_MODE[..index].iter().any(|(other, _)| *other == field), "{field:?}");
            let bits = [16, 64, 32, 64][(field as usize >> 13) & 3];
            assert!(bits == 64 || value >> bits == 0, "{field:?}");
        }
    }
}
