//! What a run shows while it goes on: one line on standard error, if that is a
//! terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// How often the line is drawn anew.
const TICK: Duration = Duration::from_millis(120);
const TEMPLATE: &str = "{spinner:.cyan} {bar:30.cyan/blue} {pos}/{len} {wide_msg} {elapsed}";

/// The line; it vanishes with this.
#[derive(Debug)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A line that counts to `goal`.
    pub fn new(goal: u64) -> Self {
        let style = ProgressStyle::with_template(TEMPLATE);
        let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(goal).with_style(style);
        bar.enable_steady_tick(TICK);
        Self(bar)
    }

    /// So far it came.
    pub fn at(&self, position: u64) {
        self.0.set_position(position);
    }

    /// What else there is to say.
    pub fn say(&self, message: impl Into<std::borrow::Cow<'static, str>>) {
        self.0.set_message(message);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    #[test]
    fn the_template_is_valid() {
        indicatif::ProgressStyle::with_template(super::TEMPLATE).unwrap();
    }
}
