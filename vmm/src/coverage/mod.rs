//! Coverage: which lines of a guest's source its runs have reached, on stable and without touching the guest.
//!
//! A compiler that instruments code needs a runtime in the guest, and the guest would not be the one that users have. Here
//! the guest is as it was built, and the host watches it:
//!
//! 1. [`line_table`]: the image's debug information says at which addresses the code of a line begins.
//! 2. [`method`]: how this host's KVM tells that an address was reached, found out by trying.
//! 3. `recorder`: runs a machine with traps at these addresses, or step by step.
//! 4. [`lcov`]: what was reached, as a file that every tool for coverage reads.
//!
//! A line is covered when one of its addresses was reached: in a function that was compiled for several types, or copied
//! into others, in any of them. Code that the linker has left out has no lines.

pub mod lcov;
pub mod line_table;
pub mod method;
mod recorder;

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use shared_abi::Gva;

use crate::error::{Error, Result};
use crate::report::RunReport;
use crate::vm::Vm;

pub use line_table::{LineTable, LineTableError};
pub use method::Method;

/// The lines of an image, and which of them its runs have reached. Machines on several threads may share it.
#[derive(Debug)]
pub struct Coverage {
    table: LineTable,
    method: Method,
    reached: Mutex<BTreeSet<Gva>>,
}

impl Coverage {
    /// Nothing reached yet of the lines of `table`. Without a method, the best of this host is found by trying.
    ///
    /// # Errors
    /// [`Error::NoCoverage`] when no method works on this host, or it cannot be tried.
    pub fn new(table: LineTable, method: Option<Method>) -> Result<Self> {
        let method = match method {
            Some(method) => method,
            None => Method::of_this_host()?.ok_or(Error::NoCoverage)?,
        };
        Ok(Self::by(table, method))
    }

    fn by(table: LineTable, method: Method) -> Self {
        Self { table, method, reached: Mutex::default() }
    }

    /// How reached addresses are told.
    #[must_use]
    pub fn method(&self) -> Method {
        self.method
    }

    /// Runs a machine of the table's image, which has not run yet, and remembers what it reaches. Its end and its output are
    /// those of [`Vm::run`]; it takes longer, and so a time limit has to be larger by [`Method::patience`].
    ///
    /// # Errors
    /// What the host could not do.
    pub fn run(&self, vm: &mut Vm) -> Result<RunReport> {
        recorder::run(self, vm)
    }

    /// The addresses that have not been reached yet.
    fn wanted(&self) -> Vec<Gva> {
        let reached = self.reached();
        self.table.addresses().filter(|address| !reached.contains(address)).collect()
    }

    fn add(&self, addresses: BTreeSet<Gva>) {
        self.reached().extend(addresses);
    }

    fn reached(&self) -> MutexGuard<'_, BTreeSet<Gva>> {
        // A set of addresses is whole after every insertion.
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
