//! The table, line by line as it is measured.

use std::time::Duration;

pub(crate) fn heading() {
    println!("Microseconds for a request, and in brackets how many times palisade's that is.\n");
    println!("{:<48}{:>9}{:>22}{:>20}", "", "palisade", "tower-oauth2-r.-s.", "jwt-authorizer");
}

pub(crate) fn alone(what: &str, time: Duration) {
    println!("{what:<48}{:>9.2}", micros(time));
}

pub(crate) fn compared(what: &str, [palisade, oauth2, authorizer]: [Duration; 3]) {
    let peer = |time: Duration| {
        let ratio = time.as_secs_f64() / palisade.as_secs_f64();
        format!("{:.2} ({ratio:.2})", micros(time))
    };
    let (oauth2, authorizer) = (peer(oauth2), peer(authorizer));
    println!("{what:<48}{:>9.2}{oauth2:>22}{authorizer:>20}", micros(palisade));
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}
