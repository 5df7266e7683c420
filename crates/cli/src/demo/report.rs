//! What the demo prints at the end.

use std::io::{self, Write};

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::tally::Figures;
use super::{history, through};

/// Of the JSON document; another number means that a key changed its meaning or is gone.
const SCHEMA: &str = "recache.demo/1";

/// The JSON document; the table shows the same.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    schema: &'static str,
    pub(super) seed: u64,
    /// Flights in the database.
    pub(super) flights: usize,
    pub(super) alliances: usize,
    /// Changes made by this run.
    pub(super) changes: usize,
    /// Of the changes that were made before this run, the last one's number; 0 on a new database.
    pub(super) changes_before: i64,
    /// Jobs that could run at once.
    pub(super) slots: usize,
    pub(super) readers: usize,
    pub(super) recache: Figures,
    pub(super) without_version_control: Figures,
    pub(super) self_check: SelfCheck,
    /// The view over the demo's own job history.
    pub(super) history: Option<history::Figures>,
    /// The cache on a server, where `--cache` named one.
    pub(super) cache: Option<through::Figures>,
}

/// Recache's items against a second computation from the file.
#[derive(Debug, Serialize)]
pub(super) struct SelfCheck {
    pub(super) passed: bool,
    pub(super) items: usize,
    /// What is wrong; empty when it passed.
    pub(super) differences: Vec<String>,
}

impl Report {
    pub(super) fn new(seed: u64, recache: Figures, without: Figures, self_check: SelfCheck) -> Self {
        Self {
            schema: SCHEMA,
            seed,
            flights: 0,
            alliances: 0,
            changes: 0,
            changes_before: 0,
            slots: 0,
            readers: 0,
            recache,
            without_version_control: without,
            self_check,
            history: None,
            cache: None,
        }
    }

    /// Whether Recache kept what it promises.
    pub(super) fn is_kept(&self) -> bool {
        self.recache.misses == 0 && self.recache.torn_reads == 0 && self.self_check.passed
    }

    /// One document, one line.
    pub(super) fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        serde_json::to_writer(&mut *out, self)?;
        writeln!(out)
    }

    /// For people. `database`: what to call the database that is there afterwards, if one is.
    pub(super) fn write_table(&self, database: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
        writeln!(
            out,
            "\n{} carriers' comings and goings in {} alliances, over {} flights; {} job slots, {} readers.\n\
             Measured in this run, both sides with the same changes at the same moments:\n",
            self.changes, self.alliances, self.flights, self.slots, self.readers
        )?;
        writeln!(out, "{}", self.table())?;
        writeln!(out, "{}", self.in_words())?;
        if self.self_check.passed {
            writeln!(
                out,
                "Self-check passed: {} items of {} views are what a second computation gives.",
                self.self_check.items,
                self.alliances + usize::from(self.history.is_some())
            )?;
        }
        if let Some(history) = &self.history {
            writeln!(
                out,
                "A view over the demo's own job history was published {} times meanwhile: figures over {} builds.",
                history.published, history.builds
            )?;
        }
        if let Some(cache) = &self.cache {
            writeln!(
                out,
                "Read through {}: {} reads answered there, {} by the database.",
                cache.backend, cache.hits, cache.misses
            )?;
        }
        write_next(database, out)
    }

    fn table(&self) -> Table {
        let (with, without) = (&self.recache, &self.without_version_control);
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["", "Recache", "without version control"]);
        let rows = [
            ("builds requested", with.builds_requested.to_string(), without.builds_requested.to_string()),
            ("builds started", with.builds_started.to_string(), without.builds_started.to_string()),
            ("builds superseded", with.builds_superseded.to_string(), "-".to_owned()),
            ("builds published", with.builds_published.to_string(), without.builds_published.to_string()),
            ("items computed", with.items_computed.to_string(), without.items_computed.to_string()),
            (
                "  computed again, nothing new",
                with.items_computed_again.to_string(),
                without.items_computed_again.to_string(),
            ),
            ("items reused", with.items_reused.to_string(), "-".to_owned()),
            ("wasted work", share(with), share(without)),
            ("last change to fresh", seconds(with.fresh_after_ms), seconds(without.fresh_after_ms)),
            ("last change to idle", seconds(with.idle_after_ms), seconds(without.idle_after_ms)),
            ("reads (each of several items)", with.reads.to_string(), without.reads.to_string()),
            ("  that found nothing (misses)", with.misses.to_string(), without.misses.to_string()),
            (
                "  that contradict themselves (torn)",
                with.torn_reads.to_string(),
                without.torn_reads.to_string(),
            ),
            ("reads a second", with.reads_per_second.to_string(), without.reads_per_second.to_string()),
            ("read time, median / p99", times(with), times(without)),
            ("alliances wrong at the end", wrong(with), wrong(without)),
        ];
        for (name, with, without) in rows {
            table.add_row([name.to_owned(), with, without]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        table
    }

    fn in_words(&self) -> String {
        let (with, without) = (&self.recache, &self.without_version_control);
        format!(
            "wasted work  computed values that no reader could use: never published, out of date when they were\n\
             \x20            ready, or the same as before\n\
             fresh        every alliance shows its last change;  idle: no build is left to be run\n\
             miss         an item, or the summary that lists the items, had been there and is absent\n\
             torn         the items of one read come from different builds\n\n\
             Recache made {} published builds of {} changes. {} builds were stopped because a newer version was wanted,\n\
             and the next one took over what was ready. Readers met a gap or a contradiction {} times, and {} times\n\
             without version control.\n",
            with.builds_published,
            with.builds_requested,
            with.builds_superseded,
            with.misses + with.torn_reads,
            without.misses + without.torn_reads,
        )
    }
}

fn write_next(database: Option<&str>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "\nWhere to go next")?;
    let database = if let Some(database) = database {
        database
    } else {
        writeln!(out, "  recache demo --data-dir demo    keeps the database, to look at it afterwards with")?;
        "sqlite:demo/demo.db"
    };
    writeln!(out, "  recache --database {database} view show alliance/north")?;
    writeln!(out, "  recache --database {database} job list")?;
    writeln!(out, "  README.md tells how to touch and build views from your own program")
}

fn share(figures: &Figures) -> String {
    format!("{} of {} ({:.1} %)", figures.items_wasted, figures.items_computed, figures.wasted_percent)
}

fn seconds(ms: u64) -> String {
    format!("{}.{:02} s", ms / 1000, ms % 1000 / 10)
}

fn times(figures: &Figures) -> String {
    let shown = |us: u64| if us == 0 { "< 1".to_owned() } else { us.to_string() };
    format!("{} / {} µs", shown(figures.read_p50_us), shown(figures.read_p99_us))
}

fn wrong(figures: &Figures) -> String {
    if figures.alliances_wrong.is_empty() {
        return "none".to_owned();
    }
    format!("{}: {}", figures.alliances_wrong.len(), figures.alliances_wrong.join(", "))
}
