//! Nested virtualization: how each hypervisor is told to let its guests be hosts.

/// How to switch it on, by what the virtual machine's firmware calls its maker (DMI, `sys_vendor`).
pub(super) fn remedy(maker: &str) -> String {
    const REMEDIES: [(&str, &str); 6] = [
        (
            "QEMU",
            "start QEMU with `-accel kvm -cpu host` (libvirt: `<cpu mode='host-passthrough'/>`); on its host, \
             /sys/module/kvm_intel/parameters/nested (or kvm_amd) must say Y or 1",
        ),
        (
            "VMware",
            "power it off and tick `Virtualize Intel VT-x/EPT or AMD-V/RVI` in its processor settings \
             (`vhv.enable = \"TRUE\"` in its .vmx file)",
        ),
        ("innotek", "power it off and run `VBoxManage modifyvm <name> --nested-hw-virt on` on its host"),
        (
            "Microsoft",
            "on Hyper-V, turn it off and run `Set-VMProcessor -VMName <name> -ExposeVirtualizationExtensions $true`; \
             on Azure, choose a size with nested virtualization",
        ),
        ("Google", "create it with `gcloud compute instances create … --enable-nested-virtualization`"),
        ("Amazon", "choose an instance type with nested virtualization, or a `.metal` one"),
    ];
    let known = REMEDIES.iter().find(|(name, _)| maker.contains(name));
    let how = known.map_or("ask whoever runs it, or use a bare-metal machine", |(_, how)| how);
    format!("switch nested virtualization on for this virtual machine: {how}")
}

#[cfg(test)]
mod tests {
    use crate::doctor::hosts::*;
    use crate::doctor::judge;

    #[test]
    fn a_virtual_machine_without_vmx_is_told_its_hypervisors_switch() {
        for (maker, switch) in [
            ("QEMU", "-cpu host"),
            ("VMware, Inc.", "vhv.enable"),
            ("innotek GmbH", "VBoxManage modifyvm <name> --nested-hw-virt on"),
            ("Microsoft Corporation", "-ExposeVirtualizationExtensions $true"),
            ("Google", "--enable-nested-virtualization"),
            ("Amazon EC2", ".metal"),
            ("", "bare-metal"),
        ] {
            let mut host = without_virtualization(healthy());
            host.cpu.hypervisor = true;
            host.maker = maker.into();
            let diagnosis = judge(&host);
            assert_problem(&diagnosis, "cpu", "nested virtualization");
            assert_problem(&diagnosis, "cpu", switch);
            assert_last_resort(&diagnosis);
        }
    }
}
