//! One page of a list.

/// Rows to ask for: one more than the page holds, which tells whether there is a next one.
pub(super) fn rows_max(limit: u32) -> u32 {
    limit.saturating_add(1)
}

/// Cuts what was asked for by [`rows_max`] to the page. Whether there is more.
pub(super) fn cut<T>(rows: &mut Vec<T>, limit: u32) -> bool {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    has_more
}

/// Likewise. After which row the next page begins, if there is one.
pub(super) fn cut_at<T>(rows: &mut Vec<T>, limit: u32, id: impl Fn(&T) -> &String) -> Option<String> {
    let has_more = cut(rows, limit);
    rows.last().filter(|_| has_more).map(|last| id(last).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_page_begins_after_the_last_row_that_is_shown() {
        let page = |count: u32, limit| {
            let mut rows: Vec<_> = (0..count).map(|row| row.to_string()).collect();
            let next = cut_at(&mut rows, limit, |row| row);
            (rows.len(), next)
        };
        assert_eq!(rows_max(3), 4);
        assert_eq!(page(4, 3), (3, Some("2".to_owned())));
        assert_eq!(page(3, 3), (3, None));
        assert_eq!(page(0, 3), (0, None));
    }
}
