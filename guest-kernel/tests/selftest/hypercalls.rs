//! Asking the host.

use guest_kernel::hypercall::{
    self, ExitKind, Hypercall, HypercallError, call, exit_count, exit_count_of, monotonic_ns, random_bytes,
    wall_ns,
};
use guest_kernel::{Gva, guest_test, print_raw};
use shared_abi::hypercall::{LogLevel, MAX_LOG_TEXT, MAX_RANDOM_BYTES};
use shared_abi::layout;

#[guest_test(max_exits = 2)]
fn every_call_is_an_exit_and_counts_itself() {
    assert_eq!((exit_count(), exit_count()), (1, 2));
}

#[guest_test(max_exits = 4)]
fn exits_are_counted_by_kind() {
    print_raw!("ab");
    assert_eq!(exit_count_of(ExitKind::PioOut), 2);
    assert_eq!(exit_count_of(ExitKind::Hypercall), 2);
}

#[guest_test(max_exits = 2)]
fn the_monotonic_clock_never_goes_back() {
    let first = monotonic_ns();
    assert!(monotonic_ns() >= first);
}

#[guest_test]
fn the_wall_clock_is_past_2025() {
    const YEAR_2025_NS: u64 = 1_735_689_600 * 1_000_000_000;
    assert!(wall_ns() > YEAR_2025_NS);
}

#[guest_test(max_exits = 2)]
fn random_bytes_are_not_the_same_twice() -> Result<(), HypercallError> {
    let (mut first, mut second) = ([0; 16], [0; 16]);
    random_bytes(&mut first)?;
    random_bytes(&mut second)?;
    assert_ne!(first, second);
    Ok(())
}

#[guest_test(max_exits = 1)]
fn too_many_random_bytes_are_refused_before_memory_is_looked_at() {
    let (buffer_gva, buffer_size) = (layout::NULL_PAGE.0, MAX_RANDOM_BYTES + 1);
    let answer = call(Hypercall::RandomBytes { buffer_gva: Gva(buffer_gva), buffer_size });
    assert!(matches!(answer, Err(HypercallError::TooLarge | HypercallError::BadAddress)), "{answer:?}");
}

#[guest_test(max_exits = 1)]
fn text_that_is_not_mapped_is_a_bad_address() {
    let answer = call(Hypercall::ConsoleWrite { text_gva: Gva(layout::NULL_PAGE.0), text_size: 4 });
    assert_eq!(answer, Err(HypercallError::BadAddress));
}

#[guest_test(max_exits = 1)]
fn the_host_writes_where_the_guest_may_only() {
    static CONSTANT: [u8; 4] = *b"keep";
    let buffer_gva = Gva(CONSTANT.as_ptr() as u64);
    let answer = call(Hypercall::RandomBytes { buffer_gva, buffer_size: 4 });
    assert_eq!((answer, &CONSTANT), (Err(HypercallError::BadAddress), b"keep"));
}

#[guest_test(max_exits = 1)]
fn a_log_record_is_taken() -> Result<(), HypercallError> {
    hypercall::log(LogLevel::Info, "selftest", "hello")
}

#[guest_test(max_exits = 1)]
fn a_log_record_that_is_too_long_is_refused() {
    static TEXT: [u8; MAX_LOG_TEXT as usize + 1] = [b'x'; _];
    let text = core::str::from_utf8(&TEXT[..1]).expect("ASCII");
    let answer = call(Hypercall::Log {
        level: LogLevel::Info,
        target_gva: Gva(text.as_ptr() as u64),
        target_size: 1,
        text_gva: Gva(TEXT.as_ptr() as u64),
        text_size: TEXT.len() as u64,
    });
    assert_eq!(answer, Err(HypercallError::TooLarge));
}
