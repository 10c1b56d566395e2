//! Going back to a snapshot in the machine that it was taken of.

use std::path::Path;

use serde_json::json;

use crate::bare::Bare;
use crate::{Outcome, by_turns, kept, timed, to_first_exit};

const TOUCHED: usize = 16;
const PAGE: usize = 4096;

pub(crate) fn measure(guest: &Path) -> Outcome<()> {
    let (mut vm, snapshot) = kept(guest)?;
    let mut bare = Bare::new(&snapshot)?;
    let (from, mut to) = (vec![1_u8; TOUCHED * PAGE], vec![0_u8; TOUCHED * PAGE]);
    by_turns(
        "back in place, 16 pages",
        "calls and copy",
        &json!({ "ratio": 1.5, "median": 60_000 }),
        || {
            to_first_exit(&mut vm)?;
            timed(|| Ok(vm.restore(&snapshot)?))
        },
        || {
            bare.vcpu.run()?;
            timed(|| {
                bare.go_back()?;
                to.copy_from_slice(&from);
                Ok(())
            })
        },
    )
}
