//! What the benchmarks here tell `cargo xtask bench`: a line of JSON for each thing that was measured, and how far they are.
//!
//! `xtask/src/bench/measurement.rs` reads them, and says what the words mean.

use std::time::Duration;

use serde_json::{Value, json};

/// How often each thing is measured, where a round is cheap.
pub(crate) const ROUNDS: u32 = 400;

/// `usual` rounds, or as many as somebody has asked for.
pub(crate) fn rounds(usual: u32) -> u32 {
    std::env::var("DUET_BENCH_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// One thing that is being measured beside its limit, round by round.
pub(crate) struct Pairs {
    name: String,
    limit_name: &'static str,
    rounds: u32,
    own: Vec<f64>,
    limit: Vec<f64>,
}

impl Pairs {
    /// Begins with `name`, whose limit is called `limit_name`.
    pub(crate) fn new(name: impl Into<String>, limit_name: &'static str, rounds: u32) -> Self {
        Self { name: name.into(), limit_name, rounds, own: Vec::new(), limit: Vec::new() }
    }

    /// Adds what one round has found.
    pub(crate) fn add(&mut self, own: Duration, limit: Duration) {
        self.own.push(own.as_secs_f64() * 1e9);
        self.limit.push(limit.as_secs_f64() * 1e9);
        progress(&self.name, self.own.len() as u32, self.rounds);
    }

    /// Tells what was found; `goal` is what is promised of it, such as `json!({ "ratio": 1.05 })`, or null.
    pub(crate) fn tell(self, group: &str, goal: &Value) {
        measured(json!({
            "group": group,
            "name": self.name,
            "unit": "nanoseconds",
            "samples": self.own,
            "limit": { "name": self.limit_name, "samples": self.limit },
            "goal": goal,
        }));
    }
}

/// Tells one measurement, whose fields are those of `Measurement` there.
pub(crate) fn measured(measurement: Value) {
    println!("{}", json!({ "measurement": measurement }));
}

/// Tells how far a measurement is.
pub(crate) fn progress(name: &str, done: u32, of: u32) {
    println!("{}", json!({ "progress": { "name": name, "done": done, "of": of } }));
}
