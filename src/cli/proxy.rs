//! `ringway proxy`: a command line that stands for a configuration.
//!
//! It is written as TOML and loaded like any file. So `--print-config` shows exactly what runs, and
//! a mistake is shown in the line that it became.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use super::{
    Exit,
    address::{backend, bind},
    args::Proxy,
    launch, say,
};
use crate::config::{self, Overrides};
use crate::server;

/// The name of the text where mistakes are shown.
const NAME: &str = "the equivalent configuration";

const LISTEN: &str = "127.0.0.1:8080";
const LISTEN_SECURE: &str = "127.0.0.1:8443";

/// Serves the configuration that the command line stands for, or shows it.
pub(super) fn main(proxy: &Proxy, overrides: &Overrides) -> Exit {
    let own = match own_certificate(proxy) {
        Ok(own) => own,
        Err(why) => return say::failed(&why),
    };
    let text = match write(proxy, overrides, own.as_deref()) {
        Ok(text) => text,
        Err(refusal) => return say::usage(&refusal),
    };
    match config::parse(NAME, &text) {
        Err(problems) => {
            say::problems(&problems);
            Exit::Failed
        }
        Ok(_) if proxy.print_config => say::data(&text),
        Ok(loaded) => launch::serve(loaded.plan, None),
    }
}

/// The TOML that a command line stands for.
fn write(proxy: &Proxy, overrides: &Overrides, own: Option<&Path>) -> Result<String, String> {
    let (listen, backends) = listening(proxy);
    let listening = bind(listen).map_err(|refusal| {
        format!(
            "{refusal}; the first of several addresses listens, the others are backends:\n\n  \
             ringway proxy :8080 {listen} …"
        )
    })?;
    let mut text = overrides.to_toml();
    text.push_str("[listener.web]\n");
    text.push_str(&format!("bind = {}\npool = \"app\"\n", quoted(&listening)));
    if let Some(pair) = certificate(proxy, own) {
        text.push_str(&format!("tls = {{ certificates = [{pair}] }}\n"));
    }
    if let Some(path) = &proxy.access_log {
        text.push_str(&format!("access-log = {{ path = {}, format = \"json\" }}\n", quoted(path)));
    }
    let backends = backends.iter().map(|it| backend(it)).collect::<Result<Vec<_>, _>>()?;
    text.push_str("\n[pool.app]\nbackends = [\n");
    for (address, _) in &backends {
        text.push_str(&format!("    {},\n", quoted(address)));
    }
    text.push_str("]\n");
    match backends.iter().filter(|(_, is_secure)| *is_secure).count() {
        0 => {}
        some if some == backends.len() => text.push_str("tls = {}\n"),
        _ => return Err("the backends of one pool are all https:// or none is".to_owned()),
    }
    if let Some(name) = &proxy.balance {
        text.push_str(&format!("balance = {}\n", quoted(name)));
    }
    if let Some(path) = &proxy.health {
        text.push_str(&format!("health = {{ path = {} }}\n", quoted(path)));
    }
    Ok(text)
}

/// The certificate to show, as TOML; none = plain HTTP.
fn certificate(proxy: &Proxy, own: Option<&Path>) -> Option<String> {
    let cert = match (&proxy.cert, own) {
        (None, None) => return None,
        (None, Some(own)) => own.to_string_lossy().into_owned(),
        (Some(cert), _) => cert.clone(),
    };
    let key = proxy.key.as_ref().map(|key| format!(", key = {}", quoted(key)));
    Some(format!("{{ cert = {}{} }}", quoted(&cert), key.unwrap_or_default()))
}

/// A certificate made for this machine, if it is asked for.
fn own_certificate(proxy: &Proxy) -> Result<Option<PathBuf>, String> {
    if !proxy.tls_self_signed {
        return Ok(None);
    }
    let listening = bind(listening(proxy).0).ok().and_then(|it| it.parse::<SocketAddr>().ok());
    let file = server::self_signed(listening.map(|it| it.ip()))?;
    let shown = file.display();
    say::talk(&format!(
        "ringway: the certificate {shown} is signed by itself: curl --cacert {shown}, or accept it"
    ));
    Ok(Some(file))
}

/// Where to listen, and the backends.
fn listening(proxy: &Proxy) -> (&str, &[String]) {
    match proxy.addresses.as_slice() {
        [listen, backends @ ..] if !backends.is_empty() => (listen.as_str(), backends),
        backends if proxy.is_secure() => (LISTEN_SECURE, backends),
        backends => (LISTEN, backends),
    }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}
