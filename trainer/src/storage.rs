//! Files in `file://` and `s3://` folders, read and written whole.
//!
//! Called by everything that touches data, checkpoints, artifacts and results; nothing else opens files of a run.
//! Every write is atomic: a reader sees the whole file or none. [`Location::create`] succeeds for one writer only.
//! The methods block; async code calls them through `spawn_blocking` or before it starts.

use std::{fmt, fs, path, sync::Arc};

use anneal_crds::common::shorten;
use bytes::Bytes;
use object_store::{
    Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, aws::AmazonS3Builder,
    local::LocalFileSystem, path::Path,
};
use tokio::runtime::Handle;

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The URI names no place.
    #[error("`{0}` is not a place for files: write file:///absolute/path or s3://bucket/key")]
    Uri(String),
    /// There is no such file.
    #[error("{uri} does not exist: check the URI and that whatever writes it has finished")]
    NotFound {
        /// Which file.
        uri: String,
    },
    /// The storage lets two writers create the same file.
    #[error(
        "the storage of {uri} ignores `If-None-Match: *`, so two pods could overwrite each other: use a service with conditional writes, such as AWS S3 or MinIO"
    )]
    NoConditions {
        /// The file that could be created twice.
        uri: String,
    },
    /// The storage service or the file system failed.
    #[error("cannot {action} {uri} ({}): check that the storage is reachable and lets this pod in", in_one_line(.source))]
    Failed {
        /// What was tried.
        action: &'static str,
        /// Which file.
        uri: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
}

impl StorageError {
    /// Whether the file is simply not there.
    pub const fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }
}

/// Storage services answer with pages of XML.
fn in_one_line(source: &StoreError) -> String {
    let words: Vec<_> = source.to_string().split_whitespace().map(str::to_owned).collect();
    shorten(&words.join(" "), 400).into_owned()
}

/// Whether [`Location::create`] wrote the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Creation {
    /// This call wrote it.
    Created,
    /// It existed and is unchanged.
    Existed,
}

/// The root of everything on this machine.
const LOCAL: &str = "file:///";

/// A file or folder.
#[derive(Clone)]
pub struct Location {
    runtime: Handle,
    store: Arc<dyn ObjectStore>,
    root: String,
    path: Path,
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.uri())
    }
}

impl Location {
    /// The place that a `file://` or `s3://` URI, or a path on this machine, names.
    ///
    /// # Errors
    /// When it is neither, or when the environment lacks what S3 needs.
    pub fn open(runtime: &Handle, uri: &str) -> Result<Self, StorageError> {
        let invalid = || StorageError::Uri(uri.to_owned());
        let (store, root, path): (Arc<dyn ObjectStore>, String, String) = if let Some(rest) =
            uri.strip_prefix("s3://")
        {
            let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
            if bucket.is_empty() {
                return Err(invalid());
            }
            let store = AmazonS3Builder::from_env().with_bucket_name(bucket).build();
            let store = store.map_err(|source| failed("open", uri, source))?;
            (Arc::new(store), format!("s3://{bucket}/"), key.to_owned())
        } else {
            let path = match uri.strip_prefix("file://") {
                Some(path) => path::PathBuf::from(path),
                None if uri.contains("://") => return Err(invalid()),
                None => path::absolute(uri).map_err(|_| invalid())?,
            };
            let path = path.to_str().and_then(|path| path.strip_prefix('/')).ok_or_else(invalid)?.to_owned();
            (Arc::new(LocalFileSystem::new().with_fsync(true)), LOCAL.to_owned(), path)
        };
        let path = Path::parse(path.trim_end_matches('/')).map_err(|_| invalid())?;
        Ok(Self { runtime: runtime.clone(), store, root, path })
    }

    /// A file or folder below this one; `name` may contain `/`.
    pub fn join(&self, name: &str) -> Self {
        // Names from a listing are taken as they are; only what no store allows is escaped.
        let path = Path::parse(format!("{}/{name}", self.path)).unwrap_or_else(|_| {
            name.split('/')
                .filter(|part| !part.is_empty())
                .fold(self.path.clone(), |path, part| path.join(part))
        });
        Self { path, ..self.clone() }
    }

    /// The folder that holds this one, and this one's name; none at the top.
    pub fn split(&self) -> Option<(Self, String)> {
        let mut parts: Vec<_> = self.path.parts().collect();
        let name = parts.pop()?.as_ref().to_owned();
        Some((Self { path: Path::from_iter(parts), ..self.clone() }, name))
    }

    /// The URI of this place.
    pub fn uri(&self) -> String {
        format!("{}{}", self.root, self.path)
    }

    /// The whole file.
    ///
    /// # Errors
    /// When it is missing or cannot be read.
    pub fn read(&self) -> Result<Bytes, StorageError> {
        self.runtime
            .block_on(async { self.store.get(&self.path).await?.bytes().await })
            .map_err(|source| self.failed("read", source))
    }

