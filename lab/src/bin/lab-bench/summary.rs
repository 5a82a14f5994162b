//! The figures, as JSON and as a table.

use std::fs;
use std::io::{Write as _, stdout};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

/// What was measured so far.
#[derive(Default)]
pub(crate) struct Summary {
    figures: Map<String, Value>,
}

impl Summary {
    /// Adds a figure that stands alone, and says it on stderr.
    pub(crate) fn add_alone(&mut self, name: &str, value: f64) {
        let value = rounded(value);
        say(&format!("{name} = {value}"));
        self.figures.insert(name.to_owned(), json!(value));
    }

    /// Adds a figure to a group, and says it on stderr.
    pub(crate) fn add(&mut self, group: &str, name: &str, value: f64) {
        let value = rounded(value);
        say(&format!("{group}.{name} = {value}"));
        if let Some(group) = self
            .figures
            .entry(group)
            .or_insert_with(|| json!({}))
            .as_object_mut()
        {
            group.insert(name.to_owned(), json!(value));
        }
    }

    /// Says why there is no figure.
    pub(crate) fn add_reason(&mut self, group: &str, name: &str, why: &str) {
        say(&format!("{group}.{name}: {why}"));
        if let Some(group) = self
            .figures
            .entry(group)
            .or_insert_with(|| json!({}))
            .as_object_mut()
        {
            group.insert(name.to_owned(), json!(why));
        }
    }

    /// Adds a figure to a part of a group.
    pub(crate) fn add_below(&mut self, group: &str, part: &str, name: &str, value: f64) {
        let value = rounded(value);
        say(&format!("{group}.{part}.{name} = {value}"));
        self.figures
            .entry(group)
            .or_insert_with(|| json!({}))
            .as_object_mut()
            .map(|group| group.entry(part).or_insert_with(|| json!({})))
            .and_then(Value::as_object_mut)
            .map(|part| part.insert(name.to_owned(), json!(value)));
    }

    /// Writes the file, and the table on stdout.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let text = format!("{:#}\n", Value::Object(self.figures.clone()));
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        let mut out = stdout().lock();
        writeln!(out, "| figure | value |\n|---|---|")?;
        for (group, figures) in &self.figures {
            let Some(figures) = figures.as_object() else {
                writeln!(out, "| {group} | {figures} |")?;
                continue;
            };
            for (name, value) in figures {
                let Some(part) = value.as_object() else {
                    writeln!(out, "| {group}.{name} | {value} |")?;
                    continue;
                };
                for (below, value) in part {
                    writeln!(out, "| {group}.{name}.{below} | {value} |")?;
                }
            }
        }
        Ok(())
    }
}

/// Says something on stderr.
pub(crate) fn say(what: &str) {
    let _ = writeln!(std::io::stderr(), "  {what}");
}

/// To three decimals, or to six where that would leave next to nothing.
fn rounded(value: f64) -> f64 {
    let digits = if value.abs() < 0.1 { 1e6 } else { 1e3 };
    (value * digits).round() / digits
}
