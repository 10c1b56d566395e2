//! Rivals: other hypervisors that take the CPU's virtualization for themselves.
//!
//! VMX and SVM have one owner at a time. A rival that came first makes KVM_CREATE_VM fail with EBUSY, or, from Linux
//! 6.12 on, which takes them when it loads the module, the module.

use super::facts::HostFacts;

/// How to make the rival whose module is loaded let go.
pub(super) fn remedy(facts: &HostFacts) -> Option<&'static str> {
    const REMEDIES: [(&str, &str); 2] = [
        ("vboxdrv", "quit VirtualBox's machines, then `sudo modprobe -r vboxnetflt vboxnetadp vboxdrv`"),
        ("vmmon", "quit VMware's machines, then `sudo systemctl stop vmware` or `sudo modprobe -r vmmon`"),
    ];
    let loaded = REMEDIES.iter().find(|(module, _)| facts.modules.contains(module));
    loaded.map(|(_, remedy)| *remedy)
}
