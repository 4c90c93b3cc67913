//! `[[webhook]]`: where chosen events are sent.

use super::{Check, both};
use crate::config::{
    file, foreign,
    problem::Problem,
    written::{List, Written},
};
use crate::plan::{EVENT_WORDS, Webhook};

/// Each may have a thread.
const WEBHOOKS_MAX: usize = 16;

impl Check<'_> {
    pub(super) fn webhooks(&mut self, written: &List<file::Webhook>) -> Vec<Webhook> {
        let tables = written.0.iter();
        let read = tables.filter_map(|item| self.webhook(item, item.value.as_ref()?)).collect();
        if let Some(surplus) = written.0.get(WEBHOOKS_MAX) {
            let label = format!("more than {WEBHOOKS_MAX}");
            self.note(Problem::error("too many webhooks").at(surplus.place, label));
        }
        read
    }

    fn webhook(
        &mut self,
        item: &Written<file::Webhook>,
        written: &file::Webhook,
    ) -> Option<Webhook> {
        let Some((place, url)) = both(written.url.as_ref()) else {
            if written.url.is_none() && !item.holes {
                self.note(
                    Problem::error("webhook without a URL")
                        .at(item.place, "has no `url`")
                        .help("add for example: url = \"https://hooks.example/ringway\""),
                );
            }
            return None;
        };
        let rest = ["http://", "https://"].iter().find_map(|scheme| url.strip_prefix(scheme));
        let is_plain = url.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_plain || rest.is_none_or(|rest| rest.starts_with(['/', '?', '#']) || rest.is_empty())
        {
            self.note(
                Problem::error("`url` of a webhook that cannot be used")
                    .at(place, "expected http:// or https://, a host, and a path")
                    .help("for example: url = \"https://hooks.example/ringway\""),
            );
        }
        let mut webhook = Webhook::new(url.clone());
        for (place, word) in written.events.0.iter().filter_map(|item| both(Some(item))) {
            if EVENT_WORDS.contains(&word.as_str()) {
                webhook.events.push(word.clone());
                continue;
            }
            let help = foreign::nearest(word, EVENT_WORDS.iter().copied());
            let help = help.map(|near| format!("did you mean \"{near}\"?"));
            let problem = Problem::error(format!("unknown event \"{word}\""));
            self.note(problem.at(place, "no event has this word").help_if(help));
        }
        self.whole_number(written.retries.as_ref(), 0..=10, &mut webhook.retries);
        self.duration_above_zero(written.timeout.as_ref(), &mut webhook.timeout);
        Some(webhook)
    }
}

#[cfg(test)]
mod tests {
    use crate::config::parse;

    fn with(webhook: &str) -> Result<Vec<crate::plan::Webhook>, String> {
        let text = format!(
            "[listener.web]\nbind = \"127.0.0.1:80\"\npool = \"app\"\n\
             [pool.app]\nbackends = \"127.0.0.1:9\"\n[[webhook]]\n{webhook}\n"
        );
        match parse("webhook.toml", &text) {
            Ok(loaded) => Ok(loaded.plan.global.webhooks.clone()),
            Err(problems) => Err(problems.to_string()),
        }
    }

    #[test]
    fn each_key_is_read_and_a_mistake_is_named() {
        let read =
            with("url = \"https://a/b\"\nevents = [\"backend_down\", \"backend_up\"]").unwrap();
        assert_eq!((&*read[0].url, read[0].retries), ("https://a/b", 5));
        assert_eq!(read[0].events, ["backend_down", "backend_up"]);
        let read = with("url = \"http://a\"\nretries = 0\ntimeout = \"1s\"").unwrap();
        assert_eq!((read[0].retries, read[0].timeout.as_secs()), (0, 1));
        assert!(read[0].wants("reload"), "without a list it wants all");
        for (text, problem) in [
            ("retries = 1", "has no `url`"),
            ("url = \"ftp://a/b\"", "expected http:// or https://"),
            ("url = \"http:///b\"", "expected http:// or https://"),
            ("url = \"http://a/b c\"", "expected http:// or https://"),
            ("url = \"http://a/\"\nevents = \"backend_dwn\"", "did you mean \"backend_down\"?"),
            ("url = \"http://a/\"\nretries = 11", "expected 0 to 10"),
            ("url = \"http://a/\"\ntimeout = \"0s\"", "expected more than 0"),
            ("url = \"http://a/\"\nurls = 1", "unknown key `urls`"),
        ] {
            let found = with(text).unwrap_err();
            assert!(found.contains(problem), "{text}: {found}");
        }
    }
}
