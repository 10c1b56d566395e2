//! Fuzzing: whatever reads a stranger's bytes is given any, for a while, and must neither panic, nor hang, nor take all memory.
//!
//! ```text
//! corpus ──► pool ──► an input, changed a little ──► target ──► reached something new? ──► pool
//!            ▲          `mutate.rs`                 `targets/`    `edges.rs`               │
//!            └─────────────────────────────────────────────────────────────────────────────┘
//!                                                       └─► died? ──► made smaller, saved     `shrink.rs`, `parent.rs`
//! ```
//!
//! The engine is ours because it can be small: libFuzzer needs a C++ compiler, cargo-fuzz a nightly one, and LibAFL is larger
//! than all that is tested here. What makes them good is to be told which code an input has reached, and a stable compiler
//! tells it, too (`-Cpasses=sancov-module`). `cargo xtask fuzz` builds it so.
//!
//! [`targets::TARGETS`] is the list to add to.

pub mod child;
pub mod corpus;
pub mod edges;
pub mod engine;
pub mod mutate;
pub mod parent;
pub mod shrink;
pub mod targets;
