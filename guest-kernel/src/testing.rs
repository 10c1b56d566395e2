//! In-guest tests: each runs in a virtual machine of its own.
//!
//! ```no_run,ignore-none
//! use guest_kernel::{guest_test, println};
//!
//! #[guest_test]
//! fn one_and_one_is_two() {
//!     assert_eq!(1 + 1, 2);
//! }
//!
//! #[guest_test(max_exits = 1, prints = "hello")]
//! fn a_line_is_one_exit() {
//!     println!("hello");
//! }
//! ```
//!
//! They may stand in this library, in a program, in `guest-kernel/tests`, and in anybody's own program that starts with
//! [`entry!`](crate::entry); next to the code or in a module `#[cfg(test)] mod tests`. `cargo xtask test --guest` runs
//! them all, `cargo test --target x86_64-unknown-none --bin NAME` those of one program, where our VMM is the runner.
//!
//! A test holds when it returns, or returns `Ok`. Between the parentheses stand, in any number, the functions of
//! [`GuestTest`]: other ways to end, such as `should_fault = PageFault, address = 0x8`, and budgets. The exits of a budget are all that the test causes itself, beside the
//! one that ends it. A test with a budget of instructions is stepped through, which takes 10 µs for each of them.
//!
//! In a package of your own, `harness = false` must stand beside the program in `Cargo.toml`: `rustc --test` needs a
//! library that the target does not have. Here `guest-kernel/libtest` stands in for it.
//!
//! A test image has no `main`: what `entry!` makes of it runs the one test that the guest's first argument names. Where
//! the tests are, the host reads from the image (`shared-abi/src/guest_test.rs`); it runs them in
//! `vmm/src/guest_tests/`.

use core::fmt::Debug;

use shared_abi::exit_code;
use shared_abi::guest_test::{ANY, Ending, TestNote, TestRecord, UNLIMITED};
use shared_abi::{BootInfo, Vector};

/// A test as `#[guest_test]` registers it. Its functions are what may stand between the parentheses.
#[derive(Debug)]
#[repr(transparent)]
pub struct GuestTest(TestRecord<*const u8, fn()>);

// SAFETY: The pointers are to string literals, which nobody changes.
unsafe impl Sync for GuestTest {}

impl GuestTest {
    /// A test that must return.
    #[doc(hidden)]
    #[must_use]
    pub const fn new(path: &'static str, file: &'static str, line: u32, run: fn()) -> Self {
        let name = without_crate(path);
        Self(TestRecord {
            run,
            name: name.as_ptr(),
            name_size: name.len() as u64,
            file: file.as_ptr(),
            file_size: file.len() as u64,
            line: line as u64,
            ending: Ending::Exit as u64,
            code: exit_code::SUCCESS as u64,
            vector: ANY,
            address: ANY,
            prints: "".as_ptr(),
            prints_size: 0,
            max_exits: UNLIMITED,
            timeout_ms: UNLIMITED,
            max_instructions: UNLIMITED,
            ignored: 0,
            cpus: 1,
        })
    }

    /// Must panic. `prints` tells which panic is meant.
    #[must_use]
    pub const fn should_panic(self) -> Self {
        self.exit_code(exit_code::PANICKED)
    }

    /// Must end the guest with this exit code.
    #[must_use]
    pub const fn exit_code(mut self, code: u32) -> Self {
        self.0.ending = Ending::Exit as u64;
        self.0.code = code as u64;
        self
    }

    /// Must die of an exception that nothing handles. To survive the crime is to fail.
    #[must_use]
    pub const fn should_fault(mut self) -> Self {
        self.0.ending = Ending::Fault as u64;
        self
    }

    /// Must die of this exception: between the parentheses stands `should_fault = PageFault`.
    #[must_use]
    pub const fn should_fault_with(mut self, vector: Vector) -> Self {
        self.0.vector = vector as u64;
        self.should_fault()
    }

    /// Must die of an access to this address, which CR2 holds: `should_fault = PageFault, address = 0x8`.
    #[must_use]
    pub const fn address(mut self, address: u64) -> Self {
        self.0.address = address;
        self
    }

    /// Must print this, and may print more.
    #[must_use]
    pub const fn prints(mut self, text: &'static str) -> Self {
        self.0.prints = text.as_ptr();
        self.0.prints_size = text.len() as u64;
        self
    }

    /// May cause no more exits than this, beside the one that ends it.
    #[must_use]
    pub const fn max_exits(mut self, exits: u64) -> Self {
        self.0.max_exits = exits;
        self
    }

    /// May take no longer than this.
    #[must_use]
    pub const fn timeout_ms(mut self, milliseconds: u64) -> Self {
        self.0.timeout_ms = milliseconds;
        self
    }

    /// May execute no more instructions than this, from the call of its function to the return from it. Only what the
    /// compiler makes of a program can be counted: the number differs between `--debug` and `--release`.
    #[must_use]
    pub const fn max_instructions(mut self, instructions: u64) -> Self {
        assert!(self.0.cpus == 1, "instructions are counted on one CPU");
        self.0.max_instructions = instructions;
        self
    }

