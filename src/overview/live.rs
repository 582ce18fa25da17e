//! What `status --watch` shows: everything at one glance, drawn again as it changes, with how it was over the last minute.

mod bars;
mod course;
mod draw;
mod layout;

use std::io::{self, PipeWriter, Read, Write};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::app::App;
use crate::terminal::{self, Event, Screen};
use crate::threads;

use bars::Glyphs;
use course::{Counted, Course, Sample};

/// How often everything is looked at.
const INTERVAL: Duration = Duration::from_secs(1);

/// Shows everything on the terminal that standard output is, until somebody wants it to end.
///
/// A look can take as long as a hung instance's patience, so another thread takes it: a key or a new size is answered at
/// once.
pub fn watch(app: &App) -> Result<()> {
    let glyphs = if terminal::shows_unicode() { Glyphs::UNICODE } else { Glyphs::ASCII };
    let mut screen = Screen::open()?;
    let (mut news, bell) = io::pipe().context("cannot make a pipe")?;
    let (sender, samples) = mpsc::channel();
    let looked_at = app.clone();
    let looks = threads::builder().and_then(|builder| builder.spawn(move || look(&looked_at, &sender, bell)));
    looks.context("cannot begin to look")?;
    let mut course = Course::new(app.name(), !app.config.nginx.own);
    loop {
        screen.draw(&draw::lines(&course, screen.size(), glyphs))?;
        match screen.wait(&news)? {
            Event::End => return Ok(()),
            Event::Stale => {}
            Event::News => {
                news.read_exact(&mut [0]).context("cannot hear of a look")?;
                course.add(samples.recv().context("cannot look any more")??);
            }
        }
    }
}

/// Looks at everything again and again, and rings each time.
fn look(app: &App, sender: &Sender<Result<Sample>>, mut bell: PipeWriter) {
    let mut counted = Counted::default();
    loop {
        let began = Instant::now();
        if sender.send(Sample::take(app, &mut counted)).is_err() || bell.write_all(&[0]).is_err() {
            // Nobody is interested any more.
            return;
        }
        thread::sleep(INTERVAL.saturating_sub(began.elapsed()));
    }
}