    /// The whole file, or none if there is none.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn read_if_exists(&self) -> Result<Option<Bytes>, StorageError> {
        match self.read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes the whole file, replacing an older one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, bytes: impl Into<PutPayload>) -> Result<(), StorageError> {
        let payload = bytes.into();
        self.runtime
            .block_on(self.store.put(&self.path, payload))
            .map(|_| ())
            .map_err(|source| self.failed("write", source))
    }

    /// Writes the whole file if there is none: of several writers one succeeds.
    ///
    /// # Errors
    /// When it cannot be written for another reason than that it exists.
    pub fn create(&self, bytes: impl Into<PutPayload>) -> Result<Creation, StorageError> {
        let options = PutOptions::from(PutMode::Create);
        match self.runtime.block_on(self.store.put_opts(&self.path, bytes.into(), options)) {
            Ok(_) => Ok(Creation::Created),
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => Ok(Creation::Existed),
            Err(source) => Err(self.failed("create", source)),
        }
    }

    /// Removes the file; a missing one is no error.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> Result<(), StorageError> {
        match self.runtime.block_on(self.store.delete(&self.path)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(source) => Err(self.failed("remove", source)),
        }
    }

    /// Names of the files and of the folders directly in this folder, each sorted; both empty if there is no folder.
    ///
    /// # Errors
    /// When the storage cannot be listed.
    pub fn list(&self) -> Result<Listing, StorageError> {
        let result = match self.runtime.block_on(self.store.list_with_delimiter(Some(&self.path))) {
            Ok(result) => result,
            Err(StoreError::NotFound { .. }) => return Ok(Listing::default()),
            Err(source) => return Err(self.failed("list", source)),
        };
        let last = |path: &Path| path.filename().map(str::to_owned);
        let mut files: Vec<_> = result.objects.iter().filter_map(|object| last(&object.location)).collect();
        let mut folders: Vec<_> = result.common_prefixes.iter().filter_map(last).collect();
        files.sort();
        folders.sort();
        Ok(Listing { files, folders })
    }

    /// What is known of the file without reading it; none if there is none.
    ///
    /// # Errors
    /// When the storage does not say.
    pub fn stat(&self) -> Result<Option<Stat>, StorageError> {
        match self.runtime.block_on(self.store.head(&self.path)) {
            Ok(meta) => {
                let mark = meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339());
                Ok(Some(Stat { size: meta.size, mark }))
            }
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(source) => Err(self.failed("look at", source)),
        }
    }

    /// Removes this folder if nothing at all is in it; buckets know no empty folders. There is no call that removes a
    /// folder with what is in it: whoever removes files names each of them.
    pub fn remove_if_empty(&self) {
        if self.root == LOCAL
            && let Ok(path) = LocalFileSystem::new().path_to_filesystem(&self.path)
        {
            // Refused by the system when there is anything in it; then it stays, and nothing depends on it.
            let _ = fs::remove_dir(path);
        }
    }

    fn failed(&self, action: &'static str, source: StoreError) -> StorageError {
        failed(action, &self.uri(), source)
    }
}

/// What is known of a file without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    /// How many bytes.
    pub size: u64,
    /// Changes when the file does: its entity tag, or the time of its last change.
    pub mark: String,
}

/// What lies directly in a folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Names of the files.
    pub files: Vec<String>,
    /// Names of the folders.
    pub folders: Vec<String>,
}

fn failed(action: &'static str, uri: &str, source: StoreError) -> StorageError {
    let uri = uri.to_owned();
    if matches!(source, StoreError::NotFound { .. }) {
        StorageError::NotFound { uri }
    } else {
        StorageError::Failed { action, uri, source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, tokio::runtime::Runtime, Location) {
        let dir = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let location = Location::open(runtime.handle(), &format!("file://{}", dir.path().display())).unwrap();
        (dir, runtime, location)
    }

    #[test]
    fn a_created_file_is_never_created_again() {
        let (_dir, _runtime, folder) = folder();
        let file = folder.join("a/b.json");
        assert_eq!(file.create("one").unwrap(), Creation::Created);
        assert_eq!(file.create("two").unwrap(), Creation::Existed);
        assert_eq!(file.read().unwrap(), "one");
        assert_eq!(folder.list().unwrap().folders, ["a"]);
        assert_eq!(folder.join("a").list().unwrap().files, ["b.json"]);
        folder.join("a").remove_if_empty();
        assert_eq!(file.read().unwrap(), "one", "only an empty folder is removed");
        file.remove().unwrap();
        folder.join("a").remove_if_empty();
        assert!(file.read_if_exists().unwrap().is_none());
        assert!(folder.list().unwrap().folders.is_empty());
    }

    #[test]
    fn the_mark_of_a_file_changes_with_it() {
        let (_dir, _runtime, folder) = folder();
        let file = folder.join("a.parquet");
        assert_eq!(file.stat().unwrap(), None);
        file.write("one").unwrap();
        let first = file.stat().unwrap().unwrap();
        assert_eq!((first.size, file.stat().unwrap()), (3, Some(first.clone())));
        file.write("two").unwrap();
        assert_ne!(file.stat().unwrap().unwrap().mark, first.mark);
    }

    #[test]
    fn places_are_named_as_they_were_given() {
        let (dir, runtime, folder) = folder();
        assert_eq!(folder.join("x").uri(), format!("file://{}/x", dir.path().display()));
        let (parent, name) = folder.join("x/y*.parquet").split().unwrap();
        assert_eq!((parent.uri(), name.as_str()), (folder.join("x").uri(), "y*.parquet"));
        for bad in ["http://x/y", "s3://", "gs://b/k"] {
            assert!(Location::open(runtime.handle(), bad).is_err(), "{bad}");
        }
    }
}
