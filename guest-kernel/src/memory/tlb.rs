//! The TLB: what a CPU remembers of page tables, and how it is made to forget.
//!
//! A CPU does not walk the tables again for an address it has just walked (Intel SDM vol. 3A, 4.10). An entry that
//! becomes present needs nothing, as what is not present is never remembered. Whoever takes a mapping away or changes
//! its rights must say so, to every CPU that may remember: this one is told by `invlpg`, the others by whoever can
//! interrupt them and has said so with [`on_flush`].

use core::sync::atomic::{AtomicPtr, Ordering};

use shared_abi::Gva;

use crate::cpu::cr3;

/// Makes all other CPUs forget an address.
pub type Hook = fn(Gva);

/// Who tells the other CPUs; null while there are none.
static HOOK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Has `hook` called after every change to a mapping that CPUs may remember. It returns when they have forgotten it.
pub fn on_flush(hook: Hook) {
    HOOK.store(hook as *mut (), Ordering::Release);
}

/// Makes all CPUs forget how `gva` was mapped.
pub fn flush(gva: Gva) {
    cr3::invalidate(gva);
    let hook = HOOK.load(Ordering::Acquire);
    // SAFETY: Null, which is `None` (core::option, "Representation"), or what `on_flush` has stored: a `Hook`.
    if let Some(hook) = unsafe { core::mem::transmute::<*mut (), Option<Hook>>(hook) } {
        hook(gva);
    }
}
