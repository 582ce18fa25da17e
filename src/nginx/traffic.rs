//! What nginx counts of its requests, as its stub_status module tells it: all its sites together, and the tools' own
//! questions among them.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};

use crate::app::App;
use crate::http;

/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// What nginx counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Traffic {
    /// The requests since it was started, this question among them.
    pub requests: u64,
    /// Those that it reads, or whose response is on its way; this question is not among them.
    pub in_flight: u64,
}

/// Asks nginx what it counts. Fails for one that does not count, or was not told to by an earlier install.
pub fn traffic(app: &App) -> Result<Traffic> {
    let port = app.config.nginx.status_port.number();
    let answer = http::get(port, "/nginx", ANSWER).map_err(|reason| anyhow!("{reason}"))?;
    match answer.status {
        200 => Traffic::read(&String::from_utf8_lossy(&answer.body)),
        404 => bail!("it does not count them; one that can does after install was run again"),
        status => bail!("status {status}"),
    }
}

impl Traffic {
    /// Reads what stub_status says: the third number of the third line, and the first two of the last one.
    fn read(text: &str) -> Result<Traffic> {
        let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
        let [_active, _accepted, _handled, requests, reading, writing, _waiting] = numbers[..] else {
            return Err(anyhow!("{text:?}")).context("it says something else");
        };
        Ok(Traffic { requests, in_flight: (reading + writing).saturating_sub(1) })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_nginx_counts_is_understood() {
        let said = "Active connections: 291 \nserver accepts handled requests\n 16630948 16630948 31070465 \n\
                    Reading: 6 Writing: 179 Waiting: 106 \n";
        assert_eq!(Traffic::read(said).unwrap(), Traffic { requests: 31_070_465, in_flight: 184 });
        let error = Traffic::read("shop").unwrap_err();
        assert_eq!(format!("{error:#}"), "it says something else: \"shop\"");
    }
}
