//! One page of a list whose places are ids.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use crate::input::cursor;
use crate::refusal::{Code, Refusal};

/// Rows of a page where the caller does not say how many.
const ROWS_DEFAULT: u32 = 50;

/// What the caller said about the page. The types of queries have these two fields, `limit` from 1 to 1,000.
#[derive(Debug)]
pub(crate) struct PageParams {
    pub(crate) limit: Option<u32>,
    pub(crate) cursor: Option<String>,
}

/// A page of a list with a filter.
#[derive(Debug)]
pub(crate) struct Page {
    list: &'static str,
    filter: String,
    limit: u32,
    place: Option<String>,
}

impl Page {
    /// The page that was asked for. `filter` must hold all that chooses rows, and neither the place nor the number of rows.
    pub(crate) fn new(list: &'static str, filter: &impl Debug, asked: PageParams) -> Result<Self, Refusal> {
        let filter = format!("{filter:?}");
        let place = asked.cursor.map(|cursor| cursor::read(list, &filter, &cursor)).transpose()?;
        Ok(Self { list, filter, limit: asked.limit.unwrap_or(ROWS_DEFAULT), place })
    }

    /// The row after which it begins, as the id that it is.
    pub(crate) fn before<T>(&self) -> Result<Option<T>, Refusal>
    where
        T: FromStr,
        T::Err: Display,
    {
        let read = |place: &String| {
            place
                .parse()
                .map_err(|error: T::Err| Refusal::field(Code::InvalidParameter, "?cursor", error.to_string()))
        };
        self.place.as_ref().map(read).transpose()
    }

    /// The same, or the one that the caller names instead of a cursor.
    pub(crate) fn before_or<T>(&self, parameter: &str, named: Option<String>) -> Result<Option<T>, Refusal>
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(named) = named else { return self.before() };
        let pointer = format!("?{parameter}");
        if self.place.is_some() {
            let message = "must not be given together with `cursor`";
            return Err(Refusal::field(Code::InvalidParameter, pointer, message));
        }
        let wrong = |error: T::Err| Refusal::field(Code::InvalidParameter, pointer, error.to_string());
        named.parse().map(Some).map_err(wrong)
    }

    /// Rows that it holds.
    pub(crate) fn limit(&self) -> u32 {
        self.limit
    }

    /// The cursor of the page that begins after `place`.
    pub(crate) fn after(&self, place: &str) -> String {
        cursor::write(self.list, &self.filter, place)
    }

    /// Rows to ask for: one more than it holds, which tells whether there is a next one.
    pub(crate) fn rows_max(&self) -> u32 {
        self.limit.saturating_add(1)
    }

    /// Cuts what was asked for to the page. And the cursor of the next one.
    pub(crate) fn cut<T>(&self, mut rows: Vec<T>, place: impl Fn(&T) -> &String) -> (Vec<T>, Option<String>) {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| has_more);
        let next = next.map(|last| self.after(place(last)));
        (rows, next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_begins_after_the_last_row_that_is_shown() {
        let page = Page::new("rows", &"f", PageParams { limit: Some(2), cursor: None }).unwrap();
        assert_eq!((page.rows_max(), page.before::<String>().unwrap()), (3, None));
        let rows: Vec<String> = ["c", "b", "a"].map(str::to_owned).into();
        let (rows, next) = page.cut(rows, |row| row);
        assert_eq!(rows, ["c", "b"]);
        let next = Page::new("rows", &"f", PageParams { limit: None, cursor: next }).unwrap();
        assert_eq!(next.before::<String>().unwrap().as_deref(), Some("b"));
        assert_eq!(next.cut(vec!["a".to_owned()], |row| row).1, None);
    }
}
