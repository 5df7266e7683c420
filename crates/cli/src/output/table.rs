//! Tables for the terminal and for pipes.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ContentArrangement};

use super::text::visible;

/// What a cell means, and with it its colour; the word in it says the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As any other.
    Plain,
    /// Done, or as it should be.
    Good,
    /// Under way.
    Active,
    /// Deserves a look.
    Doubtful,
    /// Failed.
    Bad,
}

impl Tone {
    fn colour(self) -> Option<Color> {
        match self {
            Self::Plain => None,
            Self::Good => Some(Color::Green),
            Self::Active => Some(Color::Blue),
            Self::Doubtful => Some(Color::Yellow),
            Self::Bad => Some(Color::Red),
        }
    }
}

/// A table without lines. On a terminal it fits the width; in a pipe each row is one line, however long.
#[derive(Debug)]
pub(crate) struct Table {
    inner: comfy_table::Table,
    colour: bool,
}

impl Table {
    /// An empty table. A header of empty texts is left out.
    pub(crate) fn new<const N: usize>(header: [&str; N], is_terminal: bool, colour: bool) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING);
        if let Some(width) = inner.width().filter(|_| is_terminal) {
            inner.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        inner.force_no_tty();
        if colour {
            inner.enforce_styling();
        }
        if header.iter().any(|text| !text.is_empty()) {
            inner.set_header(header);
        }
        Self { inner, colour }
    }

    /// Adds a row of plain cells.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.toned(cells.map(|text| (text, Tone::Plain)));
    }

    /// Adds a row of cells with their meaning.
    pub(crate) fn toned<const N: usize>(&mut self, cells: [(String, Tone); N]) {
        self.inner.add_row(cells.map(|(text, tone)| {
            let cell = Cell::new(visible(&text));
            match tone.colour().filter(|_| self.colour) {
                Some(colour) => cell.fg(colour),
                None => cell,
            }
        }));
    }

    /// The lines, each with its end.
    pub(crate) fn text(mut self) -> String {
        for column in self.inner.column_iter_mut() {
            column.set_padding((0, 2));
        }
        self.inner.lines().fold(String::new(), |mut text, line| {
            text.push_str(line.trim_end());
            text.push('\n');
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_aligned_and_coloured_only_when_asked() {
        let filled = |colour| {
            let mut table = Table::new(["A", "B"], false, colour);
            table.toned([("long one".to_owned(), Tone::Plain), ("x\u{1b}".to_owned(), Tone::Bad)]);
            table.text()
        };
        assert_eq!(filled(false), "A         B\nlong one  x\\u{1b}\n");
        assert!(filled(true).contains("\u{1b}["), "{:?}", filled(true));
    }

    #[test]
    fn table_without_header_and_rows_is_empty() {
        assert_eq!(Table::new(["", ""], false, false).text(), "");
    }
}
