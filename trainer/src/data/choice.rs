//! Which columns of training rows are features, as `data.include` and `data.exclude` say.

use std::collections::BTreeSet;

use anneal_crds::retrain_job::Data;

use super::{error::DataError, pattern::matches};

/// Names and patterns of columns.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    include: &'a [String],
    exclude: &'a [String],
}

impl<'a> Choice<'a> {
    /// That of a run.
    pub const fn of(data: &'a Data) -> Self {
        Self { include: data.include.as_slice(), exclude: data.exclude.as_slice() }
    }

    /// Whether a column that is not the target is a feature.
    pub(super) fn has(self, column: &str) -> bool {
        let fits = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, column));
        (self.include.is_empty() || fits(self.include)) && !fits(self.exclude)
    }

    /// Refuses a pattern that fits none of the columns: what is misspelt there would be left out, or learnt from.
    pub(super) fn refuse_unused(self, columns: &BTreeSet<String>) -> Result<(), DataError> {
        let named = |field, patterns: &'a [String]| patterns.iter().map(move |pattern| (field, pattern));
        let mut all = named("data.include", self.include).chain(named("data.exclude", self.exclude));
        match all.find(|(_, pattern)| !columns.iter().any(|column| matches(pattern, column))) {
            None => Ok(()),
            Some((field, pattern)) => Err(DataError::Unused { field, pattern: pattern.clone() }),
        }
    }
}
