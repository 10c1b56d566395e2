//! `Origin`: the line of this program's own source that did something.
//!
//! What is built keeps the line that built it: memory the `mmap`, a region its place in the plan, a vCPU its ioctls.
//! So [`explain`](crate::explain) names lines that nobody typed, and that stay right when the source changes. A line
//! is a pointer to a constant that the compiler makes (`#[track_caller]`); keeping one costs nothing.

use std::fmt;
use std::panic::Location;

use serde::{Serialize, Serializer, ser::SerializeStruct};

/// A line of this program's source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(&'static Location<'static>);

impl Origin {
    /// The line that calls this. In a function marked `#[track_caller]`, the line that calls that function, and so on.
    #[must_use]
    #[track_caller]
    pub fn here() -> Self {
        Self(Location::caller())
    }

    /// What was done, and the line that says so: `Origin::of(do_it())`.
    #[track_caller]
    pub fn of<T>(done: T) -> (T, Self) {
        (done, Self::here())
    }

    /// The file, relative to the workspace that the program was built in.
    #[must_use]
    pub fn file(&self) -> &'static str {
        self.0.file()
    }

    /// The line, from 1.
    #[must_use]
    pub fn line(&self) -> u32 {
        self.0.line()
    }
}

impl fmt::Display for Origin {
    /// `file:line`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file(), self.line())
    }
}

impl Serialize for Origin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut origin = serializer.serialize_struct("Origin", 2)?;
        origin.serialize_field("file", self.file())?;
        origin.serialize_field("line", &self.line())?;
        origin.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_the_line_that_did_it() {
        let (three, origin) = Origin::of(1 + 2);
        assert_eq!((three, origin.line()), (3, line!() - 1));
        assert_eq!(origin.to_string(), format!("{}:{}", file!(), line!() - 2));
    }
}
