//! Experiments: how often the group-sequential test names a winner, beside looking daily at a fixed 1.96.
//!
//! What is drawn is the walk of the z statistic over 14 equal looks; ten experiments for each of the bench's rollouts.

use anneal_core::judge::winner::Design;
use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use rand_distr::{Distribution, StandardNormal};

/// Daily looks.
const LOOKS: u32 = 14;
/// The mean of the last z: nothing, and what the specification's table has.
const DRIFTS: [f64; 4] = [0.0, 2.80, 3.24, 4.0];

/// One rule's figure.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// What was true.
    pub name: String,
    /// Which rule.
    pub rule: &'static str,
    /// Share of experiments with a winner on either side.
    pub decided: f64,
}

/// Runs both rules over the same experiments.
pub fn run(seed: u64, rollouts: u64) -> Vec<Experiment> {
    let planned: Vec<f64> = (1..=LOOKS).map(|look| f64::from(look) / f64::from(LOOKS)).collect();
    let ours = Design { alpha: 0.05, looks: LOOKS }.boundaries(&planned);
    let naive = vec![1.96; LOOKS as usize];
    let mut experiments = Vec::new();
    for (stream, drift) in (0..).zip(DRIFTS) {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(stream);
        let count = rollouts.saturating_mul(10);
        let mut decided = [0_u64; 2];
        for _ in 0..count {
            let mut walk = 0.0;
            let zs: Vec<f64> = (1..=LOOKS)
                .map(|look| {
                    let noise: f64 = StandardNormal.sample(&mut rng);
                    walk += drift / f64::from(LOOKS) + noise / f64::from(LOOKS).sqrt();
                    walk * (f64::from(LOOKS) / f64::from(look)).sqrt()
                })
                .collect();
            for (decided, boundaries) in decided.iter_mut().zip([&ours, &naive]) {
                *decided += u64::from(zs.iter().zip(boundaries).any(|(z, boundary)| z.abs() >= *boundary));
            }
        }
        for (decided, rule) in decided.iter().zip(["group-sequential", "1.96 daily"]) {
            let name = format!("mean of the last z {drift}");
            experiments.push(Experiment { name, rule, decided: *decided as f64 / count as f64 });
        }
    }
    experiments
}
