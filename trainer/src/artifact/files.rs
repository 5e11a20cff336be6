//! The files of an artifact, their list of digests, and the folder that is named by it.

use std::collections::BTreeMap;

use anneal_crds::model_version::Artifact;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::{ArtifactError, SUMS_FILE};
use crate::storage::Location;

/// Files by name, without the list of digests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, Bytes>);

impl Files {
    /// Adds or replaces a file.
    pub fn insert(&mut self, name: &str, content: impl Into<Bytes>) {
        self.0.insert(name.to_owned(), content.into());
    }

    /// A file's content; empty if there is none.
    pub fn get(&self, name: &str) -> &[u8] {
        self.0.get(name).map(Bytes::as_ref).unwrap_or_default()
    }

    /// The list of digests, as `sha256sum` writes and checks it.
    pub fn sums(&self) -> String {
        self.0.iter().map(|(name, content)| format!("{}  {name}\n", hex(content))).collect()
    }

    /// Writes the files below `<model>/blobs/sha256/`; the list of digests is last, so a folder with one is complete.
    ///
    /// # Errors
    /// When the storage fails.
    pub fn write(&self, model_folder: &Location) -> Result<Artifact, ArtifactError> {
        let sums = self.sums();
        let digest = hex(sums.as_bytes());
        let folder = model_folder.join("blobs/sha256").join(&digest);
        for (name, content) in &self.0 {
            // The name of the folder fixes the content, so whoever wrote it before wrote the same.
            folder.join(name).write(content.clone())?;
        }
        folder.join(SUMS_FILE).write(sums)?;
        Ok(Artifact { uri: folder.uri(), digest: format!("sha256:{digest}") })
    }

    /// Reads the files of an artifact and checks every digest; `expected` is the artifact's own, if it is known.
    ///
    /// # Errors
    /// When a file is missing or any digest differs.
    pub fn read(folder: &Location, expected: Option<&str>) -> Result<Self, ArtifactError> {
        let sums = folder.join(SUMS_FILE).read()?;
        let digest = |file: &str, found: String, expected: &str| {
            let (uri, file, expected) = (folder.uri(), file.to_owned(), expected.to_owned());
            ArtifactError::Digest { uri, file, found, expected }
        };
        let found = digest_of(&sums);
        if let Some(expected) = expected.filter(|expected| **expected != found) {
            return Err(digest(SUMS_FILE, found, expected));
        }
        let malformed = |cause: &str| ArtifactError::Malformed {
            uri: folder.uri(),
            file: SUMS_FILE,
            cause: cause.into(),
        };
        let text = std::str::from_utf8(&sums).map_err(|_| malformed("it is not text"))?;
        let mut files = Self::default();
        for line in text.lines() {
            let (expected, name) = line.split_once("  ").ok_or_else(|| malformed("a line has no name"))?;
            if name.contains('/') {
                return Err(malformed("a name is not in the folder"));
            }
            let content = folder.join(name).read()?;
            let found = hex(&content);
            if found != expected {
                return Err(digest(name, found, expected));
            }
            files.insert(name, content);
        }
        Ok(files)
    }
}

/// `sha256:` and the digest of some bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

fn hex(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
