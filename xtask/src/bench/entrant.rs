//! `Entrant`: a program that takes its turn in each round, and what was seen of it.

use std::path::Path;
use std::process::ExitStatus;
use std::str::FromStr;

use anyhow::{Result, bail};

use super::process::Program;
use super::statistics::Samples;

/// A program among those that are compared.
#[derive(Debug)]
pub(super) struct Entrant {
    /// What it is called.
    pub(super) name: String,
    program: Program,
    expected: Expected,
    /// What it has taken, a sample for each turn.
    pub(super) first_byte: Samples,
    pub(super) end: Samples,
    pub(super) peak_memory: Samples,
    pub(super) system_calls: Samples,
    pub(super) page_faults: Samples,
}

/// What it has to do.
#[derive(Debug)]
enum Expected {
    /// To print this, and to end well.
    Text(&'static [u8]),
    /// To print anything, and to end always as it has ended first.
    Same(Option<ExitStatus>),
}

impl Entrant {
    /// A program of ours, that prints `text`.
    pub(super) fn ours(name: &str, program: Program, text: &'static [u8]) -> Self {
        Self::new(name.to_owned(), program, Expected::Text(text))
    }

    /// Somebody else's. A name that is already there gets a number.
    pub(super) fn rival(rival: &Rival, image: &Path, others: &[Self]) -> Self {
        let name = rival.name();
        let namesakes = others.iter().filter(|other| other.name.split(' ').next() == Some(&name)).count();
        let name = if namesakes == 0 { name } else { format!("{name} {}", namesakes + 1) };
        Self::new(name, rival.program(image), Expected::Same(None))
    }

    fn new(name: String, program: Program, expected: Expected) -> Self {
        let none = Samples::default;
        let (first_byte, end, peak_memory) = (none(), none(), none());
        Self {
            name,
            program,
            expected,
            first_byte,
            end,
            peak_memory,
            system_calls: none(),
            page_faults: none(),
        }
    }

    /// Runs it once and takes the time.
    ///
    /// # Errors
    /// When it does not do what it has to.
    pub(super) fn take_time(&mut self) -> Result<()> {
        let run = match &mut self.expected {
            Expected::Text(text) => self.program.run(text)?,
            Expected::Same(first) => {
                let (run, status) = self.program.run_foreign()?;
                if *first.get_or_insert(status) != status {
                    bail!("`{}` ends now so, now so: {first:?}, {status}", self.program.typed());
                }
                run
            }
        };
        self.first_byte.add(run.first_byte);
        self.end.add(run.end);
        Ok(())
    }

    /// Runs it once and counts what it asks of the kernel.
    ///
    /// # Errors
    /// When that cannot be counted.
    pub(super) fn count(&mut self) -> Result<()> {
        let counts = self.program.counts()?;
        self.peak_memory.add_number(counts.peak_memory as f64);
        self.system_calls.add_number(counts.system_calls as f64);
        self.page_faults.add_number(counts.page_faults as f64);
        Ok(())
    }

    /// Its name, and how it ends where that is not well.
    pub(super) fn name_and_status(&self) -> String {
        match &self.expected {
            Expected::Same(Some(status)) if !status.success() => format!("{} ({status})", self.name),
            _ => self.name.clone(),
        }
    }
}

/// Somebody else's command, as typed behind `--vs`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rival {
    words: Vec<String>,
}

impl FromStr for Rival {
    type Err = String;

    /// Splits it as a shell would, and runs no shell.
    fn from_str(typed: &str) -> Result<Self, String> {
        let words = shell_words::split(typed).map_err(|error| error.to_string())?;
        if words.is_empty() { Err("it has no words".to_owned()) } else { Ok(Self { words }) }
    }
}

impl Rival {
    fn name(&self) -> String {
        let program = self.words.first().map(Path::new).and_then(Path::file_name);
        program.unwrap_or_default().to_string_lossy().into_owned()
    }

    /// The image stands where `{}` is.
    fn program(&self, image: &Path) -> Program {
        let image = image.to_string_lossy();
        Program::new(self.words.iter().map(|word| word.replace("{}", &image)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rival(typed: &str) -> Rival {
        typed.parse().expect("it has words")
    }

    #[test]
    fn a_rival_is_split_as_by_a_shell_and_gets_the_image_where_it_asks() {
        let rival = rival("/usr/bin/qemu -append 'a b' -kernel={} {}");
        assert_eq!(rival.program(Path::new("/k")).typed(), "qemu -append a b -kernel=/k /k");
        assert_eq!(rival.name(), "qemu");
        assert_eq!("'open".parse::<Rival>().map_err(|error| error.contains("quote")), Err(true));
        assert_eq!(" ".parse::<Rival>(), Err("it has no words".to_owned()));
    }

    #[test]
    fn namesakes_are_told_apart_and_an_odd_end_is_named() {
        let mut entrants: Vec<Entrant> = Vec::new();
        for script in ["exit 3", ":"] {
            let rival = rival(&format!("sh -c 'echo {{}}; {script}'"));
            entrants.push(Entrant::rival(&rival, Path::new("/k"), &entrants));
        }
        for entrant in &mut entrants {
            entrant.take_time().expect("it prints");
            entrant.take_time().expect("it ends as before");
        }
        let names: Vec<_> = entrants.iter().map(Entrant::name_and_status).collect();
        assert_eq!(names, ["sh (exit status: 3)", "sh 2"]);
        assert_eq!(entrants[0].end.count(), 2);
    }

    #[test]
    fn who_ends_now_so_now_so_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let script = "echo x; if [ -e been ]; then exit 1; fi; : > been";
        let been = folder.path().join("been");
        let rival = Rival {
            words: ["sh", "-c", &script.replace("been", &been.to_string_lossy())].map(str::to_owned).to_vec(),
        };
        let mut entrant = Entrant::rival(&rival, Path::new("/k"), &[]);
        entrant.take_time().expect("the first is as it is");
        assert!(entrant.take_time().is_err_and(|error| error.to_string().contains("now so")));
    }
}
