//! Commands and flags, and the texts of `--help`.
//!
//! Flags that mean the same as a key of the configuration become overrides of it. So they pass the
//! same checks, and a mistake in one is shown like one in a file.

use std::{env, path::PathBuf};

use clap::{
    ArgMatches, CommandFactory as _, Parser, Subcommand,
    builder::{BoolishValueParser, PossibleValuesParser, Resettable},
    parser::ValueSource,
};

use super::{
    Exit,
    ask::Target,
    backend::{self, Action, Given},
};
use crate::config::Overrides;

/// Where the demo listens by default.
pub(super) const DEMO_LISTEN: &str = "127.0.0.1:8080";

/// A load balancer and reverse proxy: one pinned thread and one io_uring per core
#[derive(Debug, Parser)]
#[command(
    name = "ringway",
    version,
    disable_help_subcommand = true,
    subcommand_value_name = "COMMAND",
    next_help_heading = "Global flags",
    after_help = EXAMPLES,
    max_term_width = 100
)]
pub(super) struct Args {
    #[command(flatten)]
    pub(super) flags: Flags,
    /// What to do; without one: run if a file is given or found, else the demo.
    #[command(subcommand)]
    pub(super) command: Option<Command>,
}

/// The command line to parse. A variable that is set to nothing counts as not set, as when a unit
/// or a container passes on one that it does not have.
pub(super) fn command() -> clap::Command {
    Args::command().mut_args(|flag| {
        let variable = flag.get_env().and_then(env::var_os);
        if variable.is_some_and(|value| value.is_empty()) {
            return flag.env(Resettable::Reset);
        }
        flag
    })
}

const EXAMPLES: &str = "\
Examples:
  ringway                                            the demo, if there is no file
  ringway proxy :8080 10.0.0.1:3000 10.0.0.2:3000    a proxy without a file
  ringway check -c ringway.toml                      all mistakes at once
  ringway run -c ringway.toml                        serve

Without -c the file is ./ringway.toml, then /etc/ringway/ringway.toml.
Flags override the environment, which overrides files, which override defaults.
Exit codes: 0 done, 1 failed, 2 usage, 3 no running instance.";

/// Flags of every command; each can also be set in the environment.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Flags {
    /// A configuration file, or a directory of *.toml files, read in order; may be repeated, or
    /// in the variable separated by colons
    #[arg(
        short,
        long,
        global = true,
        value_name = "FILE",
        env = "RINGWAY_CONFIG",
        hide_env_values = true
    )]
    config: Vec<PathBuf>,

    /// Cores to serve on: a number, a list such as 0-3,8, or auto
    #[arg(long, global = true, value_name = "N|LIST|auto", alias = "threads")]
    #[arg(env = "RINGWAY_CORES", hide_env_values = true)]
    cores: Option<String>,

    /// Do not pin each serving thread to its core
    #[arg(long, global = true, env = "RINGWAY_NO_PIN", hide_env_values = true)]
    #[arg(value_parser = BoolishValueParser::new())]
    no_pin: bool,

    /// What the threads wait on; auto falls back to epoll where io_uring is forbidden
    #[arg(long, global = true, value_name = "DRIVER", env = "RINGWAY_DRIVER")]
    #[arg(hide_env_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["auto", "io_uring", "epoll"]))]
    #[arg(ignore_case = true)]
    driver: Option<String>,

    /// Address of the admin interface, or off
    #[arg(long, global = true, value_name = "ADDR|off", env = "RINGWAY_ADMIN")]
    #[arg(hide_env_values = true)]
    admin: Option<String>,

    /// Level of the log on stderr
    #[arg(long, global = true, value_name = "LEVEL", env = "RINGWAY_LOG_LEVEL")]
    #[arg(hide_env_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"]))]
    #[arg(ignore_case = true)]
    log_level: Option<String>,

    /// Format of the log on stderr
    #[arg(long, global = true, value_name = "FORMAT", env = "RINGWAY_LOG_FORMAT")]
    #[arg(hide_env_values = true)]
    #[arg(value_parser = PossibleValuesParser::new(["text", "json"]), ignore_case = true)]
    log_format: Option<String>,
}

