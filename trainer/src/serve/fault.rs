//! Faults on purpose, so that a rollback can be shown with a real model.

use std::{str::FromStr, time::Duration};

use anneal_crds::Span;
use rand::Rng;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use super::metrics::Arm;

/// Which faults: `latency=200ms,error=0.3,wrong=0.1`, and with `arm=live` only in answers that someone waits for. The default is
/// none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Fault {
    /// Added to every answer.
    pub latency: Duration,
    /// Share of requests that are answered with 500, from 0 to 1.
    pub error: f64,
    /// Share of answers that are others than the model's, from 0 to 1.
    pub wrong: f64,
    /// Which requests are spoiled.
    pub spoils: Spoils,
}

/// Which requests a fault spoils.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Spoils {
    /// All.
    #[default]
    All,
    /// Those of clients, and not the copies of shadow traffic.
    Live,
}

impl Fault {
    /// The fault as a request of `arm` meets it.
    pub(super) fn for_arm(self, arm: Arm) -> Self {
        match (self.spoils, arm) {
            (Spoils::All, _) | (Spoils::Live, Arm::Live) => self,
            (Spoils::Live, Arm::Shadow) => Self::default(),
        }
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut fault = Self::default();
        for part in text.split(',').filter(|part| !part.trim().is_empty()) {
            match part.trim().split_once('=') {
                Some(("latency", value)) => {
                    let span: Span = value.parse().map_err(|error| format!("latency: {error}"))?;
                    fault.latency = Duration::from_millis(u64::try_from(span.as_millis()).unwrap_or(0));
                }
                Some(("error", value)) => fault.error = share("error", value)?,
                Some(("wrong", value)) => fault.wrong = share("wrong", value)?,
                Some(("arm", "live")) => fault.spoils = Spoils::Live,
                _ => {
                    return Err(format!(
                        "`{part}` is no fault: write latency=200ms, error=0.3, wrong=0.1, arm=live or several with commas"
                    ));
                }
            }
        }
        Ok(fault)
    }
}

fn share(name: &str, value: &str) -> Result<f64, String> {
    let share = value.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("{name}={value}: give a share from 0 to 1, such as 0.3"))
}

/// Which requests fail: always the same ones, counted from the start of the process.
#[derive(Debug)]
pub(super) struct Sequence(ChaCha8Rng);

impl Sequence {
    pub(super) fn new() -> Self {
        Self(ChaCha8Rng::seed_from_u64(2025))
    }

    pub(super) fn next_happens(&mut self, share: f64) -> bool {
        share > 0.0 && self.0.random::<f64>() < share
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_the_command_line() {
        let both = Fault { latency: Duration::from_millis(200), error: 0.3, wrong: 0.0, spoils: Spoils::All };
        assert_eq!("latency=200ms,error=0.3".parse(), Ok(both));
        let live = Fault { spoils: Spoils::Live, ..both };
        assert_eq!("latency=200ms,error=0.3,arm=live".parse(), Ok(live));
        assert_eq!(live.for_arm(Arm::Live), live);
        assert_eq!(live.for_arm(Arm::Shadow), Fault::default());
        assert_eq!("wrong=0.1".parse(), Ok(Fault { wrong: 0.1, ..Fault::default() }));
        assert_eq!("".parse(), Ok(Fault::default()));
        for bad in ["latency=fast", "error=2", "error=nan", "wrong=-1", "delay=1s", "error", "arm=shadow"] {
            assert!(bad.parse::<Fault>().is_err(), "{bad}");
        }
    }

    #[test]
    fn the_sequence_is_always_the_same_and_has_its_share() {
        let failures = |share| {
            let mut sequence = Sequence::new();
            (0..10_000).map(|_| sequence.next_happens(share)).collect::<Vec<_>>()
        };
        assert_eq!(failures(0.3), failures(0.3));
        let count = failures(0.3).iter().filter(|fails| **fails).count();
        assert!((2_800..3_200).contains(&count), "{count}");
        assert!(!failures(0.0).contains(&true));
        assert!(!failures(1.0).contains(&false));
    }
}
