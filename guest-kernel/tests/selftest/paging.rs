//! Page tables: what the kernel maps is what the host finds when it walks them, which is an independent reading.

use core::hint::black_box;

use guest_kernel::cpu::{cr3, provoke};
use guest_kernel::exceptions::{self, Vector};
use guest_kernel::hypercall::translate;
use guest_kernel::memory::frames;
use guest_kernel::memory::paging::{AddressSpace, MapError, Mapping, PageSize, Rights};
use guest_kernel::memory::{FREE_ADDRESSES, FREE_ADDRESSES_END, HEAP, KERNEL_HIGH_END, USER_START};
use guest_kernel::{Gpa, Gva, boot_info, guest_test};
use shared_abi::addr::PAGE_SIZE;
use shared_abi::layout;

const HERE: Gva = Gva(FREE_ADDRESSES);
const MIB: u64 = 1 << 20;

/// The kernel's reading of an address; the host's must be the same.
#[track_caller]
fn walk(space: &AddressSpace, gva: Gva) -> Option<Mapping> {
    let own = space.translate(gva);
    let hosts = translate(gva);
    let words = |mapping: Mapping| {
        let rights = mapping.rights;
        let flags = [rights.can_write(), rights.can_execute(), rights.is_user()].map(u64::from);
        (mapping.gpa.0, mapping.page_size, flags)
    };
    let hosts = hosts.map(|host| (host.gpa, host.page_size, [host.writable, host.executable, host.user]));
    assert_eq!(own.map(words), hosts, "{gva}");
    own
}

#[guest_test]
fn the_first_tables_are_read_as_the_host_reads_them() {
    let kernel = AddressSpace::kernel();
    let end = boot_info().ram[0].end;
    let code = the_first_tables_are_read_as_the_host_reads_them as *const () as u64;
    let edges =
        [0, 0x1000, 0x2000, 0x1_0000, layout::STACK_GUARD.0, layout::STACK.0, layout::LOW_PAGE_TABLES.0];
    let others = [code, end - 1, end, layout::LOW_RAM_MAX_END.0, HEAP, 1 << 39, 1 << 47, u64::MAX];
    for gva in edges.into_iter().chain(others) {
        walk(&kernel, Gva(gva));
    }
    assert_eq!(walk(&kernel, Gva(code)).map(|mapping| mapping.rights), Some(Rights::READ_EXECUTE));
}

#[guest_test]
fn no_page_of_the_kernel_can_be_written_and_executed() {
    let info = boot_info();
    let kernel = AddressSpace::kernel();
    let structures = (0..layout::KERNEL.0).step_by(PAGE_SIZE as usize);
    let image = (info.image.start..info.image.end).step_by(PAGE_SIZE as usize);
    let free = (info.image.end..info.ram[0].end).step_by(64 << 10);
    let mut executable = 0;
    for page in structures.chain(image).chain(free) {
        let Some(rights) = kernel.translate(Gva(page)).map(|mapping| mapping.rights) else { continue };
        assert!(!(rights.can_write() && rights.can_execute()), "{page:#x}: {rights}");
        assert!(!rights.is_user(), "{page:#x}: {rights}");
        executable += u64::from(rights.can_execute());
    }
    let code = no_page_of_the_kernel_can_be_written_and_executed as *const () as u64;
    assert!(
        (info.image.start..info.image.start + executable * PAGE_SIZE).contains(&code),
        "code comes first"
    );
}

#[guest_test]
fn a_frame_is_at_the_address_where_it_is_mapped() {
    let mut frame = frames::allocate_zeroed().expect("a frame");
    frame.bytes_mut()[7] = 42;
    let gpa = frame.gpa();
    let mut kernel = AddressSpace::kernel();
    kernel.map_frame(HERE, frame, Rights::READ_WRITE).expect("nothing is there");
    assert_eq!(walk(&kernel, Gva(HERE.0 + 7)).map(|mapping| mapping.gpa), Some(Gpa(gpa.0 + 7)));
    assert_eq!(provoke::read(Gva(HERE.0 + 7)), 42);
}

