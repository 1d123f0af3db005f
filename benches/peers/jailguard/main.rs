//! Asks jailguard of texts: JSON strings on standard input, one a line; for each, whether it is an injection.

use std::io::{BufRead as _, Write as _, stdin, stdout};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // The model is loaded before the first text.
    jailguard::score("");
    for line in stdin().lock().lines() {
        let text: String = serde_json::from_str(&line?)?;
        let mut out = stdout().lock();
        writeln!(out, "{}", jailguard::is_injection(&text))?;
        out.flush()?;
    }
    Ok(())
}
