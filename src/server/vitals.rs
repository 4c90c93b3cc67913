//! Vital signs of the process as the kernel counts them: processor time, memory, descriptors.
//!
//! Read from `/proc` by whoever asks for statistics, never by a core. What cannot be read is left
//! out.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use rustix::param::{clock_ticks_per_second, page_size};

use crate::observe::statistics::Process;

/// Those of this process.
pub(super) fn of_process() -> Process {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let resident = || -> Option<u64> {
        let pages = fs::read_to_string("/proc/self/statm").ok()?;
        Some(pages.split(' ').nth(1)?.parse::<u64>().ok()? * page_size() as u64)
    };
    Process {
        cpu: cpu_of(&stat),
        resident_bytes: resident(),
        open_descriptors: open_descriptors(),
        started: started(&stat),
    }
}

/// How long a thread of this process has been running on a processor so far.
pub(super) fn of_thread(thread: u32) -> Option<Duration> {
    let of = |file: &str| fs::read_to_string(format!("/proc/self/task/{thread}/{file}")).ok();
    // Nanoseconds, where the kernel counts them.
    if let Some(scheduled) = of("schedstat") {
        let nanos = scheduled.split(' ').next()?.parse().ok()?;
        return Some(Duration::from_nanos(nanos));
    }
    cpu_of(&of("stat")?)
}

/// The fields of `stat` from the third on: the second, a name in brackets, may hold anything.
fn fields(stat: &str) -> Option<Vec<&str>> {
    Some(stat.rsplit_once(") ")?.1.split(' ').collect())
}

fn ticks(fields: &[&str], number: usize) -> Option<Duration> {
    let ticks: u64 = fields.get(number - 3)?.parse().ok()?;
    Some(Duration::from_millis(ticks * 1_000 / clock_ticks_per_second().max(1)))
}

/// Fields 14 and 15 of proc_pid_stat(5).
fn cpu_of(stat: &str) -> Option<Duration> {
    let fields = fields(stat)?;
    Some(ticks(&fields, 14)? + ticks(&fields, 15)?)
}

/// Field 22, which counts from the boot.
fn started(stat: &str) -> Option<SystemTime> {
    let boot = fs::read_to_string("/proc/stat").ok()?;
    let boot: u64 = boot.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    let after = ticks(&fields(stat)?, 22)?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(boot) + after)
}

fn open_descriptors() -> Option<u64> {
    // From Linux 6.2 on their number is the size of the folder; listing 100,000 takes long.
    let count = fs::metadata("/proc/self/fd").ok()?.len();
    if count > 0 {
        return Some(count);
    }
    Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_vital_signs() {
        let worked = (0..20_000_000_u64).fold(0, |sum, n| std::hint::black_box(sum ^ n));
        std::hint::black_box(worked);
        let own = of_process();
        assert!(own.cpu.unwrap() > Duration::ZERO);
        assert!((1 << 20..1 << 40).contains(&own.resident_bytes.unwrap()), "{own:?}");
        let listed = fs::read_dir("/proc/self/fd").unwrap().count() as u64;
        let open = own.open_descriptors.unwrap();
        assert!(open.abs_diff(listed) < 200, "{open} and {listed}");
        let age = SystemTime::now().duration_since(own.started.unwrap()).unwrap();
        assert!(age < Duration::from_secs(86_400), "{age:?}");
        let thread = rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned();
        let busy = of_thread(thread).unwrap();
        assert!(busy > Duration::ZERO && busy <= own.cpu.unwrap() + Duration::from_secs(1));
        assert_eq!(of_thread(0), None);
    }

    #[test]
    fn a_name_with_brackets_and_blanks_hides_no_field() {
        let times = "7 8 9 10 11 12 13 250 150 16 17 18 19 20 21 22";
        let stat = format!("42 (a) b (c) R 4 5 6 {times}");
        assert_eq!(fields(&stat).unwrap()[0], "R");
        let per_second = clock_ticks_per_second();
        assert_eq!(cpu_of(&stat), Some(Duration::from_millis(400 * 1_000 / per_second)));
        assert_eq!(cpu_of("42 (a"), None);
    }
}
