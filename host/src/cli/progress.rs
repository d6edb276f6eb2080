//! How far a command is: a line on the terminal that changes; elsewhere a line now and then, if that is wanted.

use super::{Context, Output};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two changes of the line on a terminal.
const AGAIN: Duration = Duration::from_millis(200);
/// Between two lines elsewhere.
const ELSEWHERE: Duration = Duration::from_secs(5);

pub struct Line {
    bar: Option<indicatif::ProgressBar>,
    elsewhere: bool,
    shown: Instant,
}

impl Line {
    /// On a terminal alone.
    pub fn new(context: &Context) -> Self {
        let wanted = context.global.output == Output::Text && std::io::stderr().is_terminal();
        let bar = wanted.then(|| {
            let bar = indicatif::ProgressBar::new_spinner();
            bar.set_style(
                indicatif::ProgressStyle::with_template("{spinner} {msg}").unwrap_or_else(|_| indicatif::ProgressStyle::default_spinner()),
            );
            bar
        });
        Self { bar, elsewhere: false, shown: Instant::now() }
    }

    /// Also where standard error is no terminal.
    pub fn anywhere(context: &Context) -> Self {
        let line = Self::new(context);
        Self { elsewhere: line.bar.is_none(), ..line }
    }

    /// Shows how far it is, if that is due.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let due = |every: Duration| self.shown.elapsed() >= every;
        match &self.bar {
            Some(bar) if due(AGAIN) => {
                bar.set_message(text());
                bar.tick();
            }
            None if self.elsewhere && due(ELSEWHERE) => anstream::eprintln!("{}", text()),
            _ => return,
        }
        self.shown = Instant::now();
    }

    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
