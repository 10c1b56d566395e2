//! How a guest ends.
//!
//! A real machine has no exit code. Ours has a port for it: what is written there ends the run, and the VMM's
//! process quits with it (`vmm --help` has the table).

use shared_abi::ports;

use crate::cpu::{halt::halt_forever, port};

/// Ends the run with `code`: 0 to [`exit_code::LAST`](shared_abi::exit_code::LAST) are the program's own.
pub fn exit(code: u32) -> ! {
    // The port and not the hypercall: it works without a contract, and in the last moments of a broken kernel.
    port::outl(ports::EXIT, code);
    // Under another VMM nothing may listen at the port.
    halt_forever()
}
