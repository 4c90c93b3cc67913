//! Preflight checks for `ringway check`: what `run` would refuse on this machine.
//!
//! The configuration is valid by then; this checks what it refers to outside itself: cores,
//! descriptors, addresses, files. Nothing is created, changed or listened on. An address in use is
//! not an error: the process that will be replaced may have it.

use std::{io::ErrorKind, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use super::{
    access_logs, cores, descriptors,
    refusal::cannot_listen,
    secrets::{self, state_directories},
    state_file::{self, Kept, StateFile},
    user,
};
use crate::base::endpoint::Endpoint;
use crate::net::listener;
use crate::observe::event::Event;
use crate::plan::{Checked, Overlay, Plan};

/// The findings.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Reasons why the process would not start, in one sentence each.
    pub(crate) refusals: Vec<String>,
    /// The same for what another machine may have: cores, descriptors, addresses, folders.
    pub(crate) missing_here: Vec<String>,
    /// Warnings for the operator.
    pub(crate) warnings: Vec<String>,
}

/// The run-time changes that a process with these files would begin with, and what of those that
/// were kept is dropped.
pub(crate) fn run_time_changes(plan: &Checked, files: &[PathBuf]) -> (Overlay, Vec<String>) {
    let directories = state_file::directories(&plan.global, &state_directories());
    let base = Arc::new(plan.clone().into_plan());
    let Kept { overlay, dropped } = StateFile::new(&directories, files).read(&base);
    let line = |event: &Event| {
        let fields = event.fields();
        let (at, why) = (fields.file.unwrap_or_default(), fields.cause.unwrap_or_default());
        format!("{at}: {why}; this run-time change is not used")
    };
    (overlay, dropped.iter().map(line).collect())
}

/// Runs all checks.
pub(crate) fn check(plan: &Plan) -> Findings {
    let mut found = Findings::default();
    let count = match cores::choose(&plan.global.cores) {
        Ok(chosen) => chosen.cores.len(),
        Err(why) => {
            found.missing_here.push(why);
            1
        }
    };
    found.missing_here.extend(descriptors::check(&plan.limits, count).err());
    let user = user::check(plan.global.user.as_deref());
    found.missing_here.extend(user.err().map(|why| why.to_string()));
    found.missing_here.extend(foreign_addresses(plan));
    found.missing_here.extend(access_logs::check(plan));
    match secrets::check(plan) {
        Ok(warnings) => found.warnings.extend(warnings),
        Err(why) => found.refusals.push(why.to_string()),
    }
    found
}

/// Addresses that this machine does not have, and folders of socket files.
fn foreign_addresses(plan: &Plan) -> Vec<String> {
    let all = plan.listeners.values().flat_map(|listener| listener.bind.iter());
    let refusal = |endpoint: &Endpoint| {
        let refused = match endpoint {
            // Any port will do: a bind changes nothing before a listen.
            Endpoint::Tcp(address) => {
                listener::bind(SocketAddr::new(address.ip(), 0), true, Duration::ZERO).err()?
            }
            Endpoint::Unix(path) => {
                let folder = path.file()?.parent()?;
                (!folder.is_dir()).then(|| ErrorKind::NotFound.into())?
            }
        };
        Some(cannot_listen(*endpoint, &refused, None))
    };
    all.filter_map(refusal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    #[test]
    fn all_that_is_wrong_outside_is_found_at_once() {
        let folder = std::env::temp_dir();
        let text = format!(
            r#"
            [global]
            cores = "8000-8000"
            user = "no-such-user"
            [global.limits]
            connections = 9000000
            [listener.a]
            bind = ["192.0.2.1:80", "127.0.0.1:80", "[2001:db8::1]:80", "0.0.0.0:81"]
            pool = "app"
            access-log = {{ path = "{}/ringway-no-such-folder/access.log" }}
            [listener.b]
            bind = "127.0.0.1:82"
            pool = "app"
            access-log = {{ path = "{}" }}
            [pool.app]
            backends = ["127.0.0.1:9"]
            "#,
            folder.display(),
            folder.display()
        );
        let plan =
            config::parse("check.toml", &text).unwrap_or_else(|wrong| panic!("{wrong}")).plan;
        let Findings { refusals, missing_here, warnings } = check(&plan);
        let parts = [
            "this process may not use core 8000",
            "9000000 connections do not fit",
            "`user` in [global], \"no-such-user\": this machine has no such user",
            "cannot listen on 192.0.2.1:80: this machine does not have",
            "cannot listen on [2001:db8::1]:80: ",
            "Is a directory",
            "ringway-no-such-folder/access.log: No such file or directory",
        ];
        assert_eq!(missing_here.len(), parts.len(), "{missing_here:#?}");
        for (refusal, part) in missing_here.iter().zip(parts) {
            assert!(refusal.contains(part), "{part}: {refusal}");
        }
        assert!(refusals.is_empty() && warnings.is_empty(), "{refusals:?} {warnings:?}");
    }

    #[test]
    fn nothing_is_found_where_nothing_is_wrong_and_nothing_is_made() {
        let log = std::env::temp_dir().join(format!("ringway-check-{}.log", std::process::id()));
        let text = format!(
            "[listener.a]\nbind = [\"127.0.0.1:80\", \"[::]:80\"]\npool = \"app\"\n\
             access-log = {{ path = \"{}\" }}\n[pool.app]\nbackends = [\"127.0.0.1:9\"]\n",
            log.display()
        );
        let plan =
            config::parse("check.toml", &text).unwrap_or_else(|wrong| panic!("{wrong}")).plan;
        let found = check(&plan);
        let all = [found.refusals, found.missing_here, found.warnings].concat();
        assert!(all.is_empty(), "{all:?}");
        assert!(!log.exists());
    }
}