impl Flags {
    /// The address given for the admin interface.
    pub(super) fn admin(&self) -> Option<&str> {
        self.admin.as_deref()
    }

    /// The files named by flags, or by the variable as in `PATH`.
    pub(super) fn files(&self, matches: &ArgMatches) -> Vec<PathBuf> {
        if origin(matches, "config") == "--config" {
            return self.config.clone();
        }
        let all = self.config.iter().flat_map(env::split_paths);
        all.filter(|path| !path.as_os_str().is_empty()).collect()
    }

    /// Whether a flag named files, for the commands that take none.
    pub(super) fn names_files(matches: &ArgMatches) -> bool {
        origin(matches, "config") == "--config"
    }

    /// The values given, each with whether it came from a flag or a variable.
    pub(super) fn overrides(&self, matches: &ArgMatches) -> Overrides {
        let mut overrides = Overrides::default();
        for (key, id, value) in [
            ("global.cores", "cores", &self.cores),
            ("global.driver", "driver", &self.driver),
            ("global.admin", "admin", &self.admin),
            ("global.log.level", "log_level", &self.log_level),
            ("global.log.format", "log_format", &self.log_format),
        ] {
            if let Some(value) = value {
                overrides.text(key, value, &origin(matches, id));
            }
        }
        if self.no_pin {
            overrides.switch("global.pin", false, &origin(matches, "no_pin"));
        }
        overrides
    }
}

