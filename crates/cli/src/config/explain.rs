//! Every effective value with its origin, as a table or as JSON. Secrets are masked by the options' own readers.

use std::io::{self, Write};

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use serde_json::{Value, json};

use super::Config;
use super::load::{Loaded, Origin};
use super::problem::Place;
use super::schema::{self, ConfigOption};

/// How data is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs: one object, its shape named by `schema`.
    Json,
}

/// The options that `key` names: one option, all below a section, or, without a key, all.
pub(super) fn chosen(key: Option<&str>) -> Vec<&'static ConfigOption> {
    let Some(key) = key else { return schema::options().collect() };
    let section = format!("{key}.");
    schema::options().filter(|option| option.path == key || option.path.starts_with(&section)).collect()
}

/// Writes the options to `out` (stdout).
pub(super) fn write(
    loaded: &Loaded,
    defaults: &Config,
    options: &[&'static ConfigOption],
    output: Output,
    out: &mut dyn Write,
) -> io::Result<()> {
    match (output, options) {
        (Output::Json, _) => write_json(loaded, defaults, options, out),
        (Output::Table, [option]) => write_one(loaded, defaults, option, out),
        (Output::Table, _) => write_table(loaded, options, out),
    }
}

fn write_table(loaded: &Loaded, options: &[&'static ConfigOption], out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new();
    table.load_style(NOTHING).force_no_tty().set_header(["KEY", "VALUE", "ORIGIN"]);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    for option in options {
        let value = (option.read)(&loaded.config, option.path);
        table.add_row([option.path, &visible(&value), &origin_text(loaded.origin(option.path))]);
    }
    for line in table.lines() {
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn write_one(
    loaded: &Loaded,
    defaults: &Config,
    option: &ConfigOption,
    out: &mut dyn Write,
) -> io::Result<()> {
    writeln!(out, "{} = {}", option.path, (option.read)(&loaded.config, option.path))?;
    writeln!(out, "  meaning   {}", option.meaning)?;
    writeln!(out, "  accepts   {}", option.kind.accepts())?;
    writeln!(out, "  default   {}", (option.read)(defaults, option.path))?;
    writeln!(out, "  origin    {}", origin_text(loaded.origin(option.path)))?;
    writeln!(out, "  variable  {}", schema::variable(option.path))
}

fn write_json(
    loaded: &Loaded,
    defaults: &Config,
    options: &[&'static ConfigOption],
    out: &mut dyn Write,
) -> io::Result<()> {
    let options: Vec<Value> = options
        .iter()
        .map(|option| {
            json!({
                "key": option.path,
                "value": (option.read)(&loaded.config, option.path),
                "default": (option.read)(defaults, option.path),
                "origin": origin_json(loaded.origin(option.path)),
                "meaning": option.meaning,
                "accepts": option.kind.accepts(),
                "variable": schema::variable(option.path),
            })
        })
        .collect();
    let file = loaded.source.as_ref().map(|source| source.name.as_ref());
    let document = json!({ "schema": "recache.config.v1", "file": file, "options": options });
    writeln!(out, "{document:#}")
}

/// A value for a table cell: text without quotes, control characters made visible.
fn visible(value: &Value) -> String {
    match value.as_str() {
        Some(text) if text.chars().any(char::is_control) => value.to_string(),
        Some(text) => text.to_owned(),
        None => value.to_string(),
    }
}

fn origin_text(origin: &Origin) -> String {
    let (place, variables) = match origin {
        Origin::Default => return "default".to_owned(),
        Origin::Given { place, variables } => (place, variables),
    };
    let place = match place {
        Place::File(position) => format!("{}:{}", position.file, position.line),
        Place::WholeFile(file) => file.to_string(),
        Place::Environment(name) => format!("environment {name}"),
        Place::Flag(name) => format!("flag {name}"),
    };
    if variables.is_empty() { place } else { format!("{place} with {}", variables.join(", ")) }
}

fn origin_json(origin: &Origin) -> Value {
    match origin {
        Origin::Default => json!({ "kind": "default" }),
        Origin::Given { place: Place::File(position), variables } => json!({
            "kind": "file",
            "file": position.file.as_ref(),
            "line": position.line,
            "column": position.column,
            "variables": variables,
        }),
        Origin::Given { place: Place::WholeFile(file), .. } => {
            json!({ "kind": "file", "file": file.as_ref() })
        }
        Origin::Given { place: Place::Environment(name), .. } => {
            json!({ "kind": "environment", "variable": name })
        }
        Origin::Given { place: Place::Flag(name), .. } => json!({ "kind": "flag", "flag": name }),
    }
}
