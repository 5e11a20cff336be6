//! Which of a pod's resources are GPUs, and which of those this trainer can use.
//!
//! Called by `rules`, which refuses the others, and to choose the device.

use anneal_crds::retrain_job::Trainer;

/// Who can compute on a resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vendor {
    /// CUDA, and so this trainer.
    Cuda,
    /// Others.
    Other,
}

/// Words in the names of resources that compute and are not CUDA's, such as `amd.com/gpu` or `google.com/tpu`.
const OTHERS: [&str; 4] = ["gpu", "tpu", "gaudi", "neuron"];

/// The resources that compute, of which some amount is asked for.
pub(super) fn asked_for(trainer: &Trainer) -> impl Iterator<Item = (&str, Vendor)> {
    let lists = [&trainer.resources.limits, &trainer.resources.requests];
    let asked = lists.into_iter().flatten().flatten().filter(|(_, amount)| amount.0 != "0");
    asked.filter_map(|(name, _)| Some((name.as_str(), vendor(name)?)))
}

fn vendor(name: &str) -> Option<Vendor> {
    // Whole GPUs, shared ones (`nvidia.com/gpu.shared`), and slices of one (`nvidia.com/mig-1g.10gb`).
    if name.starts_with("nvidia.com/gpu") || name.starts_with("nvidia.com/mig-") {
        return Some(Vendor::Cuda);
    }
    let name = name.to_lowercase();
    OTHERS.iter().any(|word| name.contains(word)).then_some(Vendor::Other)
}
