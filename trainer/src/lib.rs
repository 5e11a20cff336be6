//! The reference trainer: train, evaluate and serve with libtorch.
//!
//! A reader walks: [`job`] file -> [`data`] -> [`schema`] -> [`train`] -> [`artifact`] -> [`evaluate`] -> gates (in
//! `anneal_core`) -> result ([`run`]) -> [`notice`]. [`serve`] answers with what was trained. libtorch is behind [`nn`],
//! storage behind [`storage`], clock and processors behind [`host`].

pub mod artifact;
pub mod data;
pub mod error;
pub mod evaluate;
pub mod host;
pub mod job;
pub mod nn;
pub mod notice;
pub mod run;
pub mod schema;
pub mod serve;
pub mod storage;
pub mod train;
