//! Owns one connection's part of a load: which request is next, and whether its answer is right.

use std::time::Duration;

use super::Plan;
use super::failure::{Failure, Kind};
use super::http::{Connection, Response};
use super::report::Outcome;

/// A refused connection is followed by this pause: without it the count of failures would show the
/// processor's speed, not the length of the outage.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// One client of the load.
pub(super) struct Client<'a> {
    plan: &'a Plan,
    number: usize,
    keeps_alive: bool,
    connection: Option<Connection>,
    sent: u64,
    refused: bool,
    noise: u64,
}

impl<'a> Client<'a> {
    /// The first `plan.kept_alive` clients keep their connections, the others do not.
    pub fn new(plan: &'a Plan, number: usize) -> Client<'a> {
        Client {
            plan,
            number,
            keeps_alive: number < plan.kept_alive,
            connection: None,
            sent: 0,
            refused: false,
            noise: (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15),
        }
    }

    /// Makes one request.
    pub fn next_request(&mut self) -> Outcome {
        let outcome = if self.posts() { self.post() } else { self.get() };
        self.sent += 1;
        let lost = outcome.result.as_ref().err();
        self.refused = lost.is_some_and(|failure| failure.kind == Kind::Refused);
        outcome
    }

    pub fn pause_after_refusal(&self) -> Option<Duration> {
        self.refused.then_some(AFTER_REFUSAL)
    }

    /// Spreads the POSTs evenly; the client's number keeps the clients out of step.
    fn posts(&self) -> bool {
        let share = u64::from(self.plan.post_share);
        let turn = self.sent + self.number as u64;
        (turn + 1) * share / 100 > turn * share / 100
    }

    fn get(&mut self) -> Outcome {
        let answer = self.exchange("GET", &self.plan.path, &[]);
        judge("GET", answer, |_| Ok(()))
    }

    fn post(&mut self) -> Outcome {
        let body = self.unique_body();
        let answer = self.exchange("POST", "/echo", body.as_bytes());
        judge("POST", answer, |echo| {
            if echo.body == body.as_bytes() {
                return Ok(());
            }
            let (got, line) = (echo.body.len(), echo.first_line());
            let detail = format!("{got} bytes for {} sent: {line}", body.len());
            Err(Failure::new(Kind::WrongBody, detail))
        })
    }

    fn exchange(&mut self, method: &str, path: &str, body: &[u8]) -> Result<Response, Failure> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.plan.target, &self.plan.host, self.plan.timeout)?,
        };
        let headers: &[_] = match self.keeps_alive {
            true => &[],
            false => &[("Connection", "close")],
        };
        let response = connection.exchange(method, path, headers, body)?;
        if self.keeps_alive && response.head.keeps_alive() {
            self.connection = Some(connection);
        }
        Ok(response)
    }

    /// 200 to 711 bytes that no other request of this load has: an answer that belongs to
    /// another request cannot pass for its echo.
    fn unique_body(&mut self) -> String {
        let mut body = format!("{}-{} ", self.number, self.sent);
        let length = 200 + (self.random() % 512) as usize;
        while body.len() < length {
            body.push_str(&format!("{:016x}", self.random()));
        }
        body.truncate(length);
        body
    }

    /// Xorshift: enough for bodies that look unlike each other.
    fn random(&mut self) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        self.noise
    }
}

/// Decides what became of a request: an answer must be a success and pass `check`.
fn judge(
    method: &'static str,
    answer: Result<Response, Failure>,
    check: impl FnOnce(&Response) -> Result<(), Failure>,
) -> Outcome {
    let status = answer.as_ref().ok().map(|response| response.head.status);
    let result = answer.and_then(|response| {
        response.expect_success()?;
        check(&response)?;
        Ok(response.first_line())
    });
    Outcome { method, status, result }
}
