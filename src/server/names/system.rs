//! How the system resolves names: `/etc/hosts`, then the name servers, search domains and options
//! of `/etc/resolv.conf`, both read again when they have changed.
//!
//! hickory-resolver speaks to the servers, on a thread of its own. It caches nothing here: when a
//! name is looked up again is decided by the times to live of its answers (`policy/lookups`).

use std::{
    collections::BTreeSet,
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::unix::fs::MetadataExt as _,
    sync::Arc,
    time::{Duration, Instant},
};

use hickory_resolver::{
    Hosts, TokioResolver,
    config::{
        ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig,
        ResolverOpts, ServerOrderingStrategy,
    },
    lookup::Lookup as Records,
    net::{NetError, runtime::TokioRuntimeProvider},
    proto::{
        op::Query,
        rr::{Name, RData, RecordType, rdata::SRV},
    },
    system_conf::read_system_conf,
};
use tokio::{
    runtime::{Builder, Runtime},
    task::JoinSet,
};

use super::{Answered, Ask, Lookup};
use crate::base::backend_set::BACKENDS_MAX;
use crate::plan::Address;
use crate::policy::resolve::{self, Answer, Found, Service};

/// Hosts of SRV records that are looked up beside each other.
const HOSTS_AT_ONCE: usize = 16;

/// What the system reads.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];

/// Asks these servers, or, if there are none, those that the system says.
pub(in super::super) fn by_the_system(servers: Vec<SocketAddr>) -> Lookup {
    Arc::new(move || {
        let mut system = System { servers: servers.clone(), runtime: None, asker: None };
        let ask: Ask = Box::new(move |address, answered| system.ask(address, answered));
        ask
    })
}

/// The state of the files: when each was written, its number and its size.
type Stamp = [Option<(i64, i64, u64, u64)>; 2];

struct System {
    servers: Vec<SocketAddr>,
    runtime: Option<Runtime>,
    /// As the files say; and their state.
    asker: Option<(Stamp, Arc<Asker>)>,
}

impl System {
    fn ask(&mut self, address: Address, answered: Answered) {
        let promise = Promise(Some(answered));
        match self.prepare() {
            Err(why) => promise.keep(Err(why)),
            Ok((runtime, asker)) => {
                let asker = Arc::clone(asker);
                drop(runtime.spawn(async move { promise.keep(asker.look_up(&address).await) }));
            }
        }
    }

    fn prepare(&mut self) -> Result<(&Runtime, &Arc<Asker>), String> {
        let runtime = match &mut self.runtime {
            Some(runtime) => runtime,
            none => none.insert(runtime().map_err(|error| error.to_string())?),
        };
        let now = FILES.map(stamp);
        let asker = self.asker.take().filter(|(read, _)| *read == now);
        let asker = asker.map_or_else(
            || {
                let _inside = runtime.enter();
                Asker::new(&self.servers).map(|asker| (now, Arc::new(asker)))
            },
            Ok,
        )?;
        Ok((runtime, &self.asker.insert(asker).1))
    }
}

impl Drop for System {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A server that is silent is not waited for.
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(1).thread_name("ringway-lookup").enable_all().build()
}

fn stamp(file: &str) -> Option<(i64, i64, u64, u64)> {
    let about = fs::metadata(file).ok()?;
    Some((about.mtime(), about.mtime_nsec(), about.ino(), about.size()))
}

/// An answer that is given, whatever becomes of the task.
struct Promise(Option<Answered>);

impl Promise {
    fn keep(mut self, answer: Result<Answer, String>) {
        if let Some(answered) = self.0.take() {
            answered(answer);
        }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if let Some(answered) = self.0.take() {
            answered(Err("its lookup was cut short".to_owned()));
        }
    }
}

/// The addresses of a host, and how long they may be used.
type Host = (Vec<IpAddr>, Option<Duration>);

/// Asks name servers, as the files say.
struct Asker {
    resolver: TokioResolver,
    hosts: Hosts,
}

impl Asker {
    fn new(servers: &[SocketAddr]) -> Result<Asker, String> {
        // Without the file the system asks this machine.
        let (config, mut options) = read_system_conf().unwrap_or_else(|_| {
            let here = vec![NameServerConfig::udp_and_tcp(Ipv4Addr::LOCALHOST.into())];
            (ResolverConfig::from_parts(None, Vec::new(), here), ResolverOpts::default())
        });
        let config = match servers {
            [] => config,
            _ => ResolverConfig::from_name_servers(servers.iter().map(server).collect()),
        };
        options.cache_size = 0;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.server_ordering_strategy = ServerOrderingStrategy::UserProvidedOrder;
        options.use_hosts_file = ResolveHosts::Never;
        // Else an answer of more than 30 addresses takes a TCP connection.
        options.edns0 = true;
        let provider = TokioRuntimeProvider::default();
        let builder = TokioResolver::builder_with_config(config, provider).with_options(options);
        let resolver = builder.build().map_err(|error| error.to_string())?;
        Ok(Asker { resolver, hosts: Hosts::from_system().unwrap_or_default() })
    }

