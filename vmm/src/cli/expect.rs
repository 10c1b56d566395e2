//! What a guest is expected to leave behind, as it can be typed.

use std::str::FromStr;

use clap::Args;
use shared_abi::Gpa;
use vmm::Vm;
use vmm::explain::parse_address;

/// What must hold when the guest has ended.
#[derive(Args, Debug, Default)]
#[command(next_help_heading = "Expecting")]
pub(crate) struct Expectations {
    /// Expect this number in RAX when the guest has ended. What does not hold is said, and the exit code is 103.
    #[arg(long = "expect-rax", value_name = "NUMBER", value_parser = number)]
    expected_rax: Option<u64>,

    /// Expect this number in guest memory, by physical address, in the 8 bytes there or in SIZE (1, 2, 4, 8) of them, the
    /// lowest first; may stand several times.
    #[arg(long = "expect-mem", value_name = "GPA[:SIZE]=NUMBER")]
    expected_words: Vec<ExpectedWord>,
}

impl Expectations {
    /// A sentence about each expectation that does not hold, without full stop.
    pub(crate) fn unmet(&self, vm: &Vm) -> vmm::Result<Vec<String>> {
        let mut unmet = Vec::new();
        if let Some(expected) = self.expected_rax {
            let rax = vm.cpu_state()?.general.rax;
            if rax != expected {
                unmet.push(format!("RAX was expected to be {}, and is {}", both(expected), both(rax)));
            }
        }
        unmet.extend(self.expected_words.iter().filter_map(|word| word.unmet(vm)));
        Ok(unmet)
    }
}

/// A number in guest memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct ExpectedWord {
    gpa: Gpa,
    size: usize,
    value: u64,
}

impl ExpectedWord {
    fn unmet(&self, vm: &Vm) -> Option<String> {
        let &Self { gpa, size, value } = self;
        let mut bytes = [0; 8];
        let part = bytes.get_mut(..size).expect("at most 8");
        if vm.memory().read(gpa, part).is_err() {
            return Some(format!("GPA {gpa} was expected to hold {}, and no RAM is there", both(value)));
        }
        let found = u64::from_le_bytes(bytes);
        let differs = format!("GPA {gpa} was expected to hold {}, and holds {}", both(value), both(found));
        (found != value).then_some(differs)
    }
}

impl FromStr for ExpectedWord {
    type Err = String;

    /// Reads `0x400=42` or `0x400:2=42`.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not GPA=NUMBER or GPA:SIZE=NUMBER, such as 0x400=42 or 0x400:2=42");
        let (place, value) = text.split_once('=').ok_or_else(wrong)?;
        let (gpa, size) = place.split_once(':').unwrap_or((place, "8"));
        let gpa = Gpa(parse_address(gpa).ok_or_else(wrong)?);
        let value = parse_address(value).ok_or_else(wrong)?;
        let size = match size {
            "1" => 1,
            "2" => 2,
            "4" => 4,
            "8" => 8,
            other => return Err(format!("{other} bytes are not 1, 2, 4 or 8")),
        };
        if size < 8 && value >> (size * 8) != 0 {
            return Err(format!("{value} does not fit {size} bytes"));
        }
        Ok(Self { gpa, size, value })
    }
}

/// Reads a number: decimal, or hexadecimal with `0x`.
fn number(text: &str) -> Result<u64, String> {
    parse_address(text).ok_or_else(|| {
        format!("`{text}` is not a number: write decimal digits, or hexadecimal ones behind 0x")
    })
}

/// A number as people and as machines write it.
fn both(number: u64) -> String {
    format!("{number} ({number:#x})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_words_are_read_with_their_size() {
        let word = |gpa, size, value| Ok(ExpectedWord { gpa: Gpa(gpa), size, value });
        assert_eq!("0x400=42".parse(), word(0x400, 8, 42));
        assert_eq!("1024:2=0x2a".parse(), word(0x400, 2, 42));
        for wrong in ["", "0x400", "=42", "0x400:3=1", "0x400:1=256", "0x400=-1", "x=1"] {
            assert!(wrong.parse::<ExpectedWord>().is_err(), "{wrong}");
        }
    }
}
