//! The targets: what reads a stranger's bytes.

mod contract;
mod elf;
mod gdb;
mod guest_tests;
mod hypercalls;
mod image;
mod page_walk;
pub mod self_test;
mod snapshot;
mod symbols;

/// Something that is given any bytes and must not panic, hang, or take all memory.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// What it is called.
    pub name: &'static str,
    /// What reads the bytes, for people.
    pub about: &'static str,
    /// Reads them.
    pub run: fn(&[u8]),
    /// Good inputs to start from, beside those in files.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The largest input.
    pub max_size: usize,
    /// Whether it is one of those that run when none is named.
    pub is_hidden: bool,
}

impl Target {
    /// A target of small inputs.
    #[must_use]
    pub const fn new(
        name: &'static str,
        about: &'static str,
        run: fn(&[u8]),
        seeds: fn() -> Vec<Vec<u8>>,
    ) -> Self {
        Self { name, about, run, seeds, max_size: crate::corpus::MAX_FILE_SIZE * 2, is_hidden: false }
    }

    /// One of inputs that are larger.
    const fn up_to(self, max_size: usize) -> Self {
        Self { max_size, ..self }
    }

    const fn hidden(self) -> Self {
        Self { is_hidden: true, ..self }
    }
}

/// All targets: a new one is a line here and a file beside this one.
pub const TARGETS: &[Target] = &[
    Target::new("elf", "ELF images: opening, planning, loading", elf::run, elf::seeds),
    Target::new("contract", "the notes in which a guest says its contract", contract::run, contract::seeds),
    Target::new("gdb", "packets of a debugger", gdb::run, gdb::seeds),
    Target::new("guest-tests", "lists of tests in images", guest_tests::run, guest_tests::seeds),
    Target::new("hypercalls", "calls of a guest, answered by a machine", hypercalls::run, hypercalls::seeds),
    Target::new("page-walk", "page tables that a guest has built", page_walk::run, page_walk::seeds),
    Target::new("snapshot", "files of snapshots", snapshot::run, snapshot::seeds).up_to(256 << 10),
    Target::new("symbols", "debug information and symbol tables", symbols::run, symbols::seeds),
    Target::new("self-test", "a planted bug", self_test::run, self_test::seeds).hidden(),
    Target::new("self-test-abort", "one that is deadly", self_test::abort, self_test::seeds).hidden(),
    Target::new("self-test-hang", "one that is endless", self_test::hang, self_test::seeds).hidden(),
];

/// The target of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}

/// Takes an input apart. When it is used up, what comes is 0.
struct Words<'a>(&'a [u8]);

impl Words<'_> {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// Eight bytes; or one, for the numbers at which arithmetic goes wrong and for small ones.
    fn word(&mut self) -> u64 {
        use crate::mutate::TROUBLE;
        match self.byte() {
            0xFF => u64::from_le_bytes(std::array::from_fn(|_| self.byte())),
            byte @ 0xC0.. => TROUBLE[usize::from(byte) % TROUBLE.len()],
            byte @ 0x80.. => u64::from(byte - 0x80) << 12,
            byte => u64::from(byte),
        }
    }
}
