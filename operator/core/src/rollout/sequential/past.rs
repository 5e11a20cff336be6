//! What stable's own past shows: by how much its pods, and its minutes, differ without any change.

use std::borrow::Cow;

use anneal_crds::metric::Metric;

use super::{
    super::{draft::Draft, query::Question, reading::Answer, samples::RawSeries},
    policy::{self, Judged, Learned, Limit, Spread},
    queries::{PAST_POINTS, Past, learns},
    record::Stored,
};
use crate::judge::{Source, dispersion, samples};

impl Draft<'_> {
    /// For each metric of the policy; none where there was nothing to learn from, and of means: how much those vary is seen
    /// from themselves.
    ///
    /// # Errors
    ///
    /// If the past could not be read: a comparison must not begin without what its spec asks for.
    pub(super) fn learn(&self) -> Result<Vec<Option<Learned>>, String> {
        let judged = policy::judged(&self.rollout.spec);
        let Some(past) = learns(self.rollout, &self.status, &Stored::Nothing) else {
            return Ok(vec![None; judged.len()]);
        };
        judged.iter().map(|judged| self.learn_one(judged, &past)).collect()
    }

    fn learn_one(&self, judged: &Judged<'_>, past: &Past) -> Result<Option<Learned>, String> {
        let Limit::Share { events: counted, .. } = judged.limit else { return Ok(None) };
        let events = self.past(judged.metric, Question::PastEvents)?;
        let all = match judged.source {
            Source::Counters | Source::Sums => self.past(judged.metric, Question::PastAll)?,
            Source::Histogram(_) | Source::Compared | Source::Pairs => Cow::default(),
        };
        let pods = self.labels(&past.stable).pods(judged.source, &events, &all);
        let span = (past.until_ms.saturating_sub(past.point_ms * PAST_POINTS), past.until_ms);
        let history = samples::history(judged.source, counted, &pods, span, past.point_ms);
        Ok(dispersion::estimate(&history).map(|found| Learned {
            design_effect: found.design_effect,
            // Two pods differ by chance as much as for good.
            pods: (found.pods >= 3).then_some(Spread { sd: found.pod_sd, pods: found.pods }),
        }))
    }

    fn past(&self, metric: &Metric, question: Question) -> Result<Cow<'_, [RawSeries]>, String> {
        match self.snapshot.answers.get(&(metric.name.clone(), question)) {
            Some(Answer::Matrix(_)) => Ok(self.series(metric, question)),
            Some(Answer::Unreachable(why) | Answer::TooMuch(why)) => {
                Err(format!("the stable version's past could not be read: {why}"))
            }
            Some(Answer::Vector(_)) | None => {
                Err(format!("the stable version's past of {} has not been read yet", metric.name))
            }
        }
    }
}
