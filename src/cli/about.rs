//! The commands that describe the program: version, completions, manual page, schema.

use clap::CommandFactory as _;

use super::{EXIT_CODES, Exit, args::Args, say};
use crate::config;

/// The version, as a line or as JSON.
pub(super) fn version(json: bool) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    if !json {
        return say::data(&format!("ringway {version}\n"));
    }
    let (arch, os) = (std::env::consts::ARCH, std::env::consts::OS);
    let about = serde_json::json!({
        "name": "ringway", "version": version, "architecture": arch, "system": os,
    });
    say::data(&format!("{about}\n"))
}

/// Completions for a shell.
pub(super) fn completions(shell: clap_complete::Shell) -> Exit {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "ringway", &mut script);
    say::data(&String::from_utf8_lossy(&script))
}

/// The JSON Schema of the configuration.
pub(super) fn schema() -> Exit {
    say::data(&config::schema())
}

/// The manual page: the program, then each of its commands.
pub(super) fn man() -> Exit {
    match manual() {
        Ok(page) => say::data(&String::from_utf8_lossy(&page)),
        Err(error) => say::failed(&format!("the manual page: {error}")),
    }
}

fn manual() -> std::io::Result<Vec<u8>> {
    let mut command = Args::command().disable_help_flag(true);
    command.build();
    let mut page = Vec::new();
    let program = clap_mangen::Man::new(command.clone());
    program.render_title(&mut page)?;
    program.render_name_section(&mut page)?;
    program.render_synopsis_section(&mut page)?;
    program.render_description_section(&mut page)?;
    program.render_options_section(&mut page)?;
    for part in command.get_subcommands().filter(|part| !part.is_hide_set()) {
        page.extend_from_slice(section(part).as_bytes());
    }
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for (code, meaning) in EXIT_CODES {
        page.extend_from_slice(format!(".TP\n\\fB{code}\\fR\n{meaning}\n").as_bytes());
    }
    page.extend_from_slice(FILES.as_bytes());
    Ok(page)
}

/// A command as a section: what it does, its usage, its flags.
fn section(command: &clap::Command) -> String {
    let mut text = format!(".SH \"RINGWAY {}\"\n", command.get_name().to_uppercase());
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    text.push_str(&format!("{}.\n.PP\n", roff(&about)));
    let usage = command.clone().render_usage().to_string();
    text.push_str(&format!("\\fB{}\\fR\n", roff(usage.trim_start_matches("Usage: "))));
    for argument in command.get_arguments() {
        if argument.is_hide_set() || argument.is_global_set() {
            continue;
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let name = argument.to_string();
        text.push_str(&format!(".TP\n\\fB{}\\fR\n{}\n", roff(&name), roff(&help)));
    }
    if let Some(after) = command.get_after_help() {
        text.push_str(&format!(".PP\n.nf\n{}\n.fi\n", roff(&after.to_string())));
    }
    text
}

/// Escaped text, in which roff finds no commands.
fn roff(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.replace('\\', "\\\\").replace('-', "\\-");
        if line.starts_with(['.', '\'']) { format!("\\&{line}") } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

const FILES: &str = "\
.SH FILES
.TP
\\&./ringway.toml, /etc/ringway/ringway.toml
the configuration, where no \\fB\\-c\\fR is given
";
