//! Rows in memory, by column.
//!
//! Filled by the reader and by the server's requests; encoded by `schema`.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

/// Rows with their target, and with what tells them apart.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// How many rows.
    pub count: usize,
    /// The features, sorted by name.
    pub features: Vec<Column>,
    /// The column to predict; none in requests.
    pub target: Option<Column>,
    /// Keys for each row as texts, by column.
    pub texts: BTreeMap<String, Vec<String>>,
    /// Times of each row in milliseconds since 1970, by column.
    pub times: BTreeMap<String, Vec<i64>>,
}

impl Rows {
    /// The feature of a name.
    pub fn feature(&self, name: &str) -> Option<&Column> {
        self.features.iter().find(|column| column.name == name)
    }

    /// The rows of these numbers, in this order.
    pub fn take(&self, indices: &[usize]) -> Self {
        let take =
            |column: &Column| Column { name: column.name.clone(), values: column.values.take(indices) };
        Self {
            count: indices.len(),
            features: self.features.iter().map(take).collect(),
            target: self.target.as_ref().map(take),
            texts: self.texts.iter().map(|(name, all)| (name.clone(), pick(all, indices))).collect(),
            times: self.times.iter().map(|(name, all)| (name.clone(), pick(all, indices))).collect(),
        }
    }
}

fn pick<T: Clone>(all: &[T], indices: &[usize]) -> Vec<T> {
    indices.iter().map(|&row| all[row].clone()).collect()
}

/// A named column.
#[derive(Clone, Debug, PartialEq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its values.
    pub values: Values,
}

/// What a column holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnKind {
    /// Numbers, to be standardised.
    Number,
    /// Texts out of a few.
    Category,
}

impl fmt::Display for ColumnKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Number => "number",
            Self::Category => "category",
        })
    }
}

/// A column's values.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    /// Numbers; finite when they come from a file.
    Number(Vec<f64>),
    /// Texts out of a few.
    Category(Categories),
}

impl Values {
    /// How many values.
    pub fn len(&self) -> usize {
        match self {
            Self::Number(values) => values.len(),
            Self::Category(values) => values.codes.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// No values of a kind.
    pub fn empty(kind: ColumnKind) -> Self {
        match kind {
            ColumnKind::Number => Self::Number(Vec::new()),
            ColumnKind::Category => Self::Category(Categories::default()),
        }
    }

    /// What they are.
    pub const fn kind(&self) -> ColumnKind {
        match self {
            Self::Number(_) => ColumnKind::Number,
            Self::Category(_) => ColumnKind::Category,
        }
    }

    fn take(&self, indices: &[usize]) -> Self {
        match self {
            Self::Number(values) => Self::Number(indices.iter().map(|&row| values[row]).collect()),
            Self::Category(values) => {
                let mut taken = Categories::default();
                for &row in indices {
                    taken.push(values.get(row));
                }
                Self::Category(taken)
            }
        }
    }
}

/// Texts out of a few, each stored once.
#[derive(Clone, Debug, Default)]
pub struct Categories {
    codes: Vec<Option<u32>>,
    names: Vec<String>,
    numbers: HashMap<String, u32>,
}

impl Categories {
    /// Adds a row.
    pub fn push(&mut self, text: Option<&str>) {
        let code = text.map(|text| match self.numbers.get(text) {
            Some(&code) => code,
            None => {
                let code = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
                self.names.push(text.to_owned());
                self.numbers.insert(text.to_owned(), code);
                code
            }
        });
        self.codes.push(code);
    }

    /// A row's text; none if the row is empty.
    pub fn get(&self, row: usize) -> Option<&str> {
        self.codes[row].map(|code| self.names[code as usize].as_str())
    }

    /// For each row an index into [`Self::names`].
    pub fn codes(&self) -> &[Option<u32>] {
        &self.codes
    }

    /// The different texts, in order of appearance.
    pub fn names(&self) -> &[String] {
        &self.names
    }
}

impl PartialEq for Categories {
    fn eq(&self, other: &Self) -> bool {
        self.codes.len() == other.codes.len()
            && (0..self.codes.len()).all(|row| self.get(row) == other.get(row))
    }
}

impl<'a> FromIterator<Option<&'a str>> for Categories {
    fn from_iter<T: IntoIterator<Item = Option<&'a str>>>(texts: T) -> Self {
        let mut categories = Self::default();
        for text in texts {
            categories.push(text);
        }
        categories
    }
}
