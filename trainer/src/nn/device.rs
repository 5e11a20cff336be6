//! Chooses the device. Called once, after all data were checked.

use std::str::FromStr;

use anneal_crds::contract::Device;

use super::cuda;

/// What the user wants to compute on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// A GPU if the job asks for one, else the processor.
    #[default]
    Auto,
    /// Exactly this device.
    Exactly(Device),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cuda" => Ok(Self::Exactly(Device::Cuda(0))),
            other => Device::try_from(other.to_owned())
                .map(Self::Exactly)
                .map_err(|error| format!("{error} or auto")),
        }
    }
}

/// The device asked for cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "{device} cannot be used ({cause}): use the CUDA image on a node with a GPU and its driver, or set trainer.allowCpuFallback: true"
)]
pub struct DeviceError {
    device: Device,
    cause: String,
}

/// A device that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compute {
    /// Which device.
    pub device: Device,
    pub(super) torch: tch::Device,
}

impl Compute {
    /// The processor.
    pub const CPU: Self = Self { device: Device::Cpu, torch: tch::Device::Cpu };
}

/// Opens the device that was asked for.
///
/// `gpu_requested` says whether the job's resources ask for a GPU; with `allow_fallback` the processor stands in for one
/// that cannot be used, but never for a device that was named.
///
/// # Errors
/// When a GPU is asked for and cannot be used.
pub fn choose(choice: Choice, gpu_requested: bool, allow_fallback: bool) -> Result<Compute, DeviceError> {
    let index = match choice {
        Choice::Exactly(Device::Cpu) => return Ok(Compute::CPU),
        Choice::Auto if !gpu_requested => return Ok(Compute::CPU),
        Choice::Auto => 0,
        Choice::Exactly(Device::Cuda(index)) => index,
    };
    let device = Device::Cuda(index);
    match open(index) {
        Ok(torch) => Ok(Compute { device, torch }),
        Err(_) if allow_fallback && choice == Choice::Auto => Ok(Compute::CPU),
        Err(cause) => Err(DeviceError { device, cause }),
    }
}

fn open(index: u32) -> Result<tch::Device, String> {
    cuda::load()?;
    let count = tch::Cuda::device_count();
    match usize::try_from(index) {
        Ok(index) if tch::Cuda::is_available() && i64::try_from(index).is_ok_and(|index| index < count) => {
            Ok(tch::Device::Cuda(index))
        }
        _ => Err(format!("libtorch sees {count} CUDA devices")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gpu_that_is_missing_is_an_error_unless_the_fallback_is_allowed() {
        // This machine's libtorch has no CUDA half.
        assert_eq!(choose(Choice::Auto, false, false).unwrap(), Compute::CPU);
        assert!(choose(Choice::Auto, true, false).unwrap_err().to_string().contains("allowCpuFallback"));
        assert_eq!(choose(Choice::Auto, true, true).unwrap(), Compute::CPU);
        assert!(choose(Choice::Exactly(Device::Cuda(0)), false, true).is_err());
    }

    #[test]
    fn devices_are_read_from_the_command_line() {
        assert_eq!("auto".parse(), Ok(Choice::Auto));
        assert_eq!("cuda:1".parse(), Ok(Choice::Exactly(Device::Cuda(1))));
        assert!("gpu".parse::<Choice>().is_err());
    }
}
