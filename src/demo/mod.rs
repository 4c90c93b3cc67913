//! The demo: three built-in origins on loopback and the balancer in front of them.
//!
//! It uses the public API like any embedder: a text becomes a plan, the plan becomes a running
//! balancer. The text is shown, so people see what runs. It holds no HTTP of its own beyond the
//! origins, and nothing of the product depends on it.

mod answer;
mod connection;
mod origins;
mod running;
mod traffic;

use std::{
    error::Error,
    fmt::Write as _,
    io,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use signal_hook::{
    consts::{SIGINT, SIGQUIT, SIGTERM},
    iterator::Signals,
};

pub(crate) use self::origins::Origins;
use self::traffic::Traffic;
use crate::config::{Overrides, parse_with};
use crate::server::{AdminInterface, Endpoint, Options, Stop, self_signed, start_with};

/// Enough origins to see a round robin go round.
const ORIGINS: usize = 3;

/// How far the port of HTTPS is from that of HTTP: 8443 from 8080.
const SECURE_PORT_OFFSET: u16 = 363;

/// Runs the demo on `listen` until Ctrl-C.
///
/// # Errors
///
/// What keeps origins or balancer from starting, in words for people.
pub(crate) fn run(listen: SocketAddr, overrides: &Overrides) -> Result<(), Box<dyn Error>> {
    // Before anything starts, so that an early Ctrl-C leaves nothing half started.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGQUIT])?;
    let origins = Origins::start(ORIGINS)?;
    let secure = secure(listen);
    let text = configuration(listen, secure.as_ref(), origins.addresses());
    let plan = parse_with("demo", &text, overrides)?.plan;
    let wanted = plan.global.admin.clone();
    let balancer = start_with(plan, Options::of_the_process())?;
    let admin = AdminInterface::beside(&wanted, &balancer)?;
    let listening = |name: &str| {
        let named = |(listener, at): &(String, _)| (listener == name).then(|| Endpoint::tcp(at))?;
        balancer.addresses().iter().find_map(named)
    };
    let secure = secure.as_ref().and_then(|(_, file)| Some((listening("secure")?, &**file)));
    let at = listening("demo").unwrap_or(listen);
    let text = introduction((at, admin.address()), secure, &text);
    io::Write::write_all(&mut io::stdout(), text.as_bytes())?;
    let traffic = admin.address().map(|_| Traffic::start(at));
    signals.forever().next();
    drop((traffic, admin));
    // The balancer first: it finishes the requests its clients still wait for.
    balancer.stop(Stop::Graceful);
    drop(origins);
    Ok(())
}

/// The configuration that the demo runs.
fn configuration(
    listen: SocketAddr,
    secure: Option<&(SocketAddr, PathBuf)>,
    origins: &[SocketAddr],
) -> String {
    let mut text = "[global]\nshutdown = { drain = \"1s\" }\n\n".to_owned();
    let _ = write!(text, "[listener.demo]\nbind = \"{listen}\"\npool = \"origins\"\n\n");
    if let Some((listen, file)) = secure {
        let file = toml::Value::String(file.to_string_lossy().into_owned());
        let _ = write!(text, "[listener.secure]\nbind = \"{listen}\"\npool = \"origins\"\n");
        let _ = write!(text, "tls = {{ certificates = [{{ cert = {file} }}] }}\n\n");
    }
    text.push_str("[pool.origins]\nbackends = [\n");
    for (place, address) in origins.iter().enumerate() {
        let name = Origins::name(place);
        let _ = writeln!(text, "  {{ name = \"{name}\", address = \"{address}\" }},");
    }
    text.push_str(
        "]\n\n# The demo's own traffic, for its dashboard.\n[[route]]\nname = \"traffic\"\n",
    );
    let _ = write!(text, "host = \"{}\"\npool = \"traffic\"\n\n", traffic::HOST);
    text.push_str("[pool.traffic]\nbalance = \"least-connections\"\n");
    text.push_str("retry = { on = [\"connect-failure\", \"503\"] }\nbackends = [\n");
    for (place, address) in origins.iter().enumerate() {
        let name = Origins::name(place);
        let _ = writeln!(text, "  {{ name = \"{name}\", address = \"{address}\" }},");
    }
    text + "]\n"
}

/// Where HTTPS listens, and its certificate; none where that cannot be kept.
fn secure(listen: SocketAddr) -> Option<(SocketAddr, PathBuf)> {
    let file = self_signed(Some(listen.ip())).ok()?;
    // 8443 beside 8080, if nobody has it.
    let beside = listen.port().checked_add(SECURE_PORT_OFFSET).filter(|_| listen.port() != 0);
    let is_free = |port: &u16| TcpListener::bind((listen.ip(), *port)).is_ok();
    let port = beside.filter(is_free).unwrap_or(0);
    Some((SocketAddr::new(listen.ip(), port), file))
}

/// The text that the demo prints: what runs, and what to try.
fn introduction(
    (listening, admin): (SocketAddr, Option<SocketAddr>),
    secure: Option<(SocketAddr, &Path)>,
    configuration: &str,
) -> String {
    let dashboard = admin.map(|at| format!("Dashboard: http://{at}/\n\n"));
    let mut text = dashboard.unwrap_or_default()
        + "Three origins and a balancer in front of them, from this configuration:\n\n";
    for line in configuration.lines() {
        let _ = writeln!(text, "{}", format!("    {line}").trim_end());
    }
    text.push_str("\nTry in another terminal:\n\n");
    for (options, path, seen) in [
        ("", "/", "which origin answered, and the request: a, then b, then c"),
        ("-i ", "/health", "X-Origin names the origin too"),
        ("-d hello ", "/echo", "what you send comes back"),
        ("", "/delay/1500", "after a second and a half"),
        ("-i ", "/status/503", "an origin's own answer is passed on"),
        ("-so /dev/null -w '%{size_download}\\n' ", "/bytes/1000000000", "a gigabyte, counted"),
    ] {
        let command = format!("curl {options}http://{listening}{path}");
        let _ = writeln!(text, "    {command:<62} # {seen}");
    }
    if let Some((secure, file)) = secure {
        let _ =
            writeln!(text, "\nThe same over HTTPS, by a certificate that is signed by itself:\n");
        let _ = writeln!(text, "    curl --cacert {} https://{secure}/", file.display());
    }
    text + "\nCtrl-C stops it all.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_configuration_is_one() {
        let addresses = ["127.0.0.1:1001", "127.0.0.1:1002"].map(|text| text.parse().unwrap());
        let text = configuration("[::1]:8080".parse().unwrap(), None, &addresses);
        let loaded = parse_with("demo", &text, &Overrides::default()).unwrap();
        assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
        let pools = || loaded.plan.pools.values();
        let pool = pools().find(|pool| pool.name == "origins").unwrap();
        let names: Vec<_> = pool.backends.values().map(|b| b.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
        // The example of HTTPS is one, too.
        let secure = ("[::1]:8443".parse().unwrap(), PathBuf::from("/no/such.pem"));
        let text = configuration("[::1]:8080".parse().unwrap(), Some(&secure), &addresses);
        let wrong = parse_with("demo", &text, &Overrides::default()).unwrap_err();
        assert_eq!(wrong.errors(), 1, "{wrong}");
        assert_eq!(
            loaded.plan.listeners.values().next().unwrap().bind,
            ["[::1]:8080".parse().unwrap()]
        );
    }

    #[test]
    fn every_line_to_try_names_where_it_listens() {
        let text =
            introduction(("127.0.0.1:8080".parse().unwrap(), None), None, "[listener.demo]\n");
        assert_eq!(text.matches("curl ").count(), 6);
        assert_eq!(text.matches("http://127.0.0.1:8080/").count(), 6);
        assert!(text.contains("\n    [listener.demo]\n"));
        let secure = ("127.0.0.1:8443".parse().unwrap(), Path::new("/x/self-signed.pem"));
        let text = introduction(("127.0.0.1:8080".parse().unwrap(), None), Some(secure), "");
        let line = "    curl --cacert /x/self-signed.pem https://127.0.0.1:8443/\n";
        assert!(text.contains(line), "{text}");
    }
}
