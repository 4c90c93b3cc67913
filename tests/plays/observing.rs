//! The commands of docs/observing.md, played, and the files for Prometheus and Grafana, whose every
//! expression is run by a Prometheus that scrapes a running Ringway.
//!
//! Of an answer the page shows some lines, with `…` for what differs or is left out.

use std::{
    fs,
    net::SocketAddr,
    os::unix::fs::symlink,
    process::{Child, Command, Stdio},
};

use serde_json::Value;

use crate::{
    addresses,
    backend::Backend,
    client::{Client, get},
    instance::keeps_to,
    metrics::{self, has},
    run_time::Running,
    scripts::answers,
    stage::{Driver, eventually},
};

/// A process with a pool of which half is down, and a pool where nobody is.
fn start(backend: &Backend) -> Running {
    let (good, nobody) = (backend.address(), addresses::free());
    let pool = format!(
        "backends = [{{ name = \"a\", address = \"{good}\" }}, \
         {{ name = \"b\", address = \"{nobody}\" }}]\n\
         health = {{ interval = \"100ms\", fall = 2, rise = 1 }}\n\
         [[route]]\nname = \"broken\"\npath = \"/broken\"\npool = \"broken\"\n\
         [pool.broken]\nbackends = [\"{nobody}\"]\n"
    );
    let running = Running::start(Driver::IoUring, &pool);
    let is_down = || metrics::text(&running).contains("backend=\"b\",state=\"down\"} 1");
    eventually("b is down", is_down, |down| *down);
    running.calls("PATCH", "/backends/a", &serde_json::json!({ "weight": 3 }), 200);
    running
}

/// The commands of the console blocks, each with the lines that it answers.
fn steps(page: &str) -> Vec<(String, Vec<String>)> {
    let blocks = page.split("\n```console\n").skip(1).filter_map(|rest| rest.split("\n```").next());
    let mut steps: Vec<(String, Vec<String>)> = Vec::new();
    for line in blocks.flat_map(str::lines) {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push((command.to_owned(), Vec::new())),
            (None, Some((_, answer))) => answer.push(line.to_owned()),
            (None, None) => panic!("an answer without a command: {line}"),
        }
    }
    steps
}

