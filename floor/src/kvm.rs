//! The ioctls without which no guest runs.

use core::ffi::{CStr, c_int, c_ulong};
use core::ptr::{from_mut, from_ref};

use kvm_bindings::{
    KVM_EXIT_IO, KVM_EXIT_IO_OUT, kvm_regs, kvm_run, kvm_segment, kvm_sregs, kvm_userspace_memory_region,
};
use shared_abi::layout;

use crate::checked;
use crate::memory::{self, Memory};

/// A machine whose vCPU is about to fetch its first instruction.
pub(crate) struct Machine {
    vcpu: c_int,
    /// What KVM tells of an exit. Memory that somebody else writes: no reference leads there.
    run: *const kvm_run,
}

/// Numbers of ioctls (Linux include/uapi/linux/kvm.h): direction, size, type 0xAE, number.
const KVM_CREATE_VM: c_ulong = 0xAE01;
const KVM_GET_VCPU_MMAP_SIZE: c_ulong = 0xAE04;
const KVM_CREATE_VCPU: c_ulong = 0xAE41;
const KVM_SET_USER_MEMORY_REGION: c_ulong = 0x4020_AE46;
const KVM_RUN: c_ulong = 0xAE80;
const KVM_SET_REGS: c_ulong = 0x4090_AE82;
const KVM_GET_SREGS: c_ulong = 0x8138_AE83;
const KVM_SET_SREGS: c_ulong = 0x4138_AE84;

/// Makes a VM of `memory`, and a vCPU in 64-bit mode.
pub(crate) fn start(memory: &Memory) -> Machine {
    // SAFETY: The path has a NUL behind it.
    let kvm = unsafe { libc::open(c"/dev/kvm".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    checked(kvm.into(), c"open of /dev/kvm");
    let vm = number(kvm, KVM_CREATE_VM, 0, c"KVM_CREATE_VM");
    let region = kvm_userspace_memory_region {
        memory_size: memory::SIZE as u64,
        userspace_addr: memory.hva as u64,
        ..kvm_userspace_memory_region::default()
    };
    pointer(vm, KVM_SET_USER_MEMORY_REGION, from_ref(&region).cast_mut(), c"KVM_SET_USER_MEMORY_REGION");
    let vcpu = number(vm, KVM_CREATE_VCPU, 0, c"KVM_CREATE_VCPU");
    let size = number(kvm, KVM_GET_VCPU_MMAP_SIZE, 0, c"KVM_GET_VCPU_MMAP_SIZE");
    set_registers(vcpu, memory.entry);
    // SAFETY: A new mapping of the vCPU's file, which starts with a `kvm_run` and stays until the process ends.
    let run = unsafe {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let run = libc::mmap(core::ptr::null_mut(), size as usize, access, libc::MAP_SHARED, vcpu, 0);
        checked(run as i64, c"mmap of kvm_run");
        run.cast::<kvm_run>()
    };
    Machine { vcpu, run }
}

impl Machine {
    /// Lets the guest run to its next exit: port and value of an OUT; `None` for any other.
    pub(crate) fn enter(&self) -> Option<(u16, u32)> {
        number(self.vcpu, KVM_RUN, 0, c"KVM_RUN");
        // SAFETY: The mapping starts with a `kvm_run` and is there until the process ends; KVM writes it in KVM_RUN only.
        // The exit reason says which member of the union it has filled, and `data_offset` leads to `size` bytes in the
        // mapping.
        unsafe {
            if (&raw const (*self.run).exit_reason).read_volatile() != KVM_EXIT_IO {
                return None;
            }
            let io = (&raw const (*self.run).__bindgen_anon_1.io).read_volatile();
            let data = self.run.cast::<u8>().add(io.data_offset as usize);
            let value = match io.size {
                1 => data.read_volatile().into(),
                2 => data.cast::<u16>().read_volatile().into(),
                _ => data.cast::<u32>().read_volatile(),
            };
            (io.count == 1 && u32::from(io.direction) == KVM_EXIT_IO_OUT).then_some((io.port, value))
        }
    }
}

/// 64-bit mode, as `vmm/src/boot/cpu_mode.rs` explains it.
fn set_registers(vcpu: c_int, entry: u64) {
    let mut sregs = kvm_sregs::default();
    pointer(vcpu, KVM_GET_SREGS, from_mut(&mut sregs), c"KVM_GET_SREGS");
    let segment = |selector, type_| kvm_segment {
        base: 0,
        limit: u32::MAX,
        selector,
        type_,
        present: 1,
        s: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { db: 1, ..segment(0x10, 3) };
    sregs.cs = kvm_segment { l: 1, ..segment(0x08, 11) };
    (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
    sregs.cr0 = 0x8005_0033; // PG, WP, NE, ET, MP, PE
    sregs.cr3 = layout::LOW_PAGE_TABLES.0;
    sregs.cr4 = 1 << 5; // PAE
    sregs.efer = 0xD00; // NXE, LMA, LME
    pointer(vcpu, KVM_SET_SREGS, from_mut(&mut sregs), c"KVM_SET_SREGS");
    let mut regs = kvm_regs {
        rip: entry,
        rsp: layout::STACK_END.0,
        rdi: layout::BOOT_INFO.0,
        rflags: 2,
        ..kvm_regs::default()
    };
    pointer(vcpu, KVM_SET_REGS, from_mut(&mut regs), c"KVM_SET_REGS");
}

fn number(fd: c_int, request: c_ulong, argument: c_ulong, name: &CStr) -> c_int {
    // SAFETY: These requests take a number.
    let result = unsafe { libc::ioctl(fd, request as _, argument) };
    checked(result.into(), name) as c_int
}

fn pointer<T>(fd: c_int, request: c_ulong, argument: *mut T, name: &CStr) {
    // SAFETY: The request holds the size of what it points to, which is `T`.
    let result = unsafe { libc::ioctl(fd, request as _, argument) };
    checked(result.into(), name);
}
