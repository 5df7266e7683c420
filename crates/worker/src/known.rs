//! What a build knows of items that exist: all at once where they are few, else page by page.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fmt::Debug;

use async_trait::async_trait;

use crate::link::LinkError;

/// Pages that are kept here.
const PAGES_KEPT: usize = 24;
/// Pages that are read together when one follows the other.
const PAGES_AHEAD: usize = 8;

/// An item that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownItem {
    /// Its key.
    pub key: String,
    /// Of the inputs that it was computed from.
    pub fingerprint: Option<String>,
    /// Its value, which only the cache had, is gone: it must be computed anew, and is never taken over or kept.
    pub is_gone: bool,
}

/// Which items are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KnownPlace {
    /// Those that readers see.
    Live,
    /// Those that superseded or failed builds have put.
    Staged,
}

/// The keys with which pages begin, in their order, byte by byte. All pages but the last have as many items.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pages {
    /// Items of all pages.
    pub count: u64,
    /// Items of a page.
    pub rows: usize,
    /// The first key of each.
    pub starts: Vec<String>,
}

/// Whoever keeps the items of a build tells of them by ranges of keys: from `from` on, and before `until`.
#[async_trait]
pub trait KnownSource: Send + Sync {
    /// Items of a range, in the order of their keys. Staged ones that this build has put or taken over are left out.
    async fn read(
        &self,
        place: KnownPlace,
        from: String,
        until: Option<String>,
    ) -> Result<Vec<KnownItem>, LinkError>;

    /// The live items of a range, each with whether this build has put it or taken it over.
    async fn put(&self, from: String, until: Option<String>) -> Result<Vec<(String, bool)>, LinkError>;

    /// How many items this build has put or taken over that are not live.
    async fn new_items(&self) -> Result<u64, LinkError>;
}

/// What became of the question for an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked<'a> {
    /// There is none.
    Absent,
    /// It is there, and made from these inputs.
    There(Option<&'a str>),
    /// It is there, without its value.
    Gone,
}

fn asked(item: &KnownItem) -> Asked<'_> {
    if item.is_gone { Asked::Gone } else { Asked::There(item.fingerprint.as_deref()) }
}

/// The items of one place, and which of them the build keeps.
#[derive(Debug)]
pub(crate) enum Known {
    All { items: HashMap<String, KnownItem>, kept: HashSet<String> },
    Paged(Paged),
}

#[derive(Debug)]
pub(crate) struct Paged {
    place: KnownPlace,
    pages: Pages,
    /// The newest last.
    read: VecDeque<(usize, Vec<KnownItem>)>,
    /// The page that was looked at last.
    last: Option<usize>,
    /// One bit for each item.
    kept: Vec<u64>,
    kept_count: u64,
}

impl Known {
    pub(crate) fn all(items: Vec<KnownItem>) -> Self {
        let items = items.into_iter().map(|item| (item.key.clone(), item)).collect();
        Self::All { items, kept: HashSet::new() }
    }

    pub(crate) fn paged(place: KnownPlace, pages: Pages) -> Self {
        let items = usize::try_from(pages.count).unwrap_or(usize::MAX);
        let kept = vec![0; if place == KnownPlace::Live { items.div_ceil(64) } else { 0 }];
        Self::Paged(Paged { place, pages, read: VecDeque::new(), last: None, kept, kept_count: 0 })
    }

    pub(crate) fn count(&self) -> u64 {
        match self {
            Self::All { items, .. } => u64::try_from(items.len()).unwrap_or(u64::MAX),
            Self::Paged(paged) => paged.pages.count,
        }
    }

