//! Makes text of BuildKit fit to be shown.
//!
//! Owns three rules: no address of a build context is shown (it may carry a
//! secret of the worker), no folder of the daemon, and no control character
//! reaches a terminal.

use crate::request::ContextSource;

/// Knows what must not be shown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Redactor {
    /// Longest first, so that no address hides inside a longer one.
    hidden: Vec<(String, String)>,
}

impl Redactor {
    /// Hides the addresses of `contexts`, each by its number.
    pub(crate) fn new(contexts: &[ContextSource]) -> Self {
        let mut hidden: Vec<(String, String)> = contexts
            .iter()
            .enumerate()
            .map(|(index, context)| (context.url.clone(), format!("build context {}", index + 1)))
            .collect();
        hidden.sort_by_key(|(url, _)| std::cmp::Reverse(url.len()));
        Self { hidden }
    }

    /// `text` fit to be shown, its line breaks kept.
    pub(crate) fn message(&self, text: &str) -> String {
        self.clean(text, |c| matches!(c, '\n' | '\t'))
    }

    /// `text` fit to be shown, on one line.
    pub(crate) fn line(&self, text: &str) -> String {
        self.clean(text, |c| c == '\t')
    }

    fn clean(&self, text: &str, keep: impl Fn(char) -> bool) -> String {
        let mut shown = without_mounts(text);
        for (url, name) in &self.hidden {
            if shown.contains(url.as_str()) {
                shown = shown.replace(url.as_str(), name);
            }
        }
        if shown.contains(|c: char| c.is_control() && !keep(c)) {
            let visible = |c: char| match c {
                '\n' | '\r' if !keep(c) => ' ',
                c if c.is_control() && !keep(c) => char::REPLACEMENT_CHARACTER,
                c => c,
            };
            shown = shown.chars().map(visible).collect();
        }
        shown
    }
}

/// `text` with the paths of BuildKit's temporary mounts cut down to what lies
/// inside of them.
fn without_mounts(text: &str) -> String {
    const MOUNT: &str = "/buildkit-mount";
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(MOUNT) {
        let (before, mount) = rest.split_at(at);
        let kept = before.rfind(|c: char| c.is_whitespace() || c == '"').map_or(0, |at| at + 1);
        shown.push_str(&before[..kept]);
        rest = mount[MOUNT.len()..].trim_start_matches(|c: char| c.is_ascii_digit());
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(url: &str) -> ContextSource {
        ContextSource {
            url: url.into(),
            digest: slipway_oci::Digest::sha256(url),
            excludes: vec![],
        }
    }

    #[test]
    fn addresses_of_contexts_are_hidden() {
        let redactor = Redactor::new(&[context("http://h/c"), context("http://h/c/secret")]);
        let shown = redactor.message("get \"http://h/c/secret\" after http://h/c: 404");
        assert_eq!(shown, "get \"build context 2\" after build context 1: 404");
    }

    #[test]
    fn folders_of_the_daemon_are_hidden() {
        let shown = Redactor::default()
            .message("lstat /var/lib/docker/tmp/buildkit-mount426/no file: \"/a/buildkit-mount1\"");
        assert_eq!(shown, "lstat /no file: \"\"");
    }

    #[test]
    fn control_characters_are_replaced() {
        let redactor = Redactor::default();
        assert_eq!(redactor.line("a\nb\u{1b}[31m\u{9b}\tc"), "a b\u{fffd}[31m\u{fffd}\tc");
        assert_eq!(redactor.message("a\nb\u{7}"), "a\nb\u{fffd}");
    }
}