/// `--cores` or `RINGWAY_CORES`.
fn origin(matches: &ArgMatches, id: &str) -> String {
    let mut level = Some(matches);
    while let Some(matches) = level {
        if matches.value_source(id) == Some(ValueSource::CommandLine) {
            return format!("--{}", id.replace('_', "-"));
        }
        level = matches.subcommand().map(|(_, matches)| matches);
    }
    format!("RINGWAY_{}", id.to_uppercase())
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Three built-in backends with a balancer in front, to try it out
    #[command(next_help_heading = None)]
    Demo {
        /// Where to listen
        #[arg(default_value = DEMO_LISTEN)]
        listen: String,
    },
    /// A proxy without a file
    Proxy(Proxy),
    /// Serve in the foreground until told to stop
    #[command(after_help = RUN_HELP)]
    Run,
    /// Check the configuration and show everything that is wrong with it
    #[command(after_help = CHECK_HELP)]
    Check {
        /// Show the configuration in force, with the origin of each value
        #[arg(long, help_heading = None)]
        print: bool,
    },
    /// Reload the configuration of the running process
    #[command(after_help = RELOAD_HELP)]
    Reload {
        /// Only show what would change
        #[arg(long, help_heading = None)]
        dry_run: bool,
        /// Drop the run-time changes of backends
        #[arg(long, help_heading = None)]
        discard: bool,
    },
    /// Show, add, set or remove backends of the running process
    Backend(BackendArgs),
    /// Let a new process of the program take over from the running one, and wait for the verdict
    #[command(after_help = UPGRADE_HELP)]
    Upgrade,
    /// Show whether the running process is ready for traffic: exit 0 if so, 1 if not
    Ready,
    /// Show the running process: version, uptime, driver, cores, listeners, pools, certificates
    Status {
        /// As JSON
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Show what goes on in the running process, live: backends, routes, cores
    Top {
        /// Only once
        #[arg(long, help_heading = None)]
        once: bool,
        /// As JSON, once
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Show what has happened to the running process, and how long backends were out
    #[command(after_help = HISTORY_HELP)]
    History {
        /// Only of this pool
        #[arg(long, value_name = "POOL", help_heading = None)]
        pool: Option<String>,
        /// Only of this backend
        #[arg(long, value_name = "BACKEND", help_heading = None)]
        backend: Option<String>,
        /// How far back
        #[arg(long, value_name = "TIME", default_value = "24h", help_heading = None)]
        since: String,
        /// As JSON
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Show what the running process would do with a request: route, pool, each backend, and why
    #[command(after_help = EXPLAIN_HELP)]
    Explain {
        /// GET, POST …
        #[arg(value_name = "METHOD", help_heading = None)]
        method: String,
        /// With scheme and host, or only the path
        #[arg(value_name = "URL", help_heading = None)]
        url: String,
        /// A field of the request; may be repeated
        #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", help_heading = None)]
        headers: Vec<String>,
        /// Whom its connection comes from
        #[arg(long, value_name = "IP", help_heading = None)]
        from: Option<String>,
        /// As JSON
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Show the certificates of the running process: names, days left, files
    Cert {
        /// As JSON
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Show the version
    Version {
        /// As JSON
        #[arg(long, help_heading = None)]
        json: bool,
    },
    /// Write completions for a shell
    #[command(after_help = "Example:\n  ringway completions bash > \
        /usr/share/bash-completion/completions/ringway")]
    Completions {
        /// The shell
        #[arg(ignore_case = true)]
        shell: clap_complete::Shell,
    },
    /// Write the manual page
    #[command(after_help = "Example:\n  ringway man | man -l -")]
    Man,
    /// Write the JSON Schema of the configuration, for editors
    #[command(after_help = "Example:\n  ringway schema > ringway.schema.json\n\
        and in the first line of ringway.toml:\n  #:schema ./ringway.schema.json")]
    Schema,
}

impl Command {
    /// Whether it serves without any file.
    pub(super) fn is_without_file(&self) -> bool {
        matches!(self, Command::Demo { .. } | Command::Proxy(_))
    }
}

const RUN_HELP: &str = "\
Signals:
  TERM, QUIT   not ready, lameduck, drain, exit 0; a second TERM or INT exits at once
  INT          drain without lameduck; a second one exits at once
  HUP          reload the configuration
  USR1         reopen logs
  USR2         upgrade: a new process of the program takes over

Examples:
  ringway run
  ringway run -c /etc/ringway/conf.d --cores 0-3
  RINGWAY_LOG_FORMAT=json ringway run";

const RELOAD_HELP: &str = "\
Prints each change on a line. A configuration with a mistake is refused as a whole and changes
nothing: exit 1.

Examples:
  ringway reload --dry-run
  ringway reload
  ringway reload --discard
  ringway reload -c /etc/ringway/conf.d
  ringway reload --admin 127.0.0.1:9900";

/// What to do with backends of the running process.
#[derive(Debug, clap::Args)]
#[command(after_help = BACKEND_HELP)]
pub(super) struct BackendArgs {
    /// list, add, remove, drain, up, maintenance or weight
    #[arg(value_name = "ACTION", help_heading = None, ignore_case = true)]
    #[arg(value_parser = PossibleValuesParser::new(Action::WORDS.map(|(word, _)| word)))]
    #[arg(hide_possible_values = true)]
    action: String,

    /// The pool, or a backend of it
    #[arg(value_name = "POOL[/BACKEND]", help_heading = None)]
    of: Option<String>,

    /// The address to add, or the weight to set
    #[arg(value_name = "VALUE", help_heading = None)]
    value: Option<String>,

    /// The name of a backend that is added; its address, if there is none
    #[arg(long, value_name = "NAME", help_heading = None)]
    name: Option<String>,

    /// The weight of a backend that is added
    #[arg(long, value_name = "N", help_heading = None)]
    weight: Option<u16>,

    /// How long a backend that is removed may drain: 30s
    #[arg(long, value_name = "TIME", help_heading = None)]
    drain: Option<String>,

    /// Wait until nothing is left there, and show what is
    #[arg(long, help_heading = None)]
    wait: bool,

    /// As JSON
    #[arg(long, help_heading = None)]
    json: bool,
}

impl BackendArgs {
    /// Does it.
    pub(super) fn run(&self, target: &Target<'_>) -> Exit {
        let is_it = |(word, _): &&(&str, Action)| word.eq_ignore_ascii_case(&self.action);
        let action = Action::WORDS.iter().find(is_it).map_or(Action::List, |(_, it)| *it);
        let given = Given {
            of: self.of.as_deref(),
            value: self.value.as_deref(),
            name: self.name.as_deref(),
            weight: self.weight,
            drain: self.drain.as_deref(),
            wait: self.wait,
            json: self.json,
        };
        backend::backend(target, action, given)
    }
}

const BACKEND_HELP: &str = "\
Actions:
  list [POOL[/BACKEND]]        state, weight, requests under way and so far
  add POOL ADDRESS             traffic at once; with health checks after one good probe
  weight POOL/BACKEND N        its share, 0 to 256
  drain POOL/BACKEND           no new traffic but of clients that stay with it
  maintenance POOL/BACKEND     no traffic and no probes
  up POOL/BACKEND              the end of both
  remove POOL/BACKEND          at once, or with --drain when it is empty

Changes last over a restart, until `ringway reload --discard`.

Examples:
  ringway backend list
  ringway backend add app 10.0.0.9:3000 --weight 2
  ringway backend drain app/10.0.0.9:3000 --wait
  ringway backend remove app/10.0.0.9:3000 --drain 30s";

const HISTORY_HELP: &str = "\
Examples:
  ringway history --since 1h
  ringway history --pool app --backend 10.0.0.9:3000";

const EXPLAIN_HELP: &str = "\
Nothing is sent. It is decided by the code that serves, on the first core, as of this moment.

Examples:
  ringway explain GET http://api.example.com/v1/users
  ringway explain POST https://app.example/ -H 'X-Canary: 1' --from 10.0.0.7
  ringway explain GET /v1/users --json";

const UPGRADE_HELP: &str = "\
The program is started again from its path, with the same arguments and files. It gets the listening
sockets, resting client connections, and what is known of the backends. The running process finishes
what it has, for at most `shutdown.drain`, and ends. If the new one cannot serve, the running one
serves on: exit 1.

Example:
  apt install ./ringway_0.2.0_amd64.deb && ringway upgrade";

const CHECK_HELP: &str = "\
Examples:
  ringway check
  ringway check -c new.toml --print";

/// A proxy without a file.
#[derive(Debug, clap::Args)]
#[command(after_help = PROXY_HELP, override_usage = "ringway proxy [OPTIONS] [LISTEN] TO...")]
pub(super) struct Proxy {
    /// Where to listen, then the backends; with only one address it is the backend, and
    /// 127.0.0.1:8080 listens
    #[arg(required = true, value_name = "ADDRESS", help_heading = None)]
    pub(super) addresses: Vec<String>,

    /// How a backend is picked: round-robin, weighted, random, least-connections, ip-hash or
    /// least-response-time
    #[arg(long, value_name = "NAME", help_heading = None)]
    pub(super) balance: Option<String>,

    /// Probe each backend with a GET of this path
    #[arg(long, value_name = "PATH", help_heading = None)]
    pub(super) health: Option<String>,

    /// Log each request to a file; - is stdout
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub(super) access_log: Option<String>,

    /// Write the equivalent configuration and exit
    #[arg(long, help_heading = None)]
    pub(super) print_config: bool,

    /// Serve HTTPS with the certificate in this file (PEM)
    #[arg(long, value_name = "FILE", help_heading = None)]
    pub(super) cert: Option<String>,

    /// Its private key; without it, it is in the file of the certificate
    #[arg(long, value_name = "FILE", help_heading = None, requires = "cert")]
    pub(super) key: Option<String>,

    /// Serve HTTPS with a certificate made for this machine, to try it out
    #[arg(long, help_heading = None, conflicts_with_all = ["cert", "key"])]
    pub(super) tls_self_signed: bool,
}

impl Proxy {
    /// Whether it serves HTTPS.
    pub(super) fn is_secure(&self) -> bool {
        self.cert.is_some() || self.tls_self_signed
    }
}

const PROXY_HELP: &str = "\
Addresses:
  :8080               to listen on: every IPv4 address; as a backend: localhost
  10.0.0.1:3000       an IP address and a port
  app.internal:3000   a backend by name

Examples:
  ringway proxy localhost:3000
  ringway proxy :8080 10.0.0.1:3000 10.0.0.2:3000
  ringway proxy :8080 10.0.0.1:3000 10.0.0.2:3000 --balance least-connections --health /health
  ringway proxy :8443 localhost:3000 --tls-self-signed
  ringway proxy :8080 https://app.example
  ringway proxy :8080 10.0.0.1:3000 10.0.0.2:3000 --print-config > ringway.toml";
