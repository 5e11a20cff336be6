//! The digest of rows: the same for the same content, whatever the files, their compression and column order.

use sha2::{Digest, Sha256};

use super::table::{Column, Rows, Values};

/// `sha256:` over features (sorted by name) and target, each with name, kind and all values.
pub fn digest(rows: &Rows) -> String {
    let mut hash = Sha256::new();
    for column in rows.features.iter().chain(&rows.target) {
        add(&mut hash, column);
    }
    format!("sha256:{:x}", hash.finalize())
}

fn add(hash: &mut Sha256, column: &Column) {
    // Lengths before texts, so that no two different tables give the same bytes.
    let text = |hash: &mut Sha256, text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    text(hash, &column.name);
    text(hash, &column.values.kind().to_string());
    hash.update((column.values.len() as u64).to_le_bytes());
    match &column.values {
        Values::Number(numbers) => numbers.iter().for_each(|number| hash.update(number.to_le_bytes())),
        Values::Category(categories) => {
            for row in 0..categories.codes().len() {
                match categories.get(row) {
                    Some(value) => {
                        hash.update([1]);
                        text(hash, value);
                    }
                    None => hash.update([0]),
                }
            }
        }
    }
}
