//! What a test needs of the KVM: `needs!(Watchpoint)` as its first line.
//!
//! On a KVM that lacks it the test ends there and says so in a line that `cargo xtask test` reads and counts
//! (`xtask/src/test.rs`). What a KVM lacks was found by trying: `vmm/src/features/`.

use std::io::Write;
use std::sync::OnceLock;

use vmm::features::{Feature, Features};

/// Ends the test unless this host's KVM has the [`Feature`].
macro_rules! needs {
    ($feature:ident) => {
        if !$crate::harness::needs::has(vmm::features::Feature::$feature) {
            return;
        }
    };
}
pub(crate) use needs;

/// Whether this host's KVM has `feature`; says so if not.
pub(crate) fn has(feature: Feature) -> bool {
    let features = features();
    if features.has(feature) {
        return true;
    }
    // libtest keeps what `print!` prints of tests that pass; this line must be seen.
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("(a thread)");
    let line = format!("\nnot on {}: {feature}: {test}\n", features.kvm_name());
    std::io::stdout().lock().write_all(line.as_bytes()).expect("stdout is there");
    false
}

/// What this host's KVM can do.
pub(crate) fn features() -> &'static Features {
    static FOUND: OnceLock<Features> = OnceLock::new();
    FOUND.get_or_init(|| Features::probe().expect("guests can run: is /dev/kvm there?"))
}
