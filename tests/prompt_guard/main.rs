//! The promise of `PromptGuardLayer`: what is not read is not passed on, and what is passed on is what
//! was read.

#![cfg(test)]

mod adapters;
mod added;
mod answers;
mod anything;
mod cancel;
mod detectors;
mod evasion;
mod packs;
mod pieces;
mod refusals;
mod remembered;
mod requests;
mod restored;
mod streams;
mod strikes;
mod support;
mod system_prompt;
mod tokens;
mod topics;
mod waiting;
