//! `[global]` and `[global.limits]`.

use std::path::PathBuf;

use super::{Check, address::bind as bind_address, both, section, spelled};
use crate::config::{
    file, load,
    problem::Problem,
    source::Position,
    units::BadValue,
    written::{Scalar, WordOr, Written},
};
use crate::plan::{Admin, Cores, Driver, Global, Limits, LogFormat, LogLevel};

pub(crate) const DRIVERS: &[(&str, Driver)] =
    &[("auto", Driver::Auto), ("io_uring", Driver::IoUring), ("epoll", Driver::Epoll)];

pub(crate) const LOG_LEVELS: &[(&str, LogLevel)] = &[
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];

pub(crate) const LOG_FORMATS: &[(&str, LogFormat)] =
    &[("text", LogFormat::Text), ("json", LogFormat::Json)];

/// The highest number of a core: what Linux supports on one machine, rounded up.
const CORES_MAX: u16 = 8192;

/// A head is read into one buffer of 64 KiB, together with its metadata.
const HEAD_BYTES_MAX: u64 = 60 << 10;

impl Check<'_> {
    pub(super) fn global(&mut self, written: Option<&Written<file::Global>>) -> (Global, Limits) {
        let mut global = Global { instance: load::machine_name(), ..Global::default() };
        let Some(written) = section(written) else {
            return (global, Limits::default());
        };
        if let Some((place, file::CoresText(text))) = both(written.cores.as_ref()) {
            match cores(text) {
                Ok(cores) => global.cores = cores,
                Err(refusal) => self.refuse(place, refusal),
            }
        }
        if let Some((_, pin)) = both(written.pin.as_ref()) {
            global.pin = *pin;
        }
        self.word("driver", written.driver.as_ref(), DRIVERS, &mut global.driver);
        self.admin(written.admin.as_ref(), &mut global.admin);
        if let Some((_, instance)) = both(written.instance.as_ref()) {
            global.instance.clone_from(instance);
        }
        global.state_dir = both(written.state_dir.as_ref()).map(|(place, path)| {
            self.state_dir(place, path);
            PathBuf::from(path)
        });
        global.user = both(written.user.as_ref()).map(|(_, user)| user.clone());
        if let Some(shutdown) = section(written.shutdown.as_ref()) {
            self.duration(shutdown.lameduck.as_ref(), &mut global.shutdown.lameduck);
            self.duration(shutdown.drain.as_ref(), &mut global.shutdown.drain);
        }
        if let Some(log) = section(written.log.as_ref()) {
            self.word("log level", log.level.as_ref(), LOG_LEVELS, &mut global.log_level);
            self.word("log format", log.format.as_ref(), LOG_FORMATS, &mut global.log_format);
        }
        (global, self.limits(section(written.limits.as_ref())))
    }

    fn state_dir(&mut self, place: Position, path: &str) {
        if !path.starts_with('/') {
            let problem = Problem::error("`state-dir` is no absolute path")
                .at(place, "would depend on where the process is started")
                .help("write for example state-dir = \"/var/lib/ringway\"");
            self.note(problem);
        }
    }

    fn admin(&mut self, key: Option<&Written<WordOr<file::Admin>>>, into: &mut Admin) {
        let Some((place, written)) = both(key) else { return };
        match written {
            WordOr::Word(word) if word == "off" => into.bind = None,
            WordOr::Word(address) => self.admin_bind(place, address, into),
            WordOr::Table(table) => {
                if let Some((place, address)) = both(table.bind.as_ref()) {
                    self.admin_bind(place, address, into);
                }
                if let Some((place, path)) = both(table.token_file.as_ref()) {
                    if let Err(why) = self.lookup.readable(path) {
                        self.note(
                            Problem::error(format!("`token-file` cannot be read: {why}"))
                                .at(place, "must exist before the start")
                                .help("make one: (umask 077; openssl rand -hex 32 > admin.token)"),
                        );
                    }
                    into.token_file = Some(PathBuf::from(path));
                }
            }
        }
    }

    fn admin_bind(&mut self, place: Position, text: &str, into: &mut Admin) {
        match bind_address(text) {
            Ok(address) => (into.bind, into.is_written) = (Some(address), true),
            Err(refusal) => self.refuse(place, refusal),
        }
    }

    fn limits(&mut self, written: Option<&file::Limits>) -> Limits {
        let mut limits = Limits::default();
        let Some(written) = written else {
            return limits;
        };
        let connections = written.connections.as_ref();
        self.whole_number(connections, 1..=10_000_000, &mut limits.connections);
        limits.connections_written = connections.is_some();
        if let Some(bytes) = self.size(written.header_size.as_ref(), 1 << 10..=HEAD_BYTES_MAX) {
            limits.head_bytes_max = u32::try_from(bytes).unwrap_or(limits.head_bytes_max);
        }
        self.whole_number(written.headers.as_ref(), 1..=256, &mut limits.fields_max);
        if let Some(rate) = self.size(written.body_rate.as_ref(), 0..=1 << 40) {
            limits.body_rate_min = rate;
        }
        if let Some(bytes) = self.size(written.body_size.as_ref(), 0..=1 << 50) {
            limits.body_bytes_max = bytes;
        }
        limits
    }
}

/// `4`, `"4"`, `"0-3,8"`, `"auto"`.
fn cores(written: &Scalar) -> Result<Cores, BadValue> {
    let text = spelled(written);
    if text.eq_ignore_ascii_case("auto") {
        return Ok(Cores::Auto);
    }
    let expected = "expected a number of cores, a list such as \"0-3,8\", or \"auto\"";
    let refuse = || BadValue::new(format!("`{text}` is not a list of cores"), expected);
    if let Ok(count) = text.parse::<u16>() {
        return match count {
            0 => Err(BadValue::new(
                "no cores at all",
                "at least one must serve; core 0 alone is \"0-0\"",
            )),
            1..=CORES_MAX => Ok(Cores::Count(count)),
            _ => Err(BadValue::new("too many cores", format!("at most {CORES_MAX}"))),
        };
    }
    let mut list = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let bounds = first.trim().parse::<u16>().ok().zip(last.trim().parse::<u16>().ok());
        let (first, last) = bounds.ok_or_else(refuse)?;
        if first > last || last >= CORES_MAX {
            return Err(refuse());
        }
        for core in first..=last {
            if list.contains(&core) {
                let title = format!("core {core} is named twice");
                return Err(BadValue::new(title, "name each core once"));
            }
            list.push(core);
        }
    }
    Ok(Cores::List(list))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(written: &str, expected: Result<Cores, &str>) {
        let read = cores(&Scalar::Text(written.to_owned()));
        assert_eq!(read.map_err(|refusal| refusal.title), expected.map_err(ToOwned::to_owned));
    }

    #[test]
    fn reads_counts_lists_and_auto() {
        check("auto", Ok(Cores::Auto));
        check("AUTO", Ok(Cores::Auto));
        check("4", Ok(Cores::Count(4)));
        check("0-3,8", Ok(Cores::List(vec![0, 1, 2, 3, 8])));
        check("2-2", Ok(Cores::List(vec![2])));
        assert_eq!(cores(&Scalar::Whole(4)), Ok(Cores::Count(4)));
    }

    #[test]
    fn refuses_what_names_no_cores() {
        check("0", Err("no cores at all"));
        check("all", Err("`all` is not a list of cores"));
        check("3-1", Err("`3-1` is not a list of cores"));
        check("0-1,1", Err("core 1 is named twice"));
        check("9000", Err("too many cores"));
        check("", Err("`` is not a list of cores"));
        check("-1", Err("`-1` is not a list of cores"));
    }
}
