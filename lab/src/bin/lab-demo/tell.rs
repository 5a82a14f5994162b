//! How the story is told: chapters, narration, commands, what came back.

use anstream::println;
use anstyle::{AnsiColor, Style};

const TITLE: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();
const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// Begins a chapter.
pub(crate) fn chapter(number: usize, title: &str) {
    println!("\n{TITLE}{number}. {title}{TITLE:#}");
}

/// A paragraph of narration.
pub(crate) fn say(text: &str) {
    for line in text.lines() {
        println!("   {line}");
    }
}

/// A command as one would type it.
pub(crate) fn command(line: &str) {
    println!("   {DIM}${DIM:#} {line}");
}

/// What a program or a person got to see.
pub(crate) fn shown(text: &str) {
    for line in text.lines() {
        println!("     {line}");
    }
}

/// Something that works.
pub(crate) fn works(what: &str, got: &str) {
    println!("   {GOOD}works{GOOD:#}  {what}: {got}");
}

/// Something that fails.
pub(crate) fn fails(what: &str, got: &str) {
    println!("   {BAD}fails{BAD:#}  {what}: {got}");
}

/// Something that was checked.
pub(crate) fn checked(what: &str) {
    println!("   {GOOD}✓{GOOD:#} {what}");
}

/// The end of a story that was not observed.
pub(crate) fn failure(text: &str) {
    println!("\n{BAD}The story did not come out:{BAD:#} {text}");
}
