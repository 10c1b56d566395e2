//! The CPU that a snapshot was taken on: what a guest may have seen of it and rely on.

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_cpuid_entry2};
use kvm_ioctls::{Cap, Kvm};
use serde::{Deserialize, Serialize};

use super::FileResult;
use super::error::FileError;
use crate::error::{Error, Result};

/// A CPU as KVM offers it to guests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cpu {
    /// CPUID leaf 0: `GenuineIntel`, `AuthenticAMD`.
    vendor: String,
    /// CPUID leaf 1, EAX: family, model, stepping.
    signature: u32,
    /// The leaves whose bits each stand for something that the CPU can do.
    features: Vec<Features>,
    /// Bytes of the registers that XSAVE saves.
    xsave_size: i32,
}

/// A leaf of features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Features {
    leaf: u32,
    index: u32,
    /// EAX to EDX, where they hold such bits.
    bits: [u32; 4],
}

/// The leaves of features: number, subleaf, and which of EAX to EDX they fill. Intel SDM vol. 2A, CPUID; AMD APM vol. 3,
/// appendix E.
const LEAVES: [(u32, u32, [bool; 4]); 5] = [
    (1, 0, [false, false, true, true]),
    (7, 0, [false, true, true, true]),
    (0xD, 0, [true, false, false, true]),
    (0xD, 1, [true, false, false, false]),
    (0x8000_0001, 0, [false, false, true, true]),
];

impl Cpu {
    /// What this host's KVM offers.
    pub(super) fn of(kvm: &Kvm) -> Result<Self> {
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(Error::kvm("KVM_GET_SUPPORTED_CPUID"))?;
        let leaves = supported.as_slice();
        let find = |leaf: u32, index: u32| {
            let own = leaves.iter().find(|own| own.function == leaf && own.index == index);
            own.copied().unwrap_or_default()
        };
        let kvm_cpuid_entry2 { ebx, ecx, edx, .. } = find(0, 0);
        let vendor: Vec<u8> = [ebx, edx, ecx].into_iter().flat_map(u32::to_le_bytes).collect();
        let features = LEAVES.map(|(leaf, index, wanted)| {
            let kvm_cpuid_entry2 { eax, ebx, ecx, edx, .. } = find(leaf, index);
            let registers = [eax, ebx, ecx, edx];
            let bits = std::array::from_fn(|register| if wanted[register] { registers[register] } else { 0 });
            Features { leaf, index, bits }
        });
        Ok(Self {
            vendor: String::from_utf8_lossy(&vendor).into_owned(),
            signature: find(1, 0).eax,
            features: features.to_vec(),
            xsave_size: kvm.check_extension_int(Cap::Xsave2),
        })
    }

    /// Whether a guest that ran on this CPU can go on on that of `host`.
    pub(super) fn check(&self, host: &Self) -> FileResult<()> {
        if (&self.vendor, self.signature) != (&host.vendor, host.signature) {
            return Err(FileError::ForeignCpu(format!(
                "{:?}, signature {:#x}; this one is {:?}, {:#x}",
                self.vendor, self.signature, host.vendor, host.signature
            )));
        }
        if self.xsave_size != host.xsave_size {
            return Err(FileError::ForeignCpu(format!(
                "XSAVE takes {} bytes there and {} here",
                self.xsave_size, host.xsave_size
            )));
        }
        for Features { leaf, index, bits } in &self.features {
            let own = host.features.iter().find(|own| (own.leaf, own.index) == (*leaf, *index));
            let own = own.map_or([0; 4], |own| own.bits);
            for ((name, there), here) in ["EAX", "EBX", "ECX", "EDX"].into_iter().zip(bits).zip(own) {
                let missing = there & !here;
                if missing != 0 {
                    return Err(FileError::ForeignCpu(format!(
                        "it has what this one lacks: CPUID {leaf:#x}.{index}, {name} bits {missing:#x}"
                    )));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu() -> Cpu {
        let features = vec![Features { leaf: 7, index: 0, bits: [0, 0b101, 0, 0] }];
        Cpu { vendor: "AuthenticAMD".into(), signature: 0xA2_0F12, features, xsave_size: 832 }
    }

    #[test]
    fn a_cpu_that_can_do_more_will_do_and_one_that_lacks_something_will_not() {
        let (mut more, mut less) = (cpu(), cpu());
        more.features[0].bits[1] = 0b1111;
        less.features[0].bits[1] = 0b1011;
        assert!(cpu().check(&more).is_ok());
        let error = cpu().check(&less).expect_err("bit 2 is missing").to_string();
        assert!(error.contains("CPUID 0x7.0, EBX bits 0x4"), "{error}");
    }

    #[test]
    fn another_vendor_model_or_size_of_registers_is_foreign() {
        for (other, complaint) in [
            (Cpu { vendor: "GenuineIntel".into(), ..cpu() }, "GenuineIntel"),
            (Cpu { signature: 1, ..cpu() }, "0xa20f12"),
            (Cpu { xsave_size: 4096, ..cpu() }, "832"),
        ] {
            let error = cpu().check(&other).expect_err(complaint).to_string();
            assert!(error.contains(complaint), "{error}");
        }
    }
}
