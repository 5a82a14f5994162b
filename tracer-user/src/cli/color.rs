//! When the output is coloured.

use anstyle::{AnsiColor, Style};

/// The word before an error.
pub(super) const ERROR: Style = AnsiColor::Red.on_default().bold();
/// The word before a warning.
pub(super) const WARNING: Style = AnsiColor::Yellow.on_default().bold();

/// What is as it should be.
pub(super) const GOOD: Style = AnsiColor::Green.on_default();

/// `--color`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum When {
    /// On a terminal only, and not where `NO_COLOR` is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

impl When {
    /// Makes it the choice of every stream opened from here on.
    pub(super) fn apply(self) {
        match self {
            Self::Auto => anstream::ColorChoice::Auto,
            Self::Always => anstream::ColorChoice::Always,
            Self::Never => anstream::ColorChoice::Never,
        }
        .write_global();
    }
}

/// Says something to the person on standard error that is no result.
pub(super) fn note(text: &str) {
    anstream::eprintln!("tracer: {text}");
}

/// Warns on standard error.
pub(super) fn warn(text: &str) {
    anstream::eprintln!("{WARNING}tracer: warning:{WARNING:#} {text}");
}
