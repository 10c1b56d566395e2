//! Explaining a machine: what lies where, how addresses are translated, what a run did, told from the live machine.
//!
//! ```text
//! moment    which tables the machine uses, at its start or where it stopped
//! rules     what the bits of an entry mean for a walk
//! tables    everything that CR3 leads to, within limits      -> Scan
//! pieces    what lies where in guest-physical memory         -> Piece
//! map       both together, row by row                        -> MemoryMap
//!   lint      what is wrong with the mappings                -> Finding
//! tree      the tables as a tree                             -> TableTree
//! walk      one address, every entry with every bit          -> Walk
//!   bits      the names of the bits                          -> Bit
//! answers   every question about a machine, in order         -> Answers
//!   watch       an observer of the run                       -> SeenExit
//!   run_answers what the run did                             -> RunAnswers
//! peek      bytes of guest memory                            -> Peek
//! text, map_text    how people see them
//! ```
//!
//! All results are plain data that serialize; [`VERSION`] counts changes of their form. A guest may have written the
//! tables, the image and the registers that are explained here: nothing of it can make an explanation fail, take long or
//! grow without limit.

mod answers;
mod bits;
mod lint;
mod map;
mod map_text;
mod moment;
mod peek;
mod pieces;
mod rules;
mod run_answers;
mod tables;
mod text;
mod tree;
mod walk;
mod watch;
mod words;

pub use answers::{
    Answers, MAX_MAPPINGS, MemoryAnswer, PlaceAnswer, RegionAnswer, StartAnswer, TablesAnswer, VcpuAnswer,
};
pub use bits::{Bit, bits};
pub use lint::{Finding, Sin};
pub use map::{MemoryMap, Row};
pub use moment::{Moment, When};
pub use peek::{MAX_PEEK, Peek, PeekRequest, Space, parse_address};
pub use pieces::Purpose;
pub use rules::Rules;
pub use run_answers::{PrintAnswer, ResultAnswer, RunAnswers, run, run_with};
pub use tables::{BadEntry, Entries, EntryFault, Limits, MappedRun, Scan, TablePage, read_table, scan};
pub use text::{Fact, Section};
pub use tree::{EntryLeads, EntryRun, TableNode, TableTree};
pub use walk::{Page, Step, Walk};
pub use watch::{SeenExit, Way};
pub(crate) use words::size;
pub use words::{Hex, PageRights, Span};

/// The form of everything here that serializes. A field that is renamed, removed or changes its meaning makes a new one.
pub const VERSION: u32 = 1;
