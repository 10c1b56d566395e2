//! `Filter`: which exits a trace shows.

use std::str::FromStr;

use crate::observe::entry::{Kind, Target};

/// Which exits a trace shows: those that fit one of its words, or all when it has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Word>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Word {
    Kind(Kind),
    Port(u16),
    Gpa(u64),
    /// A part of what is shown of function, file and line, or of the handler's name.
    Text(String),
}

/// Words for several kinds at once.
const GROUPS: [(&str, &[Kind]); 2] =
    [("pio", &[Kind::PioIn, Kind::PioOut]), ("mmio", &[Kind::MmioRead, Kind::MmioWrite])];

impl Filter {
    /// Whether an exit fits; `text` gives what is shown of its place, and is asked last.
    pub(super) fn fits(&self, kind: Kind, target: Target, text: impl FnOnce() -> String) -> bool {
        let by_number = |word: &Word| match word {
            Word::Kind(own) => kind == *own,
            Word::Port(own) => target == Target::Port(*own),
            Word::Gpa(own) => matches!(target, Target::Memory(gpa) if gpa.0 == *own),
            Word::Text(_) => false,
        };
        if self.0.is_empty() || self.0.iter().any(by_number) {
            return true;
        }
        let parts =
            || self.0.iter().filter_map(|word| if let Word::Text(part) = word { Some(part) } else { None });
        if parts().next().is_none() {
            return false;
        }
        let text = text();
        parts().any(|part| text.contains(part.as_str()))
    }
}

impl FromStr for Filter {
    type Err = String;

    /// Reads words with commas between them: `pio`, `hypercall`, `port=0xe9`, `gpa=0xc0000000`, `println`.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Vec::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            if let Some((_, kinds)) = GROUPS.iter().find(|(name, _)| *name == part) {
                words.extend(kinds.iter().map(|kind| Word::Kind(*kind)));
            } else if let Some((kind, _)) = Kind::ALL.iter().find(|(_, name)| *name == part) {
                words.push(Word::Kind(*kind));
            } else if let Some(number) = part.strip_prefix("port=") {
                let port = number_of(number).and_then(|number| u16::try_from(number).ok());
                words.push(Word::Port(
                    port.ok_or_else(|| format!("`{number}` is no port: write 0xe9 or 233"))?,
                ));
            } else if let Some(number) = part.strip_prefix("gpa=") {
                let gpa = number_of(number);
                words.push(Word::Gpa(
                    gpa.ok_or_else(|| format!("`{number}` is no address: write 0xc0000000"))?,
                ));
            } else if part.contains('=') {
                return Err(format!("`{part}`: only `port=` and `gpa=` are known"));
            } else {
                words.push(Word::Text(part.to_owned()));
            }
        }
        Ok(Self(words))
    }
}

fn number_of(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(&digits.replace('_', ""), 16).ok(),
        None => text.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use shared_abi::Gpa;

    use super::*;

    fn shown(filter: &str, kind: Kind, target: Target) -> bool {
        let filter: Filter = filter.parse().expect("a filter");
        filter.fits(kind, target, || "console 01_hello::main at bin/01_hello.rs:28".to_owned())
    }

    #[test]
    fn an_exit_is_shown_when_one_word_fits() {
        let port = Target::Port(0xE9);
        for filter in ["", "pio", "pio-out", "port=0xe9", "port=233", "hello.rs:28", "mmio,main", "console"] {
            assert!(shown(filter, Kind::PioOut, port), "{filter}");
        }
        for filter in ["pio-in", "mmio,halt,hypercall", "port=0xf4", "nobody", "gpa=0xe9"] {
            assert!(!shown(filter, Kind::PioOut, port), "{filter}");
        }
        assert!(shown("gpa=0xc000_0000", Kind::MmioWrite, Target::Memory(Gpa(0xC000_0000))));
    }

    #[test]
    fn what_is_no_filter_is_named() {
        for wrong in ["port=", "port=0x10000", "gpa=x", "line=3"] {
            let error = wrong.parse::<Filter>().expect_err(wrong);
            assert!(error.contains('`'), "{error}");
        }
    }
}
