//! The table, line by line as it is measured.
#![allow(dead_code)] // Each benchmark uses a part of it.

use std::time::Duration;

/// The first of `columns` is what the others are compared with, as many times as it their times are.
pub(crate) fn heading(what: &str, columns: &[&str]) {
    println!("\n{what}, and in brackets how many times the first that is.\n");
    print!("{:<48}", "");
    columns.iter().for_each(|column| print!("{column:>22}"));
    println!();
}

pub(crate) fn alone(what: &str, time: Duration) {
    println!("{what:<48}{:>22.2}", micros(time));
}

pub(crate) fn compared<const N: usize>(what: &str, times: [Duration; N]) {
    line(what, times.map(micros), 2);
}

pub(crate) fn compared_nanos<const N: usize>(what: &str, times: [Duration; N]) {
    line(what, times.map(|time| micros(time) * 1000.0), 0);
}

fn line<const N: usize>(what: &str, times: [f64; N], digits: usize) {
    print!("{what:<48}");
    for (index, time) in times.iter().enumerate() {
        let ratio = if index == 0 { String::new() } else { format!(" ({:.2})", time / times[0]) };
        print!("{:>22}", format!("{time:.digits$}{ratio}"));
    }
    println!();
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
