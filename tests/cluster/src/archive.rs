//! Writes a container image as a docker-archive, without a container tool: one layer, made of files on this machine.
//!
//! Called by `images`. The same inputs give the same bytes, so image ids do not change from build to build.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

/// One thing in the layer; paths in the image have no leading slash.
#[derive(Debug)]
pub(crate) enum Item<'a> {
    /// A file of this machine.
    File { path: String, from: &'a Path },
    /// A symbolic link.
    Link { path: String, target: String },
    /// An empty folder that anybody may write to.
    Dir { path: String },
}

/// Writes `<folder>/image.tar` for an image of that name.
pub(crate) fn write(folder: &Path, name: &str, items: &[Item<'_>], entrypoint: &[&str]) -> Result<()> {
    let layer = folder.join("layer.tar");
    build_layer(&layer, items)
        .with_context(|| format!("cannot write {}; free some space", layer.display()))?;
    assemble(folder, &layer, name, entrypoint)
        .with_context(|| format!("cannot write the image {name}; free some space"))?;
    std::fs::remove_file(&layer).with_context(|| format!("cannot remove {}; try again", layer.display()))
}

fn build_layer(layer: &Path, items: &[Item<'_>]) -> Result<()> {
    let mut tar = Builder::new(File::create(layer)?);
    for item in items {
        let mut header = header(EntryType::Regular, 0o755);
        match item {
            Item::File { path, from } => {
                let file = File::open(from)
                    .with_context(|| format!("cannot read {}; build it again", from.display()))?;
                header.set_size(file.metadata()?.len());
                tar.append_data(&mut header, path, file)?;
            }
            Item::Link { path, target } => {
                header.set_entry_type(EntryType::Symlink);
                tar.append_link(&mut header, path, target)?;
            }
            Item::Dir { path } => {
                header.set_entry_type(EntryType::Directory);
                header.set_mode(0o1777);
                tar.append_data(&mut header, path, std::io::empty())?;
            }
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

fn assemble(folder: &Path, layer: &Path, name: &str, entrypoint: &[&str]) -> Result<()> {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": { "Entrypoint": entrypoint, "Env": ["PATH=/usr/local/bin:/usr/bin:/bin"] },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", digest_of(layer)?)] },
        "history": [],
    })
    .to_string();
    let config_name = format!("{}.json", hex(&Sha256::digest(&config)));
    let manifest =
        json!([{ "Config": config_name, "RepoTags": [name], "Layers": ["layer.tar"] }]).to_string();
    let mut tar = Builder::new(File::create(folder.join("image.tar"))?);
    for (path, text) in [("manifest.json", &manifest), (&config_name, &config)] {
        let mut header = header(EntryType::Regular, 0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes())?;
    }
    let file = File::open(layer)?;
    let mut header = header(EntryType::Regular, 0o644);
    header.set_size(file.metadata()?.len());
    tar.append_data(&mut header, "layer.tar", file)?;
    tar.into_inner()?.flush()?;
    Ok(())
}

fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(0);
    header
}

fn digest_of(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex(&hash.finalize())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_names_the_image_and_its_only_layer() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        std::fs::write(&program, "x").unwrap();
        let items = [
            Item::File { path: "bin/program".into(), from: &program },
            Item::Link { path: "bin/alias".into(), target: "program".into() },
            Item::Dir { path: "tmp".into() },
        ];
        write(dir.path(), "anneal.test/x:1", &items, &["program"]).unwrap();
        let bytes = std::fs::read(dir.path().join("image.tar")).unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut manifest = String::new();
        archive.entries().unwrap().next().unwrap().unwrap().read_to_string(&mut manifest).unwrap();
        let manifest: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        assert_eq!(manifest[0]["RepoTags"][0], "anneal.test/x:1");
        assert_eq!(manifest[0]["Layers"], json!(["layer.tar"]));
        assert!(!dir.path().join("layer.tar").exists());

        write(dir.path(), "anneal.test/x:1", &items, &["program"]).unwrap();
        assert_eq!(std::fs::read(dir.path().join("image.tar")).unwrap(), bytes);
    }
}
