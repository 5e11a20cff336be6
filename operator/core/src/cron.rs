//! Cron: when a schedule of five fields comes up in a time zone.
//!
//! Called by `rollout::freeze`. The schedule is asked on a calendar without a zone, and each of its times is then put into
//! the zone as RFC 5545 has it: one that the clocks leave out is as much later as they are put forward, and one that comes
//! twice is the first of the two. The zones are those of the program, never those of the machine.

use cronexpr::Crontab;
use jiff::{
    SignedDuration, Timestamp,
    tz::{TimeZone, TimeZoneDatabase},
};

/// More than clocks are ever put forward or back.
const SLACK: SignedDuration = SignedDuration::from_hours(3);
/// How many openings are compared to see how often a schedule comes up.
const COMPARED: usize = 64;
/// Noon of the day from which they are counted, 2024-01-01: any day will do, but always the same one.
const COUNTED_FROM: i64 = 1_704_110_400;
/// How far that goes.
const COUNTED_FOR: SignedDuration = SignedDuration::from_hours(400 * 24);

/// Why there is no such schedule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// It is no cron.
    #[error(
        "schedule `{0}` is not understood: write minute, hour, day of month, month and day of week, such as `0 18 * * 5`"
    )]
    Schedule(String),
    /// There is no such day.
    #[error("schedule `{0}` never comes up")]
    Never(String),
    /// There is no such place.
    #[error("time zone `{0}` is unknown: write an IANA name such as Europe/Berlin")]
    TimeZone(String),
}

/// A schedule in a time zone.
#[derive(Clone, Debug)]
pub struct Cron {
    civil: Crontab,
    zone: TimeZone,
}

impl Cron {
    /// Reads a schedule of five fields and an IANA name.
    ///
    /// # Errors
    /// If one of them is not understood, or the schedule never comes up.
    pub fn parse(schedule: &str, time_zone: &str) -> Result<Self, CronError> {
        let unknown = || CronError::Schedule(schedule.to_owned());
        let fields = schedule.split_whitespace().count();
        let civil = cronexpr::parse_crontab(&format!("{schedule} UTC")).ok().filter(|_| fields == 5);
        let civil = civil.ok_or_else(unknown)?;
        let zone = TimeZoneDatabase::bundled()
            .get(time_zone)
            .map_err(|_| CronError::TimeZone(time_zone.to_owned()))?;
        if civil.find_next(Timestamp::UNIX_EPOCH).is_err() {
            return Err(CronError::Never(schedule.to_owned()));
        }
        Ok(Self { civil, zone })
    }

    /// The last time that it comes up after `after` and not after `until`.
    pub fn last_within(&self, after: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let first = self.shown(after)?.saturating_sub(SLACK).ok()?;
        let last = self.shown(until)?.saturating_add(SLACK).ok()?;
        self.civil_times(first)
            .take_while(|shown| *shown <= last)
            .filter_map(|shown| self.instant(shown))
            .filter(|at| *at > after && *at <= until)
            .max()
    }

    /// The shortest time from one opening to the next; none if it comes up once in 400 days.
    pub fn shortest_period(&self) -> Option<SignedDuration> {
        let from = Timestamp::from_second(COUNTED_FROM).ok()?;
        let until = from.saturating_add(COUNTED_FOR).ok()?;
        let times: Vec<Timestamp> =
            self.civil_times(from).take_while(|at| *at <= until).take(COMPARED).collect();
        let gap = |(one, next): (&Timestamp, &Timestamp)| next.duration_since(*one);
        times.iter().zip(times.iter().skip(1)).map(gap).min()
    }

    /// What clocks in the zone show, as if they stood in UTC.
    fn shown(&self, at: Timestamp) -> Option<Timestamp> {
        let shown = self.zone.to_datetime(at);
        TimeZone::UTC.to_timestamp(shown).ok()
    }

    /// When clocks in the zone show it.
    fn instant(&self, shown: Timestamp) -> Option<Timestamp> {
        self.zone.to_ambiguous_timestamp(TimeZone::UTC.to_datetime(shown)).compatible().ok()
    }

    fn civil_times(&self, after: Timestamp) -> impl Iterator<Item = Timestamp> {
        std::iter::successors(self.next(after), |at| self.next(*at))
    }

