//! The CPU limit of this process from its control groups.
//!
//! A group and each group above it may have a limit, so the smallest counts, from the process's own
//! group up to the root (cgroups(7)). Both versions: `cpu.max` of the unified hierarchy (systemd's
//! `CPUQuota=`, containers), `cpu.cfs_quota_us` of the old one. Pure functions of file contents.

/// The contents of a file; none if it cannot be read.
type Read<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The limit of this process, rounded up to whole cores; none if there is none.
pub(super) fn cpu_limit() -> Option<usize> {
    least(&|path| std::fs::read_to_string(path).ok())
}

fn least(read: Read<'_>) -> Option<usize> {
    let groups = read("/proc/self/cgroup")?;
    let mounts = read("/proc/self/mountinfo").unwrap_or_default();
    let mut limits = Vec::new();
    for line in groups.lines() {
        // `4:cpu,cpuacct:/path`, or `0::/path` of the unified hierarchy.
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let is_unified = controllers.is_empty();
        if !is_unified && !controllers.split(',').any(|controller| controller == "cpu") {
            continue;
        }
        let limit = if is_unified { unified } else { old };
        for (root, point) in mounts.lines().filter_map(|line| mount(line, is_unified)) {
            limits.extend(upward(below(path, root)).filter_map(|dir| limit(point, dir, read)));
        }
    }
    limits.into_iter().min()
}

/// The group and the mount point in a line of mountinfo (proc(5)): none if it is another mount.
fn mount(line: &str, is_unified: bool) -> Option<(&str, &str)> {
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(3);
    let (root, point) = (front.next()?, front.next()?);
    let mut back = back.split(' ');
    let (kind, options) = (back.next()?, back.nth(1)?);
    let is_meant = match kind {
        "cgroup2" => is_unified,
        "cgroup" => !is_unified && options.split(',').any(|option| option == "cpu"),
        _ => false,
    };
    is_meant.then_some((root, point))
}

/// A group's path below the mounted group; the latter if it is not below it, as seen from within a
/// container.
fn below<'a>(path: &'a str, root: &str) -> &'a str {
    let rest = if root == "/" { Some(path) } else { path.strip_prefix(root) };
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
    rest.filter(|rest| !rest.contains("/..")).unwrap_or("").trim_end_matches('/')
}

/// A group, the group above it, and so on up to the root, which is empty.
fn upward(group: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(group), |group| group.rfind('/').map(|at| &group[..at]))
}

fn unified(point: &str, group: &str, read: Read<'_>) -> Option<usize> {
    let text = read(&format!("{point}{group}/cpu.max"))?;
    let (quota, period) = text.trim().split_once(' ')?;
    whole(quota, period)
}

fn old(point: &str, group: &str, read: Read<'_>) -> Option<usize> {
    let quota = read(&format!("{point}{group}/cpu.cfs_quota_us"))?;
    let period = read(&format!("{point}{group}/cpu.cfs_period_us"))?;
    whole(quota.trim(), period.trim())
}

/// Whole cores; none if there is no limit (`max`, `-1`).
fn whole(quota: &str, period: &str) -> Option<usize> {
    let (quota, period) = (quota.parse::<usize>().ok()?, period.parse::<usize>().ok()?);
    (period > 0).then(|| quota.div_ceil(period).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate";
    const V1: &str = "33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct";
    const V1_OTHER: &str = "34 30 0:30 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory";

    #[track_caller]
    fn check(groups: &str, mounts: &[&str], files: &[(&str, &str)], expected: Option<usize>) {
        let read = |path: &str| match path {
            "/proc/self/cgroup" => Some(groups.to_owned()),
            "/proc/self/mountinfo" => Some(mounts.join("\n")),
            path => files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).into()),
        };
        assert_eq!(least(&read), expected, "{groups:?} {files:?}");
    }

    #[test]
    #[rustfmt::skip]
    fn the_smallest_limit_from_the_own_group_to_the_root_counts() {
        let max = "/sys/fs/cgroup/cpu.max";
        // A container: its own group is the root that it sees.
        check("0::/\n", &[V2], &[(max, "150000 100000\n")], Some(2));
        check("0::/\n", &[V2], &[(max, "max 100000\n")], None);
        check("0::/\n", &[V2], &[(max, "5000 100000\n")], Some(1));
        check("0::/\n", &[V2], &[(max, "garbage")], None);
        check("0::/\n", &[V2], &[(max, "1 0")], None);
        check("0::/\n", &[V2], &[], None);
        // systemd's CPUQuota= is on the service, or on a slice above it.
        let service = "/sys/fs/cgroup/system.slice/ringway.service/cpu.max";
        let slice = "/sys/fs/cgroup/system.slice/cpu.max";
        let own = "0::/system.slice/ringway.service\n";
        check(own, &[V2], &[(service, "200000 100000\n")], Some(2));
        check(own, &[V2], &[(service, "max 100000\n"), (slice, "300000 100000\n")], Some(3));
        check(own, &[V2], &[(service, "400000 100000\n"), (slice, "300000 100000\n")], Some(3));
        check(own, &[V2], &[(service, "200000 100000\n"), (slice, "300000 100000\n")], Some(2));
        check(own, &[V2], &[("/sys/fs/cgroup/other.slice/cpu.max", "100000 100000\n")], None);
    }

    #[test]
    #[rustfmt::skip]
    fn the_old_hierarchy_counts_as_well() {
        let quota = "/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_quota_us";
        let period = "/sys/fs/cgroup/cpu,cpuacct/docker/a/cpu.cfs_period_us";
        let above = "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_quota_us";
        let above_period = "/sys/fs/cgroup/cpu,cpuacct/docker/cpu.cfs_period_us";
        let groups = "5:memory:/docker/a\n4:cpu,cpuacct:/docker/a\n0::/docker/a\n";
        let hundred = (period, "100000\n");
        check(groups, &[V1_OTHER, V1], &[(quota, "150000\n"), hundred], Some(2));
        check(groups, &[V1_OTHER, V1], &[(quota, "-1\n"), hundred], None);
        check(groups, &[V1_OTHER, V1], &[(quota, "150000\n")], None);
        let slice = [(quota, "-1\n"), hundred, (above, "300000\n"), (above_period, "100000\n")];
        check(groups, &[V1], &slice, Some(3));
        // Mixed: limits in the unified hierarchy beside the old one count too.
        let both = [(quota, "400000\n"), hundred, ("/sys/fs/cgroup/unified/docker/a/cpu.max", "200000 100000\n")];
        let unified = "31 23 0:27 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw";
        check(groups, &[V1, unified], &both, Some(2));
    }

    #[test]
    #[rustfmt::skip]
    fn a_group_that_is_mounted_itself_is_the_root() {
        // Without a namespace of its own a container sees its group's whole name, mounted as root.
        let mounted = "30 23 0:26 /docker/a /sys/fs/cgroup ro - cgroup2 cgroup rw";
        let max = ("/sys/fs/cgroup/cpu.max", "100000 100000\n");
        check("0::/docker/a\n", &[mounted], &[max], Some(1));
        let inner = ("/sys/fs/cgroup/inner/cpu.max", "100000 100000\n");
        check("0::/docker/a/inner\n", &[mounted], &[inner], Some(1));
        check("0::/docker/ab\n", &[mounted], &[max], Some(1));
        check("0::/../../other\n", &[V2], &[max], Some(1));
    }
}
