//! Ctrl-C: the first ends the command in order, the second at once.

use slipway_runtime::Tasks;
use tokio_util::sync::CancellationToken;

use super::error::Exit;

/// Knows whether Ctrl-C was pressed.
#[derive(Debug, Clone)]
pub struct Interrupt(CancellationToken);

impl Interrupt {
    /// Takes Ctrl-C over from the system for the rest of the process.
    pub fn install() -> Self {
        let pressed = CancellationToken::new();
        let own = Self(pressed.clone());
        // Lives as long as the process: it has to hear the second Ctrl-C while
        // everything else is busy or stuck.
        Tasks::new().spawn("interrupt", async move {
            if tokio::signal::ctrl_c().await.is_ok() {
                pressed.cancel();
            }
            if tokio::signal::ctrl_c().await.is_ok() {
                leave();
            }
        });
        own
    }

    /// Resolves as soon as Ctrl-C has been pressed. Cancel-safe.
    pub async fn pressed(&self) {
        self.0.cancelled().await;
    }
}

#[expect(clippy::disallowed_methods, reason = "the user asked twice; nothing here needs its drop")]
fn leave() {
    std::process::exit(Exit::Interrupted as i32);
}