    async fn look_up(self: Arc<Asker>, address: &Address) -> Result<Answer, String> {
        // Its cache has no room, but what has just been asked may still be in it.
        self.resolver.clear_cache();
        match address {
            Address::Socket(at) => {
                let found = vec![Found { at: *at, service: None }];
                Ok(Answer { found, time_to_live: None })
            }
            Address::Name { host, port } => {
                let (addresses, time_to_live) = self.host(host).await.map_err(said)?;
                let found =
                    addresses.into_iter().map(|ip| Found { at: (ip, *port).into(), service: None });
                Ok(Answer { found: found.collect(), time_to_live })
            }
            Address::Srv { name } => self.services(name).await.map_err(said),
            Address::Unix(_) => Ok(Answer::default()),
        }
    }

    /// The addresses of a host, of one family. The file of hosts comes first, for any name in it.
    async fn host(&self, host: &str) -> Result<Host, NetError> {
        let (mut all, mut time_to_live) = (self.in_hosts(host), None);
        if all.is_empty() {
            let found = self.resolver.lookup_ip(host).await?;
            time_to_live = Some(found.valid_until().saturating_duration_since(Instant::now()));
            all = found.iter().collect();
        }
        Ok((resolve::of_one_family(&all, can_be_reached), time_to_live))
    }

    fn in_hosts(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else { return Vec::new() };
        let lines = [RecordType::A, RecordType::AAAA].map(|family| {
            let query = Query::query(name.clone(), family);
            self.hosts.lookup_static_host(&query)
        });
        let records = lines.iter().flatten().flat_map(Records::answers);
        records.filter_map(|record| record.data.ip_addr()).collect()
    }

    /// The hosts, ports, weights and priorities of a service (RFC 2782).
    async fn services(self: Arc<Asker>, name: &str) -> Result<Answer, NetError> {
        let answer = self.resolver.lookup(name, RecordType::SRV).await?;
        let mut valid = answer.valid_until().saturating_duration_since(Instant::now());
        let services: Vec<SRV> = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                // The root stands for no service at all.
                RData::SRV(service) if !service.target.is_root() => Some(service.clone()),
                _ => None,
            })
            .take(BACKENDS_MAX)
            .collect();
        let targets: BTreeSet<&Name> = services.iter().map(|service| &service.target).collect();
        let (mut left, mut hosts) = (targets.into_iter().cloned(), Vec::new());
        let mut under_way = JoinSet::new();
        loop {
            while under_way.len() < HOSTS_AT_ONCE
                && let Some(target) = left.next()
            {
                let asker = Arc::clone(&self);
                under_way.spawn(async move {
                    let host = asker.host(&target.to_ascii()).await;
                    (target, host)
                });
            }
            match under_way.join_next().await {
                None => break,
                Some(Err(error)) => return Err(NetError::Msg(error.to_string())),
                Some(Ok((target, Ok((all, time))))) => {
                    valid = valid.min(time.unwrap_or(valid));
                    hosts.push((target, all));
                }
                // It is gone, and its record is not yet.
                Some(Ok((_, Err(error)))) if error.is_no_records_found() => {}
                Some(Ok((_, Err(error)))) => return Err(error),
            }
        }
        let found = services.iter().flat_map(|service| {
            let of = hosts.iter().filter(|(target, _)| *target == service.target);
            of.flat_map(|(_, all)| all).map(|ip| found(service, *ip))
        });
        Ok(Answer { found: found.collect(), time_to_live: Some(valid) })
    }
}

fn found(record: &SRV, ip: IpAddr) -> Found {
    let target = record.target.to_ascii();
    let target = target.strip_suffix('.').unwrap_or(&target).to_owned();
    let service = Service { target, priority: record.priority, weight: record.weight };
    Found { at: (ip, record.port).into(), service: Some(service) }
}

fn server(at: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = at.port();
        connection
    });
    NameServerConfig::new(at.ip(), true, connections.to_vec())
}

/// Whether there is a route: that is asked of the kernel, and nothing is sent.
fn can_be_reached(ip: &IpAddr) -> bool {
    let here: SocketAddr = match ip {
        IpAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        IpAddr::V6(_) => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Any port will do.
    UdpSocket::bind(here).and_then(|socket| socket.connect((*ip, 9))).is_ok()
}

/// Why there is no answer.
fn said(error: NetError) -> String {
    if error.is_nx_domain() {
        "there is no such name".to_owned()
    } else if error.is_no_records_found() {
        "it has no address".to_owned()
    } else if matches!(error, NetError::Timeout) {
        "no name server answers".to_owned()
    } else {
        error.to_string()
    }
}
