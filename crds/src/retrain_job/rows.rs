//! Which rows of its data a run takes, and what must hold of them before anything is trained.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{moment::Moment, span::Span};

/// The training rows that count, by their time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.last) || has(self.start) || has(self.end)").message("window needs last, start or end"))]
#[x_kube(validation = Rule::new("!has(self.last) || !has(self.start)").message("window takes last or start, and not both"))]
pub struct Window {
    /// Column of dates or times. It must be listed in `exclude`, because a time is no feature.
    #[schemars(length(min = 1, max = 128))]
    pub column: String,
    /// Rows of this long, up to `end` or else the newest row: `90d` is a rolling window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Span>,
    /// Rows from this date or time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<Moment>,
    /// Rows up to this date, all of that day included, or before this time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Moment>,
}

/// What must hold of the rows.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Checks {
    /// Columns that together name a row: no two rows have the same there, neither in training nor in validation. A join that
    /// multiplies rows is found by this.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 128)))]
    pub unique: Vec<String>,
    /// Least number of training rows of the rarest class, as a share of those of the commonest one: 0.5 for balanced rows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub class_balance: Option<f64>,
    /// Fewest validation rows of each class.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_validation_per_class: Option<u32>,
    /// How much is known of entities such as accounts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

/// How much must be known of entities such as accounts, in the rows of `data.train`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct History {
    /// Column that names the entity.
    #[schemars(length(min = 1, max = 128))]
    pub entity: String,
    /// Column of dates or times. It must be listed in `exclude`, because a time is no feature.
    #[schemars(length(min = 1, max = 128))]
    pub time: String,
    /// Fewest entities with a history of `minDays`. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub min_entities: u32,
    /// Days from an entity's first row to its last one, both included. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 36_500))]
    pub min_days: u32,
    /// Fewest calendar months (UTC) from the first row to the last one, none of which is without rows. Default 1.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1_200))]
    pub min_months: u32,
}

const fn one() -> u32 {
    1
}
