//! Warnings about keys of a pool that have no effect beside the others.

use super::{Check, both};
use crate::config::{file, problem::Problem, source::Position, written::Written};
use crate::plan::{Algorithm, Pool, Protocol};

impl Check<'_> {
    /// Warns about each key of a pool that has no effect.
    pub(super) fn useless(&mut self, written: &file::Pool, pool: &Pool) {
        let hashes = match &pool.algorithm {
            Algorithm::IpHash | Algorithm::Hash { .. } => true,
            Algorithm::RoundRobin
            | Algorithm::Random
            | Algorithm::LeastConnections
            | Algorithm::LeastResponseTime => false,
        };
        let of = &pool.name;
        if let Some(place) = place(written.hash_seed.as_ref())
            && !hashes
            && pool.hash_seed != Pool::default().hash_seed
        {
            let title = format!("`hash-seed` of pool \"{of}\" has no effect");
            let help = "it is for balance = \"ip-hash\" and balance = { hash = … }";
            self.note(Problem::warning(title).at(place, "nothing is hashed").help(help));
        }
        if let Some(place) = place(written.slow_start.as_ref())
            && hashes
            && !pool.slow_start.is_zero()
        {
            let title = format!("`slow-start` of pool \"{of}\" has no effect");
            let label = "a hash gives a backend all of its keys at once";
            self.note(Problem::warning(title).at(place, label));
        }
        let queue = written.queue.as_ref().and_then(|queue| queue.value.as_ref());
        let size = queue.and_then(|queue| place(queue.size.as_ref()));
        if let Some(place) = size.filter(|_| pool.queue.size > 0)
            && pool.backends.values().all(|backend| backend.in_flight_max == 0)
        {
            let title = format!("`queue` of pool \"{of}\" has no effect");
            let label = "no backend has a `max-in-flight`, so none is ever full";
            let help = "add for example: backends = [{ address = …, max-in-flight = 100 }]";
            self.note(Problem::warning(title).at(place, label).help(help));
        }
        let retry = written.retry.as_ref().and_then(|retry| retry.value.as_ref());
        let per_try = retry.and_then(|retry| place(retry.per_try.as_ref()));
        let response = pool.timeouts.response;
        if let Some(place) = per_try
            && !response.is_zero()
            && pool.retry.per_try >= response
        {
            let title = format!("`per-try` of pool \"{of}\" has no effect");
            let label = "`response` of its timeouts ends each try sooner";
            self.note(Problem::warning(title).at(place, label));
        }
        let on = retry.and_then(|retry| retry.on.as_ref());
        let of_grpc = |(_, word): &(Position, &String)| word.starts_with("grpc:");
        if let Some((place, word)) =
            on.and_then(|on| on.0.iter().filter_map(|item| both(Some(item))).find(of_grpc))
            && pool.protocol == Protocol::H1
        {
            let title = format!("\"{word}\" in `on` of pool \"{of}\" has no effect");
            let help = "write for the pool: protocol = \"h2c\", or \"h2\" with `tls`";
            self.note(Problem::warning(title).at(place, "gRPC needs HTTP/2").help(help));
        }
    }
}

/// The place of a key that was not refused.
fn place<T>(key: Option<&Written<T>>) -> Option<Position> {
    both(key).map(|(place, _)| place)
}
