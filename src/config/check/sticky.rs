//! `sticky` of a pool: the cookie, and the file with the key.

use std::path::PathBuf;

use super::{Check, both, route_text};
use crate::config::{file, problem::Problem, written::Written};
use crate::plan::{SameSite, Sticky};

pub(crate) const SAME_SITE: &[(&str, SameSite)] =
    &[("lax", SameSite::Lax), ("strict", SameSite::Strict), ("none", SameSite::None)];

impl Check<'_> {
    /// How requests stay with one backend, if the key is present.
    pub(super) fn sticky(&mut self, key: Option<&Written<file::Sticky>>) -> Option<Sticky> {
        let written = key?.value.as_ref()?;
        let mut sticky = Sticky::default();
        if let Some((place, name)) = both(written.cookie.as_ref()) {
            match route_text::cookie_name(name) {
                Ok(()) => sticky.cookie.clone_from(name),
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        if let Some((place, path)) = both(written.secret_file.as_ref()) {
            // Never the name: by mistake it may be the secret itself.
            if let Err(why) = self.lookup.readable(path) {
                self.note(
                    Problem::error(format!("`secret-file` cannot be read: {why}"))
                        .at(place, "must exist before the start")
                        .help(
                            "make one: (umask 077; openssl rand -base64 32 > sticky.key); or leave \
                             it out: a key is then generated and kept",
                        ),
                );
            }
            sticky.secret_file = Some(PathBuf::from(path));
        }
        self.duration(written.max_idle.as_ref(), &mut sticky.idle_max);
        self.duration(written.max_life.as_ref(), &mut sticky.life_max);
        self.word("same-site", written.same_site.as_ref(), SAME_SITE, &mut sticky.same_site);
        Some(sticky)
    }
}
