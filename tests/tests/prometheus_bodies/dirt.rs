//! Dirt: what no server should send, made of what one would.

use anneal_tests::world::dice::Dice;
use serde_json::{Value, json};

use super::NOW;

/// A body as it is, or with a few places changed, or cut and stirred.
pub fn bytes(mut value: Value, dice: &mut Dice) -> Vec<u8> {
    for _ in 0..dice.below(4) {
        mutate(&mut value, dice);
    }
    let mut bytes = serde_json::to_vec(&value).unwrap();
    if dice.chance(250) {
        garble(&mut bytes, dice);
    }
    bytes
}

fn odd(dice: &mut Dice) -> Value {
    let odd = [
        json!(null),
        json!(true),
        json!(0),
        json!(-1),
        json!(1e308),
        json!(u64::MAX),
        json!("NaN"),
        json!("+Inf"),
        json!("-Inf"),
        json!("Infinity"),
        json!("1e400"),
        json!("-0"),
        json!("5e-324"),
        json!("1.7e308"),
        json!("-1"),
        json!(""),
        json!("x"),
        json!("0x10"),
        json!("9".repeat(400)),
        json!(NOW.to_string()),
        json!((NOW + 5).to_string()),
        json!("scalar"),
        json!("matrix"),
        json!("error"),
        json!("bad"),
        json!("bucket"),
        json!([]),
        json!({}),
        json!([NOW, "1"]),
        json!([[[[[[[[]]]]]]]]),
        json!({"count": "1", "sum": "1"}),
    ];
    dice.pick(&odd).unwrap().clone()
}

/// A number as Prometheus writes it, and as it never would.
pub fn odd_number(dice: &mut Dice) -> Value {
    let odd = [
        "NaN", "+Inf", "-Inf", "0", "-0", "-1", "1e308", "1.7e308", "5e-324", "1e-9", "0.5", "100", "10000",
        "1e400",
    ];
    match dice.below(3) {
        0 => json!(dice.pick(&odd).unwrap()),
        1 => json!((NOW as f64 - 40.0 + dice.below(80_000) as f64 / 1000.0).to_string()),
        _ => json!(dice.below(10_000).to_string()),
    }
}

/// Changes one place of a JSON value.
fn mutate(value: &mut Value, dice: &mut Dice) {
    match value {
        Value::Array(items) if !items.is_empty() && dice.chance(800) => {
            let place = dice.below(items.len());
            mutate(&mut items[place], dice);
        }
        Value::Array(items) => {
            let place = dice.below(items.len());
            match dice.below(4) {
                0 if !items.is_empty() => drop(items.remove(place)),
                1 if !items.is_empty() => items.push(items[place].clone()),
                2 if !items.is_empty() => items.swap(0, place),
                _ => items.push(odd(dice)),
            }
        }
        Value::Object(fields) if !fields.is_empty() && dice.chance(800) => {
            let place = dice.below(fields.len());
            if let Some((_, field)) = fields.iter_mut().nth(place) {
                mutate(field, dice);
            }
        }
        Value::Object(fields) => {
            let names =
                ["warnings", "infos", "error", "status", "histogram", "value", "le", "anneal_part", "data"];
            let name = dice.pick(&names).unwrap();
            if dice.chance(500) {
                fields.remove(*name);
            } else {
                let warning = json!(["a store is gone"]);
                let value = if dice.chance(300) { warning } else { odd(dice) };
                fields.insert((*name).to_owned(), value);
            }
        }
        Value::String(text) if text.parse::<f64>().is_ok() && dice.chance(900) => *value = odd_number(dice),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => *value = odd(dice),
    }
}

/// Changes some bytes.
fn garble(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(6) {
        let place = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(place),
            1 if !bytes.is_empty() => bytes[place] = u8::try_from(dice.below(256)).unwrap(),
            2 if !bytes.is_empty() => drop(bytes.remove(place)),
            3 => bytes.insert(place, *dice.pick(b"0123456789.-+eE\"[]{},:\\nN \xff").unwrap()),
            4 => {
                let copy = bytes[place..bytes.len().min(place + dice.below(64))].to_vec();
                let to = dice.below(bytes.len());
                bytes.splice(to..to, copy);
            }
            _ if !bytes.is_empty() => bytes[place] ^= 1 << dice.below(8),
            _ => {}
        }
    }
}
