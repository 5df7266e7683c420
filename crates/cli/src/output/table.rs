//! Tables for the terminal and for pipes.

use comfy_table::presets::NOTHING;
use comfy_table::{Cell, Color, ColumnConstraint, ContentArrangement};

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
    header: Vec<&'static str>,
    width: Option<u16>,
    dispensable: &'static [&'static str],
}

/// Blanks after each column.
const GAP: u16 = 2;

/// How many characters fit on a line of the terminal that stdout is; `None` when it is none.
pub(crate) fn terminal_width() -> Option<u16> {
    comfy_table::Table::new().width()
}

impl Table {
    /// An empty table that is at most so wide. A header of empty texts is left out.
    pub(crate) fn new<const N: usize>(header: [&'static str; N], width: Option<u16>, colour: bool) -> Self {
        let mut inner = comfy_table::Table::new();
        inner.load_style(NOTHING).force_no_tty();
        if let Some(width) = width {
            inner.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
        }
        if colour {
            inner.enforce_styling();
        }
        if header.iter().any(|text| !text.is_empty()) {
            inner.set_header(header);
        }
        Self { inner, colour, header: header.to_vec(), width, dispensable: &[] }
    }

    /// Where the table is too wide, these columns are left out, the first ones first, and the first column of the table is
    /// never broken: it holds what is copied.
    pub(crate) fn leaving_out(mut self, columns: &'static [&'static str]) -> Self {
        self.dispensable = columns;
        self
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
            column.set_padding((0, GAP));
        }
        if let (Some(width), false) = (self.width, self.dispensable.is_empty()) {
            self.leave_out(width);
        }
        self.inner.lines().fold(String::new(), |mut text, line| {
            text.push_str(line.trim_end());
            text.push('\n');
            text
        })
    }
}

impl Table {
    fn leave_out(&mut self, width: u16) {
        let widths = self.inner.column_max_content_widths();
        let mut total: u16 = widths.iter().fold(0, |sum, one| sum.saturating_add(one.saturating_add(GAP)));
        if let Some(first) = self.inner.column_mut(0) {
            first.set_constraint(ColumnConstraint::ContentWidth);
        }
        for name in self.dispensable {
            if total <= width {
                return;
            }
            let Some(place) = self.header.iter().position(|column| column == name) else { continue };
            if let (Some(column), Some(freed)) = (self.inner.column_mut(place), widths.get(place)) {
                column.set_constraint(ColumnConstraint::Hidden);
                total = total.saturating_sub(freed.saturating_add(GAP));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn narrow_table_leaves_columns_out_and_never_breaks_the_first() {
        let filled = |width| {
            let mut table = Table::new(["ID", "QUEUE", "STATE"], Some(width), false).leaving_out(&["QUEUE"]);
            table.row(["0123456789".to_owned(), "mail".to_owned(), "running".to_owned()]);
            table.text()
        };
        assert_eq!(filled(80), "ID          QUEUE  STATE\n0123456789  mail   running\n");
        assert_eq!(filled(21), "ID          STATE\n0123456789  running\n");
        assert!(filled(14).contains("0123456789"), "{}", filled(14));
    }

    #[test]
    fn table_for_a_pipe_is_as_wide_as_it_needs_to_be() {
        let mut table = Table::new(["A", "B"], None, false).leaving_out(&["B"]);
        table.row(["x".repeat(300), "y".repeat(300)]);
        assert_eq!(table.text().lines().count(), 2);
    }

    #[test]
    fn cells_are_aligned_and_coloured_only_when_asked() {
        let filled = |colour| {
            let mut table = Table::new(["A", "B"], None, colour);
            table.toned([("long one".to_owned(), Tone::Plain), ("x\u{1b}".to_owned(), Tone::Bad)]);
            table.text()
        };
        assert_eq!(filled(false), "A         B\nlong one  x\\u{1b}\n");
        assert!(filled(true).contains("\u{1b}["), "{:?}", filled(true));
    }

    #[test]
    fn table_without_header_and_rows_is_empty() {
        assert_eq!(Table::new(["", ""], None, false).text(), "");
    }
}
