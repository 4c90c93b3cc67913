//! The file that keeps run-time changes over a restart.
//!
//! It is in the state directory and is named after the files of the configuration, so that two
//! processes do not share it. It is written whole beside itself, to the disk, and then renamed:
//! whatever ends the process, there is either the file of before or the next one. Nothing is
//! changed that could not be written.

use std::{
    fs,
    io::{self, ErrorKind, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::admin;
use crate::config::RunTimeChanges;
use crate::observe::event::Event;
use crate::plan::{Global, Overlay, Plan};
use crate::policy::{
    lookups::Members,
    overlay::{Composed, Layers},
};

/// More than 1,024 backends of a hundred pools need.
const BYTES_MAX: u64 = 64 << 20;

/// Where the state of a process may be: where its configuration says, else the best first.
pub(super) fn directories(global: &Global, otherwise: &[PathBuf]) -> Vec<PathBuf> {
    match &global.state_dir {
        Some(written) => vec![written.clone()],
        None => otherwise.to_vec(),
    }
}

/// The file.
pub(super) struct StateFile {
    /// The files of the configuration.
    files: Vec<String>,
    /// Where it may be, the best place first; only where it was found, if it was.
    places: Vec<PathBuf>,
    /// Whether what was found there cannot all be used: it is kept aside.
    is_spoilt: bool,
}

/// What a file said.
#[derive(Default)]
pub(super) struct Kept {
    pub(super) overlay: Overlay,
    /// What of it cannot be used or does not fit, each with its line and the reason.
    pub(super) dropped: Vec<Event>,
}

impl StateFile {
    /// For a process that reads these files.
    pub(super) fn new(directories: &[PathBuf], files: &[PathBuf]) -> StateFile {
        let name = format!("changes-{}.toml", admin::hash_of(files));
        let places = directories.iter().map(|folder| folder.join(&name)).collect();
        StateFile { files: admin::named(files), places, is_spoilt: false }
    }

    /// The run-time changes that it keeps and that fit this configuration.
    pub(super) fn read(&mut self, base: &Arc<Plan>) -> Kept {
        let found = self.places.iter().find_map(|path| Some((path.clone(), text(path)?)));
        let Some((path, text)) = found else {
            return Kept::default();
        };
        let name = path.display().to_string();
        let RunTimeChanges { overlay, lines, refused } = match text {
            Ok(text) => RunTimeChanges::read(&name, &text),
            Err(why) => RunTimeChanges { refused: vec![(name, why)], ..RunTimeChanges::default() },
        };
        self.places = vec![path];
        self.is_spoilt = !refused.is_empty();
        let members = Members::new();
        let Composed { overlay, misfits, .. } =
            Layers { base: Arc::clone(base), overlay, members }.compose();
        let misfits = misfits.iter().map(|misfit| {
            let at = lines.get(&misfit.subject).cloned().unwrap_or_default();
            (at, misfit.to_string())
        });
        let dropped = refused.into_iter().chain(misfits);
        let dropped = dropped
            .map(|(at, why)| Event::StateRefused { at: at.into(), cause: why.into() })
            .collect();
        Kept { overlay, dropped }
    }

    /// Keeps these changes.
    ///
    /// # Errors
    /// Why it cannot, in one sentence; the file of before stays.
    pub(super) fn write(&mut self, overlay: &Overlay) -> Result<(), String> {
        let text = RunTimeChanges::write(overlay, &self.files);
        let text = if overlay.changes.is_empty() { None } else { Some(text.as_str()) };
        let mut refusals = Vec::new();
        for path in &self.places {
            match put(path, text, self.is_spoilt) {
                Ok(()) => {
                    (self.places, self.is_spoilt) = (vec![path.clone()], false);
                    return Ok(());
                }
                Err(error) => refusals.push(format!("{}: {error}", path.display())),
            }
        }
        Err(format!(
            "run-time changes cannot be kept over a restart, so nothing was changed: {}; \
             `state-dir` of [global] names another folder",
            refusals.join("; ")
        ))
    }
}

/// The text of a file; none if there is no file, and why it cannot be read.
fn text(path: &Path) -> Option<Result<String, String>> {
    let about = match fs::metadata(path) {
        Ok(about) => about,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return None;
        }
        Err(error) => return Some(Err(format!("it cannot be read: {error}"))),
    };
    if !about.is_file() || about.len() > BYTES_MAX {
        return Some(Err("it is no file of run-time changes".to_owned()));
    }
    Some(fs::read_to_string(path).map_err(|error| format!("it cannot be read: {error}")))
}

/// Replaces the file by this text, or removes it; what is spoilt is kept aside.
fn put(path: &Path, text: Option<&str>, is_spoilt: bool) -> io::Result<()> {
    let folder = path.parent().ok_or(ErrorKind::NotFound)?;
    let Some(text) = text else {
        return match fs::remove_file(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => sync(folder),
        };
    };
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let beside = path.with_extension("toml.new");
    let written = write(&beside, text);
    if let Err(error) = written {
        // What was written of it is of no use.
        let _ = fs::remove_file(&beside);
        return Err(error);
    }
    if is_spoilt {
        fs::rename(path, path.with_extension("toml.refused"))?;
    }
    fs::rename(&beside, path)?;
    sync(folder)
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o644).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// What was renamed or removed in a folder is on the disk.
fn sync(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "[listener.web]\nbind = \"127.0.0.1:0\"\npool = \"app\"\n\
                        [pool.app]\nbackends = [\"10.0.0.1:80\", \"10.0.0.2:80\"]\n";

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Folder {
            let name = format!("ringway-state-{name}-{}", std::process::id());
            let path = std::env::temp_dir().join(name);
            fs::create_dir_all(&path).unwrap();
            Folder(path)
        }

        fn file(&self) -> StateFile {
            StateFile::new(&[self.0.join("deep/er")], &[PathBuf::from("/none/r.toml")])
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn base() -> Arc<Plan> {
        Arc::new(crate::config::parse("state.toml", TEXT).unwrap().plan.into_plan())
    }

    fn weighs(weight: u16) -> Overlay {
        use crate::plan::Settings;
        use crate::policy::overlay::Order;
        let (pool, backend) = ("app".to_owned(), "10.0.0.1:80".to_owned());
        let settings = Settings { weight: Some(weight), duty: None };
        let layers = Layers { base: base(), ..Layers::default() };
        layers.amend(&Order::Set { pool, backend, settings }).unwrap()
    }

    fn read(file: &mut StateFile) -> (Overlay, usize) {
        let Kept { overlay, dropped } = file.read(&base());
        (overlay, dropped.len())
    }

    #[test]
    fn what_is_written_is_there_after_a_restart_and_what_is_dropped_is_gone() {
        let folder = Folder::new("kept");
        assert_eq!(read(&mut folder.file()), (Overlay::default(), 0));
        let mut file = folder.file();
        for weight in [7, 9] {
            file.write(&weighs(weight)).unwrap();
            assert_eq!(read(&mut folder.file()), (weighs(weight), 0));
        }
        file.write(&Overlay::default()).unwrap();
        assert_eq!(fs::read_dir(folder.0.join("deep/er")).unwrap().count(), 0);
        assert_eq!(read(&mut folder.file()), (Overlay::default(), 0));
    }

    /// A process that ends between two steps of a write leaves what this test leaves.
    #[test]
    fn wherever_a_write_is_cut_there_is_the_file_of_before() {
        let folder = Folder::new("cut");
        let mut file = folder.file();
        file.write(&weighs(7)).unwrap();
        let path = file.places[0].clone();
        let next = RunTimeChanges::write(&weighs(9), &[]);
        for length in 0..=next.len() {
            fs::write(path.with_extension("toml.new"), &next[..length]).unwrap();
            assert_eq!(read(&mut folder.file()), (weighs(7), 0));
        }
        file.write(&weighs(9)).unwrap();
        assert_eq!(read(&mut folder.file()), (weighs(9), 0));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_cannot_be_read_is_named_and_kept_aside() {
        let folder = Folder::new("spoilt");
        folder.file().write(&weighs(7)).unwrap();
        let path = folder.file().places[0].clone();
        fs::write(&path, "version = 1\n[[change]]\n").unwrap();
        let mut file = folder.file();
        assert_eq!(read(&mut file), (Overlay::default(), 1));
        file.write(&weighs(9)).unwrap();
        let aside = fs::read_to_string(path.with_extension("toml.refused")).unwrap();
        assert_eq!(aside, "version = 1\n[[change]]\n");
        assert_eq!(read(&mut folder.file()), (weighs(9), 0));
    }

    #[test]
    fn what_cannot_be_written_is_refused_with_the_place() {
        let folder = Folder::new("refused");
        fs::write(folder.0.join("deep"), "a file").unwrap();
        let why = folder.file().write(&weighs(7)).unwrap_err();
        assert!(why.contains("deep/er/changes-") && why.contains("state-dir"), "{why}");
        // The next best place is taken, and kept to.
        let places = [folder.0.join("deep/er"), folder.0.join("other")];
        let mut file = StateFile::new(&places, &[]);
        file.write(&weighs(7)).unwrap();
        assert_eq!(file.places.len(), 1);
        assert_eq!(read(&mut StateFile::new(&places, &[])), (weighs(7), 0));
    }
}
