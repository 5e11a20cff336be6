//! The fence between executions of one run: only the newest may publish.
//!
//! Every start takes the next number by creating a file that nobody else can create. A pod that was thought dead and
//! comes back finds a higher number than its own and stops.

use serde_json::json;

use crate::{
    error::Failure,
    host,
    storage::{Creation, Location, StorageError},
};

/// This execution's number, and where to look for newer ones.
#[derive(Clone, Debug)]
pub struct Fence {
    folder: Location,
    own: u64,
}

impl Fence {
    /// Takes the next number in a run's folder `executions`.
    ///
    /// # Errors
    /// When the storage fails, or when the number is above `allowed`.
    pub fn enter(folder: &Location, allowed: u64) -> Result<Self, Failure> {
        loop {
            let own = newest(folder)? + 1;
            if own > allowed {
                return Err(Failure::TooManyExecutions { started: own, allowed });
            }
            let marker = json!({"startedAt": host::now().to_string()}).to_string();
            let file = folder.join(&own.to_string());
            if file.create(marker.clone())? == Creation::Existed {
                continue;
            }
            // Everything that must happen once rests on this, and some S3 services ignore the condition.
            return match file.create(marker)? {
                Creation::Existed => Ok(Self { folder: folder.clone(), own }),
                Creation::Created => Err(StorageError::NoConditions { uri: file.uri() }.into()),
            };
        }
    }

    /// This execution's number, from 1.
    pub const fn own(&self) -> u64 {
        self.own
    }

    /// Whether this execution may still publish.
    ///
    /// # Errors
    /// When a newer execution has started, or the storage fails.
    pub fn check(&self) -> Result<(), Failure> {
        match newest(&self.folder)? {
            newest if newest > self.own => Err(Failure::Superseded { own: self.own, newest }),
            _ => Ok(()),
        }
    }
}

fn newest(folder: &Location) -> Result<u64, Failure> {
    let names = folder.list()?.files;
    Ok(names.iter().filter_map(|name| name.parse().ok()).max().unwrap_or(0))
}