#[guest_test]
fn rights_are_what_was_asked_for() {
    let mut kernel = AddressSpace::kernel();
    let all = [Rights::READ, Rights::READ_WRITE, Rights::READ_EXECUTE];
    for (page, rights) in (0..).zip(all) {
        let gva = Gva(HERE.0 + page * PAGE_SIZE);
        kernel.map_frame(gva, frames::allocate().expect("a frame"), rights).expect("nothing is there");
        assert_eq!(walk(&kernel, gva).map(|mapping| mapping.rights), Some(rights));
    }
}

#[guest_test]
fn a_large_page_maps_2_mib_and_is_split_where_a_piece_changes() {
    let run = frames::allocate_contiguous(512, 2 * MIB).expect("2 MiB").into_gpa();
    let mut kernel = AddressSpace::kernel();
    kernel.map(HERE, run, PageSize::Size2M, Rights::READ_WRITE).expect("nothing is there");
    let last = Gva(HERE.0 + 2 * MIB - PAGE_SIZE);
    let mapping = walk(&kernel, last).expect("it is mapped");
    assert_eq!((mapping.page_size, mapping.gpa.0), (2 * MIB, run.0 + 2 * MIB - PAGE_SIZE));

    // SAFETY: Nobody uses memory by this address.
    unsafe { kernel.protect(last, PageSize::Size4K, Rights::READ) }.expect("a piece of what is mapped");

    let mapping = walk(&kernel, last).expect("it is mapped");
    assert_eq!((mapping.page_size, mapping.rights), (PAGE_SIZE, Rights::READ));
    assert_eq!(mapping.gpa.0, run.0 + 2 * MIB - PAGE_SIZE);
    let first = walk(&kernel, HERE).expect("it is mapped");
    assert_eq!((first.page_size, first.rights, first.gpa), (PAGE_SIZE, Rights::READ_WRITE, run));
    // SAFETY: As above.
    let whole = unsafe { kernel.unmap(HERE, PageSize::Size2M) };
    assert_eq!(whole.err(), Some(MapError::SmallerPages { gva: HERE }));
}

#[guest_test]
fn a_run_is_mapped_by_small_pages_across_tables_or_not_at_all() {
    let run = || frames::allocate_contiguous(6, PAGE_SIZE).expect("6 frames");
    // Three pages at the end of one table, three at the start of the next.
    let start = Gva(HERE.0 + 2 * MIB - 3 * PAGE_SIZE);
    let (first, at) = (run(), |page: u64| Gva(start.0 + page * PAGE_SIZE));
    let gpa = first.gpa().0;
    let mut kernel = AddressSpace::kernel();
    kernel.map_run(start, first, Rights::READ_WRITE).expect("nothing is there");
    for page in 0..6 {
        let mapping = walk(&kernel, at(page)).expect("it is mapped");
        assert_eq!((mapping.gpa.0, mapping.page_size), (gpa + page * PAGE_SIZE, PAGE_SIZE));
    }
    assert_eq!(walk(&kernel, at(6)), None);

    let free = frames::free_count();
    // SAFETY: Nobody uses memory by this address.
    drop(unsafe { kernel.unmap(at(1), PageSize::Size4K) });
    let second = kernel.map_run(at(1), run(), Rights::READ);
    assert_eq!(second, Err(MapError::AlreadyMapped { gva: at(2) }));
    assert_eq!((walk(&kernel, at(1)), frames::free_count()), (None, free + 1), "nothing is left of it");
}

#[guest_test]
fn the_identity_map_can_be_split_too() {
    let mut kernel = AddressSpace::kernel();
    let frame = frames::allocate_contiguous(1, PAGE_SIZE).expect("a frame").into_gpa();
    let own = Gva(frame.0);
    // SAFETY: The frame is given up, so nobody uses it.
    unsafe { kernel.unmap(own, PageSize::Size4K) }.expect("RAM is mapped");
    assert_eq!(walk(&kernel, own), None);
    assert_eq!(walk(&kernel, Gva(own.0 - 1)).map(|mapping| mapping.gpa), Some(Gpa(own.0 - 1)));
    kernel.map(own, frame, PageSize::Size4K, Rights::READ_WRITE).expect("nothing is there");
    assert_eq!(walk(&kernel, own).map(|mapping| mapping.gpa), Some(frame));
}

