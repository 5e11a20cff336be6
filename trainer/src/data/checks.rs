//! What `data.checks` asks of rows, before any device is touched.
//!
//! Called by `load`, with the rows of `data.train` inside the window, and with both sets.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use anneal_crds::{
    common::shorten,
    retrain_job::{Checks, History},
};
use jiff::{Span, civil::Date};

use super::{
    error::DataError,
    load::Sets,
    table::{Rows, Values},
};

const DAY_MS: i64 = 86_400_000;
/// Longest text of a key in a message, in bytes.
const MAX_KEY: usize = 80;

/// Checks the rows that a run learns from and is judged on before they are split; `apart` are validation rows of their own.
///
/// # Errors
/// When a check fails.
pub(super) fn check_rows(checks: &Checks, rows: &Rows, apart: Option<&Rows>) -> Result<(), DataError> {
    check_unique(&checks.unique, [Some(rows), apart].into_iter().flatten())?;
    checks.history.as_ref().map_or(Ok(()), |history| check_history(history, rows))
}

/// Checks the classes of both sets.
///
/// # Errors
/// When a check fails.
pub(super) fn check_classes(checks: &Checks, sets: &Sets) -> Result<(), DataError> {
    let (train, validation) = (classes(&sets.train), classes(&sets.validation));
    let most = train.iter().max_by_key(|(_, count)| **count);
    let rarest = train.iter().min_by_key(|(_, count)| **count);
    if let (Some(wanted), Some((most, &many)), Some((rarest, &few))) = (checks.class_balance, most, rarest) {
        let found = few as f64 / many as f64;
        if found < wanted {
            let (most, rarest) = (most.clone(), rarest.clone());
            return Err(DataError::Unbalanced { rarest, few, most, many, wanted });
        }
    }
    let Some(wanted) = checks.min_validation_per_class else { return Ok(()) };
    let count = |class: &String| validation.get(class).copied().unwrap_or(0);
    let short = train.keys().filter(|class| count(class) < wanted as usize);
    let short: Vec<String> = short.map(|class| format!("`{class}` ({})", count(class))).collect();
    if short.is_empty() {
        return Ok(());
    }
    Err(DataError::FewPerClass { classes: shorten(&short.join(", "), MAX_KEY).into_owned(), wanted })
}

fn classes(rows: &Rows) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    match rows.target.as_ref().map(|target| &target.values) {
        Some(Values::Category(values)) => {
            for class in (0..rows.count).filter_map(|row| values.get(row)) {
                *counts.entry(class.to_owned()).or_default() += 1;
            }
        }
        Some(Values::Number(_)) | None => {}
    }
    counts
}

fn check_unique<'a>(columns: &[String], sets: impl Iterator<Item = &'a Rows>) -> Result<(), DataError> {
    if columns.is_empty() {
        return Ok(());
    }
    let (mut seen, mut rows, mut twice) = (HashSet::<Vec<&str>>::new(), 0, None);
    for set in sets {
        let texts: Vec<&Vec<String>> = columns.iter().filter_map(|column| set.texts.get(column)).collect();
        rows += set.count;
        for row in 0..set.count {
            let key: Vec<&str> = texts.iter().map(|texts| texts[row].as_str()).collect();
            if seen.contains(&key) {
                twice.get_or_insert_with(|| key.join(", "));
            } else {
                seen.insert(key);
            }
        }
    }
    let Some(key) = twice else { return Ok(()) };
    let (columns, key) = (columns.join(", "), shorten(&key, MAX_KEY).into_owned());
    Err(DataError::Duplicates { columns, key, rows, different: seen.len() })
}

fn check_history(history: &History, rows: &Rows) -> Result<(), DataError> {
    let (Some(entities), Some(times)) = (rows.texts.get(&history.entity), rows.times.get(&history.time))
    else {
        return Ok(());
    };
    let mut spans = HashMap::<&str, (i64, i64)>::new();
    for (entity, time) in entities.iter().zip(times) {
        let day = time.div_euclid(DAY_MS);
        let span = spans.entry(entity).or_insert((day, day));
        *span = (span.0.min(day), span.1.max(day));
    }
    let is_long = |(first, last): &&(i64, i64)| last - first + 1 >= i64::from(history.min_days);
    let found = spans.values().filter(is_long).count();
    if found < history.min_entities as usize {
        let (entity, all) = (history.entity.clone(), spans.len());
        let (days, wanted) = (history.min_days, history.min_entities);
        return Err(DataError::FewEntities { entity, all, found, days, wanted });
    }
    check_months(history, times)
}

fn check_months(history: &History, times: &[i64]) -> Result<(), DataError> {
    let days: BTreeSet<i64> = times.iter().map(|time| time.div_euclid(DAY_MS)).collect();
    let months: BTreeSet<(i16, i8)> = days.iter().filter_map(|day| month(*day)).collect();
    let column = || history.time.clone();
    for ((year, month), next) in months.iter().zip(months.iter().skip(1)) {
        let following = if *month == 12 { (year + 1, 1) } else { (*year, month + 1) };
        if following != *next {
            let month = format!("{}-{:02}", following.0, following.1);
            return Err(DataError::EmptyMonth { column: column(), month });
        }
    }
    if months.len() < history.min_months as usize {
        let (found, wanted) = (months.len(), history.min_months);
        return Err(DataError::FewMonths { column: column(), found, wanted });
    }
    Ok(())
}

/// Year and month of a day since 1970.
fn month(day: i64) -> Option<(i16, i8)> {
    let days = Span::new().try_days(day).ok()?;
    let date = Date::constant(1970, 1, 1).checked_add(days).ok()?;
    Some((date.year(), date.month()))
}
