//! Files, for a guest that was granted none.

use guest_kernel::files::{self, Directory, File};
use guest_kernel::guest_test;
use guest_kernel::hypercall::HypercallError;
use guest_kernel::io;

const NOT_GRANTED: Option<io::Error> = Some(io::Error::Host(HypercallError::NotGranted));

#[guest_test(max_exits = 1)]
fn nothing_opens() {
    assert_eq!(File::open("anything").err(), NOT_GRANTED);
}

#[guest_test(max_exits = 1)]
fn nothing_is_made() {
    assert_eq!(File::create("anything").err(), NOT_GRANTED);
}

#[guest_test(max_exits = 1)]
fn there_is_no_directory() {
    assert_eq!(Directory::open(".").err(), NOT_GRANTED);
}

#[guest_test(max_exits = 1)]
fn there_is_nothing_to_ask_about() {
    assert_eq!(files::stat("anything").err(), NOT_GRANTED);
}

#[guest_test(max_exits = 1)]
fn there_is_nothing_to_remove() {
    assert_eq!(files::remove("anything").err(), NOT_GRANTED);
}