/// Random changes, and after each the same answer from two walkers. The seed is fixed, so a failure comes again.
#[guest_test]
fn random_changes_are_seen_by_both_walkers() {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    let mut next = |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut kernel = AddressSpace::kernel();
    let target = frames::allocate_contiguous(512, 2 * MIB).expect("2 MiB").into_gpa();
    for _ in 0..120 {
        // Few places, far and near: so that changes meet. Some are in tables of their own, one at each level.
        let gva = Gva([HERE.0, HERE.0 + (1 << 30), HERE.0 + 2 * MIB, HERE.0 + 6 * MIB][next(4) as usize]
            + next(4) * PAGE_SIZE);
        let rights = [Rights::READ, Rights::READ_WRITE, Rights::READ_EXECUTE][next(3) as usize];
        let before = kernel.translate(gva);
        let large = next(4) == 0;
        let result = match next(3) {
            0 if large => kernel.map(Gva(gva.0 & !(2 * MIB - 1)), target, PageSize::Size2M, rights),
            0 => kernel.map(gva, Gpa(target.0 + next(512) * PAGE_SIZE), PageSize::Size4K, rights),
            // SAFETY: Nobody uses memory by these addresses.
            1 => unsafe { kernel.unmap(gva, PageSize::Size4K) }.map(drop),
            // SAFETY: As above.
            _ => unsafe { kernel.protect(gva, PageSize::Size4K, rights) },
        };
        let after = walk(&kernel, gva);
        match result {
            Err(MapError::NotMapped { .. }) => assert_eq!((before, after), (None, None)),
            Err(MapError::AlreadyMapped { .. }) => assert_eq!(before, after),
            Err(error) => panic!("{error}"),
            Ok(()) => {}
        }
    }
}

#[guest_test]
fn what_cannot_be_mapped_is_an_error_and_changes_nothing() {
    let mut kernel = AddressSpace::kernel();
    let gpa = Gpa(4 * MIB);
    let mut map = |gva, gpa, size| kernel.map(Gva(gva), gpa, size, Rights::READ).err();
    let small = PageSize::Size4K;
    assert_eq!(map(1 << 47, gpa, small), Some(MapError::NotCanonical { gva: Gva(1 << 47) }));
    assert_eq!(
        map(HERE.0 + 1, gpa, small),
        Some(MapError::Misaligned { address: HERE.0 + 1, size: PAGE_SIZE })
    );
    let misaligned = MapError::Misaligned { address: MIB, size: 2 * MIB };
    assert_eq!(map(HERE.0, Gpa(MIB), PageSize::Size2M), Some(misaligned));
    for gva in [USER_START, KERNEL_HIGH_END] {
        assert_eq!(map(gva, gpa, small), Some(MapError::OutsideSpace { gva: Gva(gva) }));
    }
    for (gva, size) in [(layout::STACK.0, small), (2 * MIB, PageSize::Size2M), (4 * MIB, small)] {
        assert_eq!(map(gva, gpa, size), Some(MapError::AlreadyMapped { gva: Gva(gva) }));
    }
    assert_eq!(map(HERE.0, gpa, small), None);
    assert_eq!(map(HERE.0, gpa, small), Some(MapError::AlreadyMapped { gva: HERE }));
}

#[guest_test]
fn without_frames_nothing_is_mapped() {
    while let Some(run) =
        frames::allocate_contiguous(64, PAGE_SIZE).or_else(|| frames::allocate_contiguous(1, PAGE_SIZE))
    {
        core::mem::forget(run);
    }
    let mut kernel = AddressSpace::kernel();
    let mapped = kernel.map(HERE, Gpa(4 * MIB), PageSize::Size4K, Rights::READ);
    assert_eq!((mapped, kernel.translate(HERE)), (Err(MapError::OutOfFrames), None));
    drop(kernel);
    assert_eq!(AddressSpace::new_user().err(), Some(MapError::OutOfFrames));
}

