//! CPUID: what the CPU can do, and what the hypervisor adds.

/// The four registers of a leaf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leaf {
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

/// Asks for a leaf, and subleaf 0 of it. One that the CPU does not have is another one, or zeros.
#[cfg(target_os = "none")]
#[must_use]
pub fn leaf(number: u32) -> Leaf {
    let core::arch::x86_64::CpuidResult { eax, ebx, ecx, edx } = core::arch::x86_64::__cpuid_count(number, 0);
    Leaf { eax, ebx, ecx, edx }
}

/// Asks for a leaf; the host's CPU is not the machine's.
#[cfg(not(target_os = "none"))]
#[must_use]
pub fn leaf(_number: u32) -> Leaf {
    panic!("{}", super::NOT_IN_A_MACHINE);
}

/// Whether the local APIC has an x2APIC mode (Intel SDM vol. 2A, CPUID: leaf 1, ECX bit 21).
#[must_use]
pub fn has_x2apic() -> bool {
    leaf(1).ecx & 1 << 21 != 0
}

/// KVM's own features, bits as in Linux Documentation/virt/kvm/x86/cpuid.rst; none where it is not KVM that runs us.
#[must_use]
pub fn kvm_features() -> u32 {
    const SIGNATURE: u32 = 0x4000_0000;
    const FEATURES: u32 = SIGNATURE + 1;
    let Leaf { ebx, ecx, edx, .. } = leaf(SIGNATURE);
    let name = [*b"KVMK", *b"VMKV", *b"M\0\0\0"].map(u32::from_le_bytes);
    if [ebx, ecx, edx] == name { leaf(FEATURES).eax } else { 0 }
}
