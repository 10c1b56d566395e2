//! CR0 and CR4: what the CPU heeds. CR3 has a [file of its own](super::cr3).

/// CR0.TS: floating point is turned off, and raises #NM (Intel SDM vol. 3A, 2.5).
pub const CR0_TASK_SWITCHED: u64 = 1 << 3;
/// CR4.SMEP: ring 0 executes no page of ring 3 (Intel SDM vol. 3A, 4.6).
pub const CR4_SMEP: u64 = 1 << 20;
/// CR4.SMAP: ring 0 touches no page of ring 3, unless RFLAGS.AC is set (Intel SDM vol. 3A, 4.6).
pub const CR4_SMAP: u64 = 1 << 21;

macro_rules! control_register {
    ($name:literal, $set:ident, $get:ident) => {
        #[doc = concat!("What ", $name, " holds.")]
        #[cfg(target_os = "none")]
        #[must_use]
        pub fn $get() -> u64 {
            let value;
            // SAFETY: Reads a register.
            unsafe {
                core::arch::asm!(
                    concat!("mov {}, ", $name),
                    out(reg) value,
                    options(nomem, nostack, preserves_flags),
                );
            }
            value
        }

        #[doc = concat!("Sets bits of ", $name, " and leaves the others.")]
        ///
        /// # Safety
        /// This CPU has these bits, and what they turn on or off is not relied upon to be otherwise.
        #[cfg(target_os = "none")]
        pub unsafe fn $set(bits: u64) {
            let value = $get() | bits;
            // SAFETY: The caller's promise.
            unsafe {
                core::arch::asm!(
                    concat!("mov ", $name, ", {}"),
                    in(reg) value,
                    options(nostack, preserves_flags),
                );
            }
        }

        #[doc = concat!("What ", $name, " holds; on the host it is not ours to read.")]
        #[cfg(not(target_os = "none"))]
        #[must_use]
        pub fn $get() -> u64 {
            panic!("{}", super::NOT_IN_A_MACHINE);
        }

        #[doc = concat!("Sets bits of ", $name, "; on the host it is not ours to write.")]
        ///
        /// # Safety
        /// None is needed: it panics.
        #[cfg(not(target_os = "none"))]
        pub unsafe fn $set(_bits: u64) {
            panic!("{}", super::NOT_IN_A_MACHINE);
        }
    };
}

control_register!("cr0", set_cr0, cr0);
control_register!("cr4", set_cr4, cr4);