#[guest_test(max_exits = 0)]
fn a_page_that_is_unmapped_faults_and_one_that_is_mapped_again_is_the_new_one() {
    exceptions::on(Vector::PageFault, |frame| frame.skip());
    for number in 1..=3 {
        assert_eq!(provoke::read(HERE), 0, "skipped: nothing is there");
        let mut frame = frames::allocate_zeroed().expect("a frame");
        frame.bytes_mut()[0] = number;
        AddressSpace::kernel().map_frame(HERE, frame, Rights::READ).expect("nothing is there");
        assert_eq!(provoke::read(HERE), number);
        // SAFETY: Nobody has a reference to it.
        let frame = unsafe { AddressSpace::kernel().unmap(HERE, PageSize::Size4K) }.expect("it is mapped");
        assert_eq!(frame.expect("it was the space's").bytes()[0], number);
    }
}

#[guest_test(should_fault = PageFault, address = FREE_ADDRESSES)]
fn a_page_whose_right_to_be_written_is_taken_faults() {
    let mut kernel = AddressSpace::kernel();
    kernel
        .map_frame(HERE, frames::allocate().expect("a frame"), Rights::READ_WRITE)
        .expect("nothing is there");
    let write = || {
        // SAFETY: A page that this test alone uses; the second time, this is the crime, and faults.
        unsafe { (black_box(HERE.0) as *mut u8).write_volatile(1) }
    };
    write();
    // SAFETY: None: somebody will write.
    unsafe { kernel.protect(HERE, PageSize::Size4K, Rights::READ) }.expect("it is mapped");
    write();
}

#[guest_test]
fn a_users_space_has_the_kernel_and_its_own_pages_and_leaves_nothing() {
    let code = Gva(a_users_space_has_the_kernel_and_its_own_pages_and_leaves_nothing as *const () as u64);
    let here = Gva(USER_START);
    let kernels = AddressSpace::kernel().pml4();
    let free = frames::free_count();
    let mut space = AddressSpace::new_user().expect("a frame");
    let mut frame = frames::allocate_zeroed().expect("a frame");
    frame.bytes_mut()[0] = 42;
    space.map_frame(here, frame, Rights::READ_WRITE.user()).expect("nothing is there");
    let shared = Gpa(layout::BOOT_INFO.0);
    space.map(Gva(here.0 + MIB), shared, PageSize::Size4K, Rights::READ.user()).expect("nothing is there");
    assert_eq!(translate(here), None, "it is not active");

    // SAFETY: There is one CPU.
    unsafe { space.activate() };

    assert_eq!(walk(&space, here).map(|mapping| mapping.rights), Some(Rights::READ_WRITE.user()));
    assert_eq!(walk(&space, Gva(here.0 + MIB)).map(|mapping| mapping.gpa), Some(shared));
    assert!(walk(&space, code).is_some_and(|mapping| !mapping.rights.is_user()));
    assert_eq!(provoke::read(here), 42);
    let outside = space.map(HERE, shared, PageSize::Size4K, Rights::READ);
    assert_eq!(outside, Err(MapError::OutsideSpace { gva: HERE }));
    // What the kernel maps while a process runs is there for all.
    AddressSpace::kernel().map(HERE, shared, PageSize::Size4K, Rights::READ).expect("nothing is there");
    assert!(walk(&space, HERE).is_some());
    let tables_of_the_kernel = 2;

    drop(space);

    assert_eq!(cr3::read(), kernels, "the space that is gone is in use no more");
    assert_eq!((translate(here), translate(HERE).is_some()), (None, true));
    assert_eq!(frames::free_count(), free - tables_of_the_kernel);
}

#[guest_test]
fn the_end_of_the_kernels_addresses_can_be_mapped() {
    let last = Gva(FREE_ADDRESSES_END - PAGE_SIZE);
    let mut kernel = AddressSpace::kernel();
    kernel.map(last, Gpa(layout::BOOT_INFO.0), PageSize::Size4K, Rights::READ).expect("nothing is there");
    assert!(walk(&kernel, Gva(last.0 + PAGE_SIZE - 1)).is_some());
}
