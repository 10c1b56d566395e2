//! Who presses interrupt lines, as it can be typed.

use std::time::Duration;

use clap::Args;

use super::machine::parse_time;

/// What on the host interrupts the guest.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Interrupting")]
pub(crate) struct Press {
    /// Press the guest's button with every line that is typed; the guest's console has no input then.
    #[arg(long)]
    pub(crate) button: bool,

    /// Press the guest's tick again and again: after so many seconds, or a number with ms, s or m.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub(crate) tick: Option<Duration>,
}
