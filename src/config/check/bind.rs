//! `bind` of a listener: addresses of the network, and Unix sockets with what is said of their
//! files.
//!
//! A mode and an owner belong to a file: an address and an abstract name have none.

use super::{Check, address::listens, both};
use crate::base::endpoint::Endpoint;
use crate::config::{file, problem::Problem, written::Written};
use crate::plan::{Listener, SocketFile};

impl Check<'_> {
    pub(super) fn binds(&mut self, written: &file::Listener, listener: &mut Listener) {
        for item in &written.bind.0 {
            let Some(bind) = &item.value else { continue };
            let Some(key) = &bind.address else {
                if !item.holes {
                    self.note(
                        Problem::error("an address to listen on is missing")
                            .at(item.place, "has no `address`")
                            .help("add for example: address = \"unix:/run/x.sock\""),
                    );
                }
                continue;
            };
            let Some((place, text)) = both(Some(key)) else { continue };
            match listens(text) {
                Ok(address) => {
                    listener.bind.push(address);
                    self.socket_file(bind, address, listener);
                }
                Err(refusal) => self.refuse(place, refusal),
            }
        }
    }

    fn socket_file(&mut self, bind: &file::Bind, at: Endpoint, listener: &mut Listener) {
        let keys = [("mode", bind.mode.as_ref()), ("owner", bind.owner.as_ref())];
        let said = keys.into_iter().filter_map(|(name, key)| Some((name, key?)));
        let Some(path) = at.unix().filter(|path| path.file().is_some()) else {
            for (name, key) in said {
                let title = format!("`{name}` belongs to the file of a Unix socket");
                let label = format!("{at} has no file");
                self.note(Problem::error(title).at(key.place, label).help("leave it out"));
            }
            return;
        };
        if said.count() == 0 {
            return;
        }
        let mode = self.file_mode(bind.mode.as_ref());
        let owner = both(bind.owner.as_ref()).map(|(place, owner)| {
            if owner.is_empty() || owner == ":" || owner.matches(':').count() > 1 {
                self.note(
                    Problem::error(format!("`{owner}` is not the owner of a file"))
                        .at(place, "expected a user, a group, or both")
                        .help("write \"app\", \"app:www\" or \":www\""),
                );
            }
            owner.clone()
        });
        listener.socket_files.push(SocketFile { path, mode, owner });
    }

    /// A mode as chmod(1) takes it: three digits of eight, and perhaps a zero before them.
    fn file_mode(&mut self, written: Option<&Written<String>>) -> Option<u32> {
        let (place, text) = both(written)?;
        let digits = text.strip_prefix('0').filter(|rest| rest.len() == 3).unwrap_or(text);
        let mode = u32::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3);
        if mode.is_none() {
            self.note(
                Problem::error(format!("`{text}` is not the mode of a file"))
                    .at(place, "expected three digits from 0 to 7")
                    .help("write for example \"0660\": its owner and its group may connect"),
            );
        }
        mode
    }
}
