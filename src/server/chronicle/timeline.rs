//! The timeline on disk: an object a line, only ever appended, in two files of bounded size.
//!
//! A process that is killed leaves at most its last line torn; a reader skips what is no object.
//! Two processes, as at an upgrade, may append to the same file: each line is one write. Lines that
//! cannot be written (a full disk, a folder that is gone) wait, and are written before the next.

use std::{
    collections::VecDeque,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use serde_json::Value;

/// A file that is this long becomes the older of the two: some 15,000 lines.
const BYTES_MAX: u64 = 4 << 20;

/// Lines that may wait: as many as are kept in memory.
const WAITING_MAX: usize = super::EVENTS_KEPT;

/// The file that is written.
pub(super) struct Timeline {
    path: PathBuf,
    file: File,
    bytes: u64,
    /// Whether a line may have been begun and not ended.
    is_torn: bool,
    /// Lines that could not be written, the oldest first.
    waiting: VecDeque<String>,
}

impl Timeline {
    /// Opens it in the first of these folders where it can be.
    ///
    /// # Errors
    /// Why it can be in none.
    pub(super) fn open(folders: &[PathBuf], name: &str) -> io::Result<Timeline> {
        let mut refused = io::Error::other("no folder is named for it");
        for folder in folders {
            match Timeline::open_at(&folder.join(name)) {
                Ok(timeline) => return Ok(timeline),
                Err(error) => {
                    let why = format!("{}: {error}", folder.display());
                    refused = io::Error::new(error.kind(), why);
                }
            }
        }
        Err(refused)
    }

    fn open_at(path: &Path) -> io::Result<Timeline> {
        if let Some(folder) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let mut options = OpenOptions::new();
        let mut file = options.create(true).append(true).read(true).mode(0o640).open(path)?;
        let bytes = file.metadata()?.len();
        if bytes > 0 {
            // The last line of a process that was killed.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
            }
        }
        let (path, waiting) = (path.to_path_buf(), VecDeque::new());
        Ok(Timeline { path, file, bytes, is_torn: false, waiting })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Appends a line, and before it those that wait. It waits itself where that fails.
    ///
    /// # Errors
    /// The system's.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(line.to_owned());
        while let Some(line) = self.waiting.pop_front() {
            if let Err(error) = self.write(&line) {
                self.waiting.push_front(line);
                return Err(error);
            }
        }
        Ok(())
    }

    fn write(&mut self, line: &str) -> io::Result<()> {
        let is_there = self.is_there();
        if is_there && self.bytes >= BYTES_MAX {
            fs::rename(&self.path, older(&self.path))?;
        }
        if !is_there || self.bytes >= BYTES_MAX {
            let Timeline { file, bytes, .. } = Timeline::open_at(&self.path)?;
            (self.file, self.bytes, self.is_torn) = (file, bytes, false);
        }
        let text = format!("{}{line}\n", if self.is_torn { "\n" } else { "" });
        self.is_torn = true;
        self.file.write_all(text.as_bytes())?;
        self.is_torn = false;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Whether the file has its name still: its folder may have been taken away, or the other
    /// process at an upgrade may have made it the older one.
    fn is_there(&self) -> bool {
        let id = |it: &fs::Metadata| (it.dev(), it.ino());
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(own)) => id(&named) == id(&own),
            _ => false,
        }
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("jsonl.1")
}

/// All that is in both files, the oldest first.
pub(super) fn read(path: &Path) -> Vec<Value> {
    let mut all = Vec::new();
    for path in [older(path), path.to_path_buf()] {
        let Ok(file) = File::open(path) else { continue };
        let mut bytes = Vec::new();
        // What another process appends meanwhile is not waited for.
        if file.take(2 * BYTES_MAX).read_to_end(&mut bytes).is_err() {
            continue;
        }
        let lines = bytes.split(|byte| *byte == b'\n');
        let objects = lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
        all.extend(objects.filter(Value::is_object));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("ringway-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        folder
    }

    fn numbers(path: &Path) -> Vec<u64> {
        read(path).iter().filter_map(|it| it["n"].as_u64()).collect()
    }

    #[test]
    fn a_torn_line_costs_itself_alone() {
        let folder = folder("torn");
        let (nowhere, name) = (PathBuf::from("/proc/nowhere"), "t.jsonl");
        let mut timeline = Timeline::open(&[nowhere, folder.clone()], name).unwrap();
        timeline.append("{\"n\":1}").unwrap();
        let path = timeline.path().to_path_buf();
        timeline.file.write_all(b"{\"n\":2,\"wo").unwrap();
        drop(timeline);
        let mut timeline = Timeline::open(std::slice::from_ref(&folder), name).unwrap();
        timeline.append("{\"n\":3}").unwrap();
        assert_eq!(numbers(&path), [1, 3]);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_folder_that_is_gone_is_made_again_and_nothing_is_lost_meanwhile() {
        let folder = folder("gone");
        let mut timeline = Timeline::open(std::slice::from_ref(&folder), "t.jsonl").unwrap();
        let path = timeline.path().to_path_buf();
        timeline.append("{\"n\":1}").unwrap();
        fs::remove_dir_all(&folder).unwrap();
        timeline.append("{\"n\":2}").unwrap();
        assert_eq!(numbers(&path), [2], "its folder is there again");
        // Something else has its place for a while.
        fs::remove_dir_all(&folder).unwrap();
        fs::write(&folder, "").unwrap();
        for number in 3..6 {
            timeline.append(&format!("{{\"n\":{number}}}")).unwrap_err();
        }
        fs::remove_file(&folder).unwrap();
        timeline.append("{\"n\":6}").unwrap();
        assert_eq!(numbers(&path), [3, 4, 5, 6]);
        // The other process has made it the older one.
        fs::rename(&path, older(&path)).unwrap();
        timeline.append("{\"n\":7}").unwrap();
        assert_eq!(numbers(&path), [3, 4, 5, 6, 7]);
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"n\":7}\n");
        fs::remove_dir_all(folder).unwrap();
    }

    /// As `/dev/full` has room for nothing, the line is begun by hand.
    #[test]
    fn a_line_that_a_full_disk_has_cut_costs_no_other() {
        let folder = folder("full");
        let mut timeline = Timeline::open(std::slice::from_ref(&folder), "t.jsonl").unwrap();
        let path = timeline.path().to_path_buf();
        timeline.file.write_all(b"{\"n\":1,\"wo").unwrap();
        timeline.is_torn = true;
        timeline.append("{\"n\":2}").unwrap();
        assert_eq!((numbers(&path), timeline.is_torn), (vec![2], false));
        timeline.append("{\"n\":3}").unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, "{\"n\":1,\"wo\n{\"n\":2}\n{\"n\":3}\n");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn its_size_is_bounded_and_the_last_lines_are_there() {
        let folder = folder("bounded");
        let mut timeline = Timeline::open(std::slice::from_ref(&folder), "t.jsonl").unwrap();
        let path = timeline.path().to_path_buf();
        let filler = "x".repeat(1_000);
        let count = 4 * BYTES_MAX / 1_000;
        for number in 0..count {
            timeline.append(&format!("{{\"n\":{number},\"x\":\"{filler}\"}}")).unwrap();
        }
        let bytes: u64 = fs::read_dir(&folder)
            .unwrap()
            .map(|file| file.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 2 * (BYTES_MAX + 2_000), "{bytes}");
        let kept = numbers(&path);
        assert_eq!(kept.last(), Some(&(count - 1)));
        assert!(kept.len() as u64 >= BYTES_MAX / 1_100, "{}", kept.len());
        assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
        fs::remove_dir_all(folder).unwrap();
    }
}
