//! The floor that the VMM is measured against does what the VMM does: the same guest prints the same text.

use std::process::Command;

use xtask::workspace::{self, Profile};

use crate::harness::{Seen, guest, vmm_run};

#[test]
fn the_floor_prints_what_the_vmm_prints_and_ends_as_it_ends() {
    let programs = workspace::build_static(&["floor"], Profile::Debug).expect("the floor builds");

    let floor = Seen::of(Command::new(programs.join("floor")).arg(guest("01_hello")));
    let vmm = vmm_run("01_hello", &[]);

    assert_eq!((floor.code, &floor.stdout), (Some(0), &"hello from the guest\n".to_owned()), "{floor:?}");
    assert_eq!((floor.code, floor.stdout), (vmm.code, vmm.stdout));
}

#[test]
fn what_the_floor_cannot_do_it_names() {
    let programs = workspace::build_static(&["floor"], Profile::Debug).expect("the floor builds");

    let seen = Seen::of(Command::new(programs.join("floor")).arg("no-such-image"));

    assert_eq!((seen.code, seen.stderr.as_str()), (Some(100), "floor: open of the image\n"), "{seen:?}");
}