    /// What is known of an item.
    pub(crate) async fn ask(
        &mut self,
        item: &str,
        source: Option<&dyn KnownSource>,
    ) -> Result<Asked<'_>, LinkError> {
        match self {
            Self::All { items, .. } => Ok(items.get(item).map_or(Asked::Absent, asked)),
            Self::Paged(paged) => match paged.find(item, source).await? {
                Some((page, row)) => Ok(paged.row(page, row).map_or(Asked::Absent, asked)),
                None => Ok(Asked::Absent),
            },
        }
    }

    /// Marks a live item that was [asked](Self::ask) for just before. True: it was not marked yet.
    pub(crate) fn keep(&mut self, item: &str) -> bool {
        match self {
            Self::All { kept, .. } => kept.insert(item.to_owned()),
            Self::Paged(paged) => paged.keep(item),
        }
    }

    /// Items that are marked.
    pub(crate) fn kept_count(&self) -> u64 {
        match self {
            Self::All { kept, .. } => u64::try_from(kept.len()).unwrap_or(u64::MAX),
            Self::Paged(paged) => paged.kept_count,
        }
    }

    /// Whether an item was marked; `None`: that is not remembered by keys.
    pub(crate) fn has_kept(&self, item: &str) -> Option<bool> {
        if let Self::All { kept, .. } = self { Some(kept.contains(item)) } else { None }
    }

    /// Live items that are neither marked nor in `put`.
    pub(crate) fn left_of(&self, put: &HashSet<String>) -> Vec<String> {
        let Self::All { items, kept } = self else { return Vec::new() };
        let mut left: Vec<String> =
            items.keys().filter(|item| !put.contains(*item) && !kept.contains(*item)).cloned().collect();
        left.sort_unstable();
        left
    }

    /// Live items that are neither marked nor put, by the word of whoever keeps them.
    pub(crate) async fn left(&self, source: &dyn KnownSource) -> Result<Vec<String>, LinkError> {
        match self {
            Self::All { items, kept } => {
                if items.len() == kept.len() {
                    return Ok(Vec::new());
                }
                let all = source.put(String::new(), None).await?;
                let is_left = |(item, is_put): &(String, bool)| !is_put && !kept.contains(item);
                Ok(all.into_iter().filter(is_left).map(|(item, _)| item).collect())
            }
            Self::Paged(paged) => paged.left(source).await,
        }
    }
}

impl Paged {
    /// Page and row of an item. Reads the page if it is not here.
    async fn find(
        &mut self,
        item: &str,
        source: Option<&dyn KnownSource>,
    ) -> Result<Option<(usize, usize)>, LinkError> {
        let after = self.pages.starts.partition_point(|start| start.as_str() <= item);
        // Before the first of all.
        let Some(page) = after.checked_sub(1) else { return Ok(None) };
        if !self.read.iter().any(|(read, _)| *read == page) {
            let source =
                source.ok_or_else(|| LinkError::Refused("nobody tells of known items".to_owned()))?;
            self.load(page, source).await?;
        }
        self.last = Some(page);
        let rows = self.read.iter().find(|(read, _)| *read == page).map(|(_, rows)| rows);
        let row = rows.and_then(|rows| rows.binary_search_by(|row| row.key.as_str().cmp(item)).ok());
        Ok(row.map(|row| (page, row)))
    }

    /// One page, or some at once where they are asked for in their order.
    async fn load(&mut self, page: usize, source: &dyn KnownSource) -> Result<(), LinkError> {
        let is_next = self.last.map_or(page == 0, |last| page == last + 1);
        let end = (page + if is_next { PAGES_AHEAD } else { 1 }).min(self.pages.starts.len());
        let Some(from) = self.pages.starts.get(page).cloned() else { return Ok(()) };
        let until = self.pages.starts.get(end).cloned();
        let mut rows = source.read(self.place, from, until).await?.into_iter().peekable();
        for number in page..end {
            let until = self.pages.starts.get(number + 1);
            let mut of_page = Vec::with_capacity(self.pages.rows);
            while let Some(row) = rows.next_if(|row| until.is_none_or(|until| row.key < *until)) {
                of_page.push(row);
            }
            self.read.retain(|(read, _)| *read != number);
            self.read.push_back((number, of_page));
        }
        while self.read.len() > PAGES_KEPT {
            self.read.pop_front();
        }
        Ok(())
    }

    fn row(&self, page: usize, row: usize) -> Option<&KnownItem> {
        self.read.iter().find(|(read, _)| *read == page).and_then(|(_, rows)| rows.get(row))
    }

    fn keep(&mut self, item: &str) -> bool {
        let Some(page) = self.last else { return false };
        let rows = self.read.iter().find(|(read, _)| *read == page).map(|(_, rows)| rows);
        let row = rows.and_then(|rows| rows.binary_search_by(|row| row.key.as_str().cmp(item)).ok());
        let Some(place) = row.map(|row| page * self.pages.rows + row) else { return false };
        let Some(word) = self.kept.get_mut(place / 64) else { return false };
        let bit = 1_u64 << (place % 64);
        let is_new = *word & bit == 0;
        *word |= bit;
        self.kept_count += u64::from(is_new);
        is_new
    }

    fn is_kept(&self, place: usize) -> bool {
        self.kept.get(place / 64).is_some_and(|word| word & (1_u64 << (place % 64)) != 0)
    }

