//! Says hello from ring 3, and what number it has.

#![cfg_attr(target_os = "none", no_std, no_main)]

use user_library::calls::process_id;
use user_library::{entry, println};

entry!(main);

fn main() {
    println!("hello from ring 3: this is process {}", process_id());
}
