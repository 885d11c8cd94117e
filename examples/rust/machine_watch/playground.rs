//! Something to see in the watched folder, without touching anybody's files.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

const PAUSE: Duration = Duration::from_millis(400);

/// The folder to watch.
pub enum Playground {
    /// The user's own: only to be looked at.
    Theirs(PathBuf),
    /// A temporary one, in which files come and go.
    Ours { folder: TempDir, next: Instant, step: usize },
}

impl Playground {
    /// The user's folder if there is one, else a temporary one.
    pub fn unless(theirs: Option<PathBuf>) -> io::Result<Playground> {
        Ok(match theirs {
            Some(folder) => Playground::Theirs(folder),
            None => {
                let folder = tempfile::Builder::new().prefix("machine-watch-").tempdir()?;
                Playground::Ours { folder, next: Instant::now() + PAUSE, step: 0 }
            }
        })
    }

    pub fn folder(&self) -> &Path {
        match self {
            Playground::Theirs(folder) => folder,
            Playground::Ours { folder, .. } => folder.path(),
        }
    }

    /// When the time has come: creates a file, writes to it, or removes it, in turns.
    pub fn play(&mut self) -> io::Result<()> {
        let Playground::Ours { folder, next, step } = self else { return Ok(()) };
        if Instant::now() < *next {
            return Ok(());
        }
        let file = folder.path().join(format!("note-{}.txt", *step / 3));
        match *step % 3 {
            0 => drop(File::create_new(file)?),
            1 => writeln!(File::options().append(true).open(file)?, "a line")?,
            _ => fs::remove_file(file)?,
        }
        *step += 1;
        *next += PAUSE;
        Ok(())
    }
}