    async fn left(&self, source: &dyn KnownSource) -> Result<Vec<String>, LinkError> {
        let items = usize::try_from(self.pages.count).unwrap_or(usize::MAX);
        let mut left = Vec::new();
        let mut page = 0;
        while page < self.pages.starts.len() {
            let end = (page + PAGES_AHEAD).min(self.pages.starts.len());
            let places = page * self.pages.rows..(end * self.pages.rows).min(items);
            if !places.clone().all(|place| self.is_kept(place)) {
                let from = self.pages.starts.get(page).cloned().unwrap_or_default();
                let rows = source.put(from, self.pages.starts.get(end).cloned()).await?;
                let is_left =
                    |(place, (_, is_put)): &(usize, (String, bool))| !is_put && !self.is_kept(*place);
                left.extend(places.zip(rows).filter(is_left).map(|(_, (item, _))| item));
            }
            page = end;
        }
        Ok(left)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Live items `000`, `002`, `004` and so on, made from `1`; those that end with `2` are put.
    #[derive(Debug, Default)]
    struct Source {
        count: usize,
        reads: Mutex<usize>,
    }

    const ROWS: usize = 4;

    impl Source {
        fn keys(&self) -> impl Iterator<Item = String> {
            (0..self.count).map(|number| format!("{:03}", number * 2))
        }

        fn pages(&self) -> Pages {
            let count = u64::try_from(self.count).unwrap();
            Pages { count, rows: ROWS, starts: self.keys().step_by(ROWS).collect() }
        }
    }

    #[async_trait]
    impl KnownSource for Source {
        async fn read(
            &self,
            _: KnownPlace,
            from: String,
            until: Option<String>,
        ) -> Result<Vec<KnownItem>, LinkError> {
            *self.reads.lock().unwrap() += 1;
            let is_in = |key: &String| *key >= from && until.as_ref().is_none_or(|until| key < until);
            let item = |key| KnownItem { key, fingerprint: Some("1".to_owned()), is_gone: false };
            Ok(self.keys().filter(is_in).map(item).collect())
        }

        async fn put(&self, from: String, until: Option<String>) -> Result<Vec<(String, bool)>, LinkError> {
            let read = self.read(KnownPlace::Live, from, until).await?;
            Ok(read.into_iter().map(|item| (item.key.clone(), item.key.ends_with('2'))).collect())
        }

        async fn new_items(&self) -> Result<u64, LinkError> {
            Ok(0)
        }
    }

    #[tokio::test]
    async fn pages_answer_as_the_whole_does_in_whatever_order_they_are_asked() {
        let source = Source { count: 200, ..Source::default() };
        let mut order: Vec<usize> = (0..405).collect();
        // Some order that jumps.
        order.extend((0..405).map(|number| (number * 157) % 405));
        let mut known = Known::paged(KnownPlace::Live, source.pages());
        for number in order {
            let key = format!("{number:03}");
            let found = known.ask(&key, Some(&source)).await.unwrap();
            let is_there = number % 2 == 0 && number < 400;
            assert_eq!(found, if is_there { Asked::There(Some("1")) } else { Asked::Absent }, "{key}");
        }
    }

    #[tokio::test]
    async fn pages_are_read_ahead_in_order_and_few_are_kept() {
        let source = Source { count: 200, ..Source::default() };
        let mut known = Known::paged(KnownPlace::Live, source.pages());
        for key in source.keys() {
            known.ask(&key, Some(&source)).await.unwrap();
        }
        assert_eq!(*source.reads.lock().unwrap(), 50_usize.div_ceil(PAGES_AHEAD));
        let Known::Paged(paged) = &known else { panic!("it is paged") };
        assert_eq!(paged.read.len(), PAGES_KEPT);
    }

    #[tokio::test]
    async fn what_is_neither_kept_nor_put_is_left() {
        let source = Source { count: 20, ..Source::default() };
        let mut known = Known::paged(KnownPlace::Live, source.pages());
        for key in source.keys().filter(|key| key != "008" && key != "012" && key != "038") {
            known.ask(&key, Some(&source)).await.unwrap();
            assert!(known.keep(&key));
            assert!(!known.keep(&key), "once");
        }
        assert_eq!(known.kept_count(), 17);
        assert_eq!(known.left(&source).await.unwrap(), ["008", "038"], "012 was put");
    }

    #[tokio::test]
    async fn what_is_gone_is_neither_there_nor_absent() {
        let gone = KnownItem { key: "a".to_owned(), fingerprint: None, is_gone: true };
        let mut known = Known::all(vec![gone]);
        assert_eq!(known.ask("a", None).await.unwrap(), Asked::Gone);
        assert_eq!(known.ask("b", None).await.unwrap(), Asked::Absent);
        assert_eq!(known.left_of(&HashSet::new()), ["a"]);
    }
}
