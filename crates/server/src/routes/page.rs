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

    /// The same of a list by namespace and name. `form` is how the caller names one: `NAMESPACE/KEY`; a namespace holds no slash.
    pub(crate) fn after_named(
        &self,
        named: Option<String>,
        what: &str,
        form: &str,
    ) -> Result<Option<(String, String)>, Refusal> {
        let Some(place) = self.before_or::<String>("after", named)? else { return Ok(None) };
        let Some((namespace, name)) = place.split_once('/') else {
            let message = format!("is no {what}: expected `{form}`");
            return Err(Refusal::field(Code::InvalidParameter, "?after", message));
        };
        Ok(Some((namespace.to_owned(), name.to_owned())))
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

    /// Cuts rows, each with its place, to the page. And the cursor of the next one.
    pub(crate) fn cut_placed<T>(&self, rows: impl Iterator<Item = (String, T)>) -> (Vec<T>, Option<String>) {
        let (rows, next) = self.cut(rows.collect(), |(place, _)| place);
        (rows.into_iter().map(|(_, row)| row).collect(), next)
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

    #[test]
    fn list_by_names_goes_on_after_a_name_or_a_cursor_and_not_both() {
        let page = Page::new("rows", &"f", PageParams { limit: Some(1), cursor: None }).unwrap();
        let after =
            |page: &Page, named: Option<&str>| page.after_named(named.map(str::to_owned), "row", "N/R");
        let pair = |namespace: &str, name: &str| Some((namespace.to_owned(), name.to_owned()));
        assert_eq!(after(&page, Some("a/b/c")).unwrap(), pair("a", "b/c"));
        assert!(after(&page, Some("a")).is_err() && after(&page, None).unwrap().is_none());
        let (rows, next) = page.cut_placed(["x/1", "x/2"].map(|name| (name.to_owned(), name)).into_iter());
        assert_eq!(rows, ["x/1"]);
        let next = Page::new("rows", &"f", PageParams { limit: None, cursor: next }).unwrap();
        assert_eq!(after(&next, None).unwrap(), pair("x", "1"));
        assert!(after(&next, Some("x/1")).is_err(), "both");
    }
}
