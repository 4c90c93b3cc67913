//! Problems of a configuration: what is wrong, where, and what to write instead.
//!
//! Problems are collected, never thrown: a person gets all of them at once, each as a picture of
//! the line with a caret under the spot. annotate-snippets draws them; only this file uses it.

use std::{borrow::Cow, fmt, sync::Arc};

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet, normalize_untrusted_str};

use super::source::{Position, Sources};

/// Whether a problem keeps the configuration from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// It does.
    Error,
    /// It does not, but a person should look at it.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug)]
pub struct Problem {
    severity: Severity,
    title: String,
    marks: Vec<Mark>,
    help: Vec<String>,
}

/// A spot and its message; the first mark of a problem is the one with the carets.
#[derive(Clone, Debug)]
struct Mark {
    place: Position,
    label: String,
}

impl Problem {
    pub(crate) fn error(title: impl Into<String>) -> Problem {
        let severity = Severity::Error;
        Problem { severity, title: title.into(), marks: Vec::new(), help: Vec::new() }
    }

    pub(crate) fn warning(title: impl Into<String>) -> Problem {
        Problem { severity: Severity::Warning, ..Problem::error(title) }
    }

    /// Adds a spot; the first is where the problem is, others are what it collides with.
    #[must_use]
    pub(crate) fn at(mut self, place: Position, label: impl Into<String>) -> Problem {
        self.marks.push(Mark { place, label: label.into() });
        self
    }

    /// Adds what to do about it.
    #[must_use]
    pub(crate) fn help(mut self, text: impl Into<String>) -> Problem {
        self.help.push(text.into());
        self
    }

    /// Adds what to do about it, if that is known.
    #[must_use]
    pub(crate) fn help_if(self, text: Option<String>) -> Problem {
        match text {
            Some(text) => self.help(text),
            None => self,
        }
    }

    /// The same without what to do about it.
    #[must_use]
    pub(crate) fn without_help(mut self) -> Problem {
        self.help.clear();
        self
    }

    /// The same with every text passed through this function.
    #[must_use]
    pub(crate) fn with_texts(mut self, change: impl Fn(&str) -> String) -> Problem {
        self.title = change(&self.title);
        self.marks.iter_mut().for_each(|mark| mark.label = change(&mark.label));
        self.help.iter_mut().for_each(|help| *help = change(help));
        self
    }

    /// Whether it keeps the configuration from being used.
    #[must_use]
    pub fn severity(&self) -> Severity {
        self.severity
    }

    /// What is wrong, in one line.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    pub(crate) fn place(&self) -> Option<Position> {
        self.marks.first().map(|mark| mark.place)
    }

    fn draw(&self, sources: &Sources, renderer: &Renderer) -> String {
        let level = match self.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let mut main = Group::with_title(level.primary_title(short(&self.title)));
        let mut shown: Vec<u16> = Vec::new();
        for mark in &self.marks {
            let Some(source) = sources.of(mark.place) else { continue };
            if shown.contains(&mark.place.source) {
                continue;
            }
            shown.push(mark.place.source);
            main = main.element(
                Snippet::source(source.text.as_str())
                    .path(source.name.as_str())
                    .annotations(self.annotations(mark.place.source)),
            );
        }
        let mut report: Vec<Group> = vec![main];
        for help in &self.help {
            let text = normalize_untrusted_str(&short(help));
            report.push(Group::with_title(Level::HELP.secondary_title(text)));
        }
        let drawn: Vec<String> = if self.marks.is_empty() {
            // Without a line to point at, the help has no gutter to hang on.
            report.iter().map(|part| renderer.render(std::slice::from_ref(part))).collect()
        } else {
            vec![renderer.render(&report)]
        };
        let lines = drawn.iter().flat_map(|part| part.lines()).map(str::trim_end);
        lines.collect::<Vec<_>>().join("\n")
    }

    fn annotations(&self, source: u16) -> Vec<annotate_snippets::Annotation<'_>> {
        let mut annotations = Vec::new();
        for (place, mark) in self.marks.iter().enumerate() {
            if mark.place.source != source {
                continue;
            }
            let kind = if place == 0 { AnnotationKind::Primary } else { AnnotationKind::Context };
            annotations.push(kind.span(mark.place.range()).label(mark.label.as_str()));
        }
        annotations
    }
}

/// Most characters of a title or of help, which repeat what was written however long it is.
const SAID_CHARS_MAX: usize = 300;

/// A text, cut to a length that people still read.
fn short(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(SAID_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()).into(),
        None => text.into(),
    }
}

/// Most problems that are drawn. People read no more at once, and each costs a scan of its file.
const DRAWN_MAX: usize = 200;

/// Everything wrong with one configuration, in the order of its lines.
#[derive(Clone, Debug, Default)]
pub struct Problems {
    list: Vec<Problem>,
    sources: Arc<Sources>,
}

impl Problems {
    pub(crate) fn new(mut list: Vec<Problem>, sources: Arc<Sources>) -> Problems {
        // A problem without a place concerns the whole and comes last.
        list.sort_by_key(|problem| (problem.place().is_none(), problem.place()));
        Problems { list, sources }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Each problem.
    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.list.iter()
    }

    /// How many keep the configuration from being used.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|problem| problem.severity == Severity::Error).count()
    }

    /// How many do not.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.list.len() - self.errors()
    }

    /// All of them as pictures, separated by empty lines, each line terminated; of very many only
    /// the first.
    #[must_use]
    pub fn render(&self, color: bool) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let drawing = |problem: &Problem| problem.draw(&self.sources, &renderer) + "\n";
        let mut drawn: Vec<String> = self.list.iter().take(DRAWN_MAX).map(drawing).collect();
        if let Some(rest) = self.list.len().checked_sub(DRAWN_MAX).filter(|rest| *rest > 0) {
            drawn.push(format!("and {rest} more\n"));
        }
        drawn.join("\n")
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.render(false))
    }
}

impl std::error::Error for Problems {}