    fn next(&self, after: Timestamp) -> Option<Timestamp> {
        self.civil.find_next(after).ok().map(|next| next.timestamp())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn last(schedule: &str, zone: &str, after: &str, until: &str) -> Option<String> {
        let cron = Cron::parse(schedule, zone).unwrap();
        cron.last_within(at(after), at(until)).map(|at| at.to_string())
    }

    #[test]
    fn a_schedule_comes_up_when_the_clocks_of_its_zone_show_it() {
        let table = [
            (
                "0 18 * * 5",
                "Etc/UTC",
                "2026-11-20T00:00:00Z",
                "2026-11-22T00:00:00Z",
                Some("2026-11-20T18:00:00Z"),
            ),
            (
                "0 18 * * FRI",
                "Europe/Berlin",
                "2026-11-20T00:00:00Z",
                "2026-11-22T00:00:00Z",
                Some("2026-11-20T17:00:00Z"),
            ),
            (
                "0 18 * * 5",
                "America/New_York",
                "2026-11-20T00:00:00Z",
                "2026-11-22T00:00:00Z",
                Some("2026-11-20T23:00:00Z"),
            ),
            // Both ends: after the first, and up to the second.
            ("0 18 * * *", "Etc/UTC", "2026-11-20T18:00:00Z", "2026-11-21T17:59:59Z", None),
            (
                "0 18 * * *",
                "Etc/UTC",
                "2026-11-20T17:59:59.5Z",
                "2026-11-20T18:00:00Z",
                Some("2026-11-20T18:00:00Z"),
            ),
            // The last of several.
            (
                "*/20 * * * *",
                "Asia/Kathmandu",
                "2026-11-20T09:00:00Z",
                "2026-11-20T10:00:00Z",
                Some("2026-11-20T09:55:00Z"),
            ),
        ];
        for (schedule, zone, after, until, expected) in table {
            assert_eq!(last(schedule, zone, after, until).as_deref(), expected, "{schedule} {zone} {after}");
        }
    }

    #[test]
    fn clocks_that_are_put_forward_or_back_lose_and_double_no_time() {
        // Berlin goes from 01:59:59 to 03:00:00 on 2026-03-29, and from 02:59:59 back to 02:00:00 on 2026-10-25.
        let table = [
            ("30 2 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", Some("2026-03-29T01:30:00Z")),
            ("30 2 * * *", "2026-03-29T01:30:00Z", "2026-03-29T23:00:00Z", None),
            ("30 2 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", Some("2026-10-25T00:30:00Z")),
            ("30 2 * * *", "2026-10-25T00:30:00Z", "2026-10-25T12:00:00Z", None),
            ("0 6 * * *", "2026-03-28T12:00:00Z", "2026-03-29T12:00:00Z", Some("2026-03-29T04:00:00Z")),
            ("0 6 * * *", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z", Some("2026-10-25T05:00:00Z")),
        ];
        for (schedule, after, until, expected) in table {
            assert_eq!(
                last(schedule, "Europe/Berlin", after, until).as_deref(),
                expected,
                "{schedule} after {after}"
            );
        }
    }

    #[test]
    fn what_never_comes_up_is_no_schedule() {
        for schedule in ["", "* * * *", "* * * * * *", "60 * * * *", "0 0 * * MOON", "@daily", "H * * * *"] {
            let error = Cron::parse(schedule, "Etc/UTC").unwrap_err();
            assert!(matches!(error, CronError::Schedule(_)), "{schedule}: {error}");
        }
        assert_eq!(Cron::parse("0 0 30 2 *", "Etc/UTC").unwrap_err(), CronError::Never("0 0 30 2 *".into()));
        for zone in ["", "Mars/Olympus", "Local"] {
            let error = Cron::parse("0 0 * * *", zone).unwrap_err();
            assert_eq!(error, CronError::TimeZone(zone.into()));
        }
    }

    #[test]
    fn the_shortest_period_is_that_of_the_closest_openings() {
        let hours = |hours| Some(SignedDuration::from_hours(hours));
        for (schedule, period) in [
            ("0 18 * * *", hours(24)),
            ("0 9,17 * * *", hours(8)),
            ("0 18 * * 1-5", hours(24)),
            ("0 18 * * 5", hours(7 * 24)),
            ("*/15 * * * *", Some(SignedDuration::from_mins(15))),
            ("0 0 1 * *", hours(29 * 24)),
            ("0 0 24 12 *", None),
        ] {
            assert_eq!(Cron::parse(schedule, "Etc/UTC").unwrap().shortest_period(), period, "{schedule}");
        }
    }
}