/// Without what differs from time to time: numbers, columns, the name of the machine.
fn masked(line: &str) -> String {
    let letters: String =
        line.chars().map(|it| if it.is_ascii_digit() { '#' } else { it }).collect();
    let letters = letters.replace("##", "#").replace("##", "#").replace("##", "#");
    letters.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_page_of_observing_is_what_is_answered() {
    let backend = Backend::open(answers("ok"));
    let running = start(&backend);
    symlink(env!("CARGO_BIN_EXE_ringway"), running.folder.join("ringway")).unwrap();
    fs::rename(running.folder.join("r.toml"), running.folder.join("ringway.toml")).unwrap();
    let page = fs::read_to_string("docs/observing.md").unwrap();
    let steps = steps(&page);
    assert!(steps.len() >= 5, "{} steps", steps.len());
    for (command, expected) in steps {
        let own = |address: SocketAddr, command: &str, shown: &str| {
            command.replace(shown, &address.to_string())
        };
        let text = own(running.address, &command, "127.0.0.1:8080");
        let text = own(running.admin, &text, "127.0.0.1:9900");
        let path = format!("{}:{}", running.folder.display(), std::env::var("PATH").unwrap());
        let mut shell = Command::new("sh");
        shell.args(["-c", &text]).current_dir(&running.folder).env("PATH", path);
        keeps_to(&mut shell, &running.folder).env("RINGWAY_ADMIN", running.admin.to_string());
        let output = shell.output().unwrap();
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        let mut lines = said.lines().map(masked);
        // Each line that is shown comes after the one before it, but for what happens at once.
        for line in expected.iter().filter(|line| *line != "…") {
            let parts: Vec<String> = line.split('…').map(masked).collect();
            let is_it = |said: &String| {
                let mut rest = said.clone();
                parts.iter().all(|part| {
                    let found = rest.find(part);
                    found.is_some_and(|at| {
                        rest = rest.split_off(at + part.len());
                        true
                    })
                })
            };
            let at_once =
                command.contains("history") && said.lines().map(masked).any(|it| is_it(&it));
            assert!(
                at_once || lines.any(|said| is_it(&said)),
                "$ {command}\nno line {line:?} in\n{said}"
            );
        }
    }
}

/// A Prometheus that scrapes a process; it ends when this is dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn start(running: &Running) -> Prometheus {
        let address = addresses::free();
        let rules = fs::canonicalize("config/prometheus/ringway-alerts.yml").unwrap();
        let config = running.folder.join("prometheus.yml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [\"{}\"]\n\
             scrape_configs:\n  - job_name: ringway\n    \
             static_configs: [{{ targets: [\"{}\"] }}]\n",
            rules.display(),
            running.admin
        );
        fs::write(&config, text).unwrap();
        let mut command = Command::new("prometheus");
        command.arg(format!("--config.file={}", config.display()));
        command.arg(format!("--storage.tsdb.path={}", running.folder.join("tsdb").display()));
        command.arg(format!("--web.listen-address={address}"));
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let prometheus = Prometheus { child, address };
        let listens = || std::net::TcpStream::connect(address).is_ok();
        eventually("Prometheus listens", listens, |listens| *listens);
        prometheus
    }

    fn get(&self, path: &str) -> Value {
        let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.address);
        let answer = Client::connect(self.address).send(head).response();
        serde_json::from_str(answer.text()).unwrap_or_default()
    }

    /// The result of an expression.
    fn query(&self, expression: &str) -> Value {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        self.get(&format!("/api/v1/query?query={encoded}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The expressions of the Grafana dashboard, with its variables filled in.
fn of_grafana() -> Vec<String> {
    let text = fs::read_to_string("config/grafana/ringway.json").unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    let filled =
        |expression: &str| expression.replace("$__rate_interval", "30s").replace("$instance", ".*");
    targets.map(|target| filled(target["expr"].as_str().unwrap())).collect()
}

#[test]
fn every_expression_for_prometheus_and_grafana_names_what_there_is() {
    let rules = fs::read_to_string("config/prometheus/ringway-alerts.yml").unwrap();
    let page = fs::read_to_string("docs/observing.md").unwrap();
    let known: Vec<&str> = ringway::statistics::families().collect();
    let all = [rules, page, of_grafana().join("\n")].join("\n");
    let is_part =
        |letter: char| letter.is_ascii_lowercase() || letter == '_' || letter.is_ascii_digit();
    let mut count = 0;
    for rest in all.split("ringway_").skip(1) {
        let name = rest.split(|letter| !is_part(letter)).next().unwrap();
        let stem = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let is_known =
            name.is_empty() || known.contains(&name) || stem.is_some_and(|it| known.contains(&it));
        assert!(is_known, "ringway_{name}");
        count += 1;
    }
    assert!(count > 30, "{count}");
}

#[test]
fn prometheus_runs_every_alert_and_every_panel() {
    if !has("prometheus") {
        return;
    }
    let backend = Backend::open(answers("ok"));
    let running = start(&backend);
    let mut client = Client::connect(running.address);
    let prometheus = Prometheus::start(&running);
    let is_scraped = || {
        (0..20).for_each(|_| client.send(get("/")).response().expect(200, "ok"));
        prometheus.query("rate(ringway_requests_total[30s]) > 0")["data"]["result"].to_string()
    };
    eventually("it was scraped twice", is_scraped, |result| {
        result.contains("\"listener\":\"web\"")
    });
    for expression in of_grafana() {
        let answer = prometheus.query(&expression);
        assert_eq!(answer["status"], "success", "{expression}: {answer}");
    }
    let down = prometheus.query("ringway_backend_up == 0");
    assert_eq!(down["data"]["result"][0]["metric"]["backend"], "b", "{down}");
    // A rule that cannot be evaluated has an error; one that was has none.
    let rules = || prometheus.get("/api/v1/rules");
    let are_evaluated = |rules: &Value| {
        let all = rules["data"]["groups"][0]["rules"].as_array();
        all.is_some_and(|all| all.len() >= 13 && all.iter().all(|it| it["health"] == "ok"))
    };
    eventually("all rules are evaluated", rules, are_evaluated);
}