    /// Runs in a machine of so many CPUs. The test starts on the first.
    ///
    /// # Panics
    /// When compiled, for a number that no machine has, and beside [`max_instructions`](Self::max_instructions): several
    /// CPUs execute at once.
    #[must_use]
    pub const fn cpus(mut self, count: u64) -> Self {
        assert!(count >= 1 && count <= BootInfo::MAX_VCPUS, "a machine has 1 to 64 CPUs");
        assert!(self.0.max_instructions == UNLIMITED, "instructions are counted on one CPU");
        self.0.cpus = count;
        self
    }

    /// Runs only when asked for, by `--ignored` or `--include-ignored`.
    #[must_use]
    pub const fn ignore(mut self) -> Self {
        self.0.ignored = 1;
        self
    }
}

/// `console::tests::claim` of `guest_kernel::console::tests::claim`.
const fn without_crate(path: &'static str) -> &'static str {
    let bytes = path.as_bytes();
    let mut index = 0;
    while index < bytes.len() && bytes[index] != b':' {
        index += 1;
    }
    path.split_at(index).1.split_at(2).1
}

/// What a test may return.
pub trait Outcome {
    /// Panics unless the test has held.
    fn check(self);
}

impl Outcome for () {
    fn check(self) {}
}

impl<T, E: Debug> Outcome for Result<T, E> {
    fn check(self) {
        if let Err(error) = self {
            panic!("the test returned Err({error:?})");
        }
    }
}

/// The note that tells the host where the tests of this image are.
#[derive(Debug)]
#[repr(transparent)]
pub struct Tests(TestNote<*const GuestTest>);

// SAFETY: The addresses are the linker's and never change.
unsafe impl Sync for Tests {}

#[cfg(target_os = "none")]
unsafe extern "C" {
    /// Where the first record is; `link.ld` defines it.
    static TESTS_START: u8;
    /// Behind the last record; `link.ld` defines it.
    static TESTS_END: u8;
}

#[cfg(target_os = "none")]
impl Tests {
    /// The tests that the linker has collected.
    pub const THIS: Self =
        Self(TestNote::new((&raw const TESTS_START).cast(), (&raw const TESTS_END).cast()));

    fn all() -> &'static [GuestTest] {
        let (start, end) = (&raw const TESTS_START, &raw const TESTS_END);
        let count = (end.addr() - start.addr()) / size_of::<GuestTest>();
        // SAFETY: Between the two addresses, which `link.ld` aligns, the linker has put records and nothing else: only
        // `register_test!` puts anything into that section.
        unsafe { core::slice::from_raw_parts(start.cast(), count) }
    }
}

#[cfg(target_os = "none")]
impl GuestTest {
    fn name(&self) -> &'static str {
        // SAFETY: `new` took address and size of a `&'static str`.
        unsafe {
            let bytes = core::slice::from_raw_parts(self.0.name, self.0.name_size as usize);
            core::str::from_utf8_unchecked(bytes)
        }
    }
}

/// Runs the test that the guest's argument names; without one, shows which there are.
#[cfg(target_os = "none")]
pub fn run_requested() {
    let tests = Tests::all();
    let mut words = crate::arguments();
    let Some(name) = words.next() else {
        return tests.iter().for_each(|test| crate::println!("{}", test.name()));
    };
    // The host tells the place, too; a person who types a name does not.
    let place = words.next().and_then(|word| word.parse::<usize>().ok());
    let test = place.and_then(|place| tests.get(place));
    match test.or_else(|| tests.iter().find(|test| test.name() == name)) {
        Some(test) => (test.0.run)(),
        None => panic!("this image has no test `{name}`"),
    }
}

/// Makes an image of tests out of a file that has no program: `test_main!();`. [`entry!`](crate::entry) does so for
/// programs.
#[macro_export]
macro_rules! test_main {
    () => {
        #[cfg(all(test, target_os = "none"))]
        const _: () = {
            #[used]
            #[unsafe(link_section = ".note.duet")]
            static TESTS: $crate::testing::Tests = $crate::testing::Tests::THIS;

            #[unsafe(no_mangle)]
            extern "C" fn guest_main() {
                $crate::testing::run_requested();
            }
        };
    };
}

/// Registers a function as a test; `#[guest_test]` writes it. On the host it is compiled and never run.
#[doc(hidden)]
#[macro_export]
macro_rules! register_test {
    ($function:ident, $($options:tt)*) => {
        #[cfg(test)]
        const _: () = {
            #[used]
            #[cfg_attr(target_os = "none", unsafe(link_section = ".duet.tests"))]
            static TEST: $crate::testing::GuestTest = $crate::register_test!(
                @with {
                    $crate::testing::GuestTest::new(
                        concat!(module_path!(), "::", stringify!($function)),
                        file!(),
                        line!(),
                        || $crate::testing::Outcome::check($function()),
                    )
                }
                $($options)*
            );
        };
    };
    (@with { $($test:tt)* }) => { $($test)* };
    (@with { $($test:tt)* } should_fault = $vector:ident $(, $($more:tt)*)?) => {
        $crate::register_test!(
            @with { $($test)*.should_fault_with($crate::exceptions::Vector::$vector) } $($($more)*)?
        )
    };
    (@with { $($test:tt)* } $option:ident $(= $value:expr)? $(, $($more:tt)*)?) => {
        $crate::register_test!(@with { $($test)*.$option($($value)?) } $($($more)*)?)
    };
}
