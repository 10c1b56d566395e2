//! The host's log, as far as guests add to it.

use std::fmt;

use shared_abi::hypercall::LogLevel;

/// A record that a guest made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogRecord {
    /// How important it is.
    pub level: LogLevel,
    /// What it is about.
    pub target: String,
    /// The message.
    pub text: String,
}

impl fmt::Display for LogRecord {
    /// One line, without the guest's control characters: a log goes to terminals.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            LogLevel::Error => "ERROR",
            LogLevel::Warn => "WARN",
            LogLevel::Info => "INFO",
            LogLevel::Debug => "DEBUG",
            LogLevel::Trace => "TRACE",
        };
        write!(f, "{level} {}: {}", OneLine(&self.target), OneLine(&self.text))
    }
}

/// Text with every control character escaped.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if character.is_control() {
                write!(f, "{}", character.escape_default())?;
            } else {
                write!(f, "{character}")?;
            }
        }
        Ok(())
    }
}

/// Where records go.
pub struct Log(Box<dyn Fn(&LogRecord) + Send + Sync>);

impl Log {
    /// To a function of the embedding program.
    #[must_use]
    pub fn to(sink: impl Fn(&LogRecord) + Send + Sync + 'static) -> Self {
        Self(Box::new(sink))
    }

    /// Nowhere.
    #[must_use]
    pub fn discard() -> Self {
        Self::to(|_| {})
    }

    pub(crate) fn add(&self, record: &LogRecord) {
        (self.0)(record);
    }
}

impl fmt::Debug for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Log")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        let record = LogRecord { level: LogLevel::Info, target: "t".into(), text: "a\n\u{1b}[31mb".into() };
        assert_eq!(record.to_string(), "INFO t: a\\n\\u{1b}[31mb");
    }
}
