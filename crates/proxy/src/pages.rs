//! Error pages: bodies from files, for errors that Relais answers with itself.
//!
//! The supervisor reads the files and sends them with the plan; nothing here opens any. `answer` writes them.

use std::collections::HashMap;
use std::sync::Arc;

use relais_config::plan::ErrorPage;

/// A page in memory.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its media type.
    pub(crate) kind: Arc<str>,
    pub(crate) body: Arc<str>,
}

/// The pages of a frontend or backend, the first that fits counts.
#[derive(Debug, Default)]
pub(crate) struct Pages(Vec<(u16, u16, Page)>);

impl Pages {
    /// What the plan says, from the files that came.
    pub(crate) fn new<'a>(
        pages: impl IntoIterator<Item = &'a ErrorPage>,
        files: &HashMap<String, Arc<str>>,
    ) -> Pages {
        let page = |page: &ErrorPage| {
            let body = files.get(&*page.file)?.clone();
            Some((page.first, page.last, Page { kind: page.kind.clone(), body }))
        };
        Pages(pages.into_iter().filter_map(page).collect())
    }

    pub(crate) fn find(&self, status: u16) -> Option<&Page> {
        self.0.iter().find(|(first, last, _)| (*first..=*last).contains(&status)).map(|(_, _, page)| page)
    }
}
