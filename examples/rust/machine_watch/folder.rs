//! What happens to the files of a folder.

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use eventpy::{Emitter, Event, EventDispatcher};
use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use serde::{Deserialize, Serialize};

/// Something happened to a file.
#[derive(Debug, Clone, Event, Serialize, Deserialize)]
pub struct FileChange {
    pub name: String,
    pub change: Change,
}

/// What happened to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    Created,
    Changed,
    Renamed,
    Removed,
}

/// Watches a folder in a process of its own.
#[derive(Serialize, Deserialize)]
pub struct FolderWatch {
    pub folder: PathBuf,
}

/// The watcher, which works until it is dropped, and what it found.
pub struct Watching {
    _watcher: RecommendedWatcher,
    found: Receiver<notify::Result<notify::Event>>,
}

#[eventpy::dispatcher]
impl EventDispatcher for FolderWatch {
    type Events = (FileChange,);
    type State = Watching;

    fn init(&mut self) -> eventpy::Result<Watching> {
        let (sender, found) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(sender)?;
        watcher.watch(&self.folder, RecursiveMode::NonRecursive)?;
        Ok(Watching { _watcher: watcher, found })
    }

    fn update(
        &mut self,
        watching: &mut Watching,
        emitter: &mut Emitter<Self::Events>,
    ) -> eventpy::Result<()> {
        for event in watching.found.try_iter() {
            let event = event?;
            let Some(change) = Change::of(&event.kind) else { continue };
            for path in event.paths {
                let name = path.file_name().unwrap_or(path.as_os_str());
                emitter.emit(FileChange { name: name.display().to_string(), change })?;
            }
        }
        emitter.wait(Duration::from_millis(20));
        Ok(())
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let change = match self.change {
            Change::Created => "created",
            Change::Changed => "changed",
            Change::Renamed => "renamed",
            Change::Removed => "removed",
        };
        write!(f, "{} {change}", self.name)
    }
}

impl Change {
    /// `None` for what leaves a file as it was, like opening it.
    fn of(kind: &EventKind) -> Option<Change> {
        match kind {
            EventKind::Create(_) => Some(Change::Created),
            EventKind::Modify(ModifyKind::Name(_)) => Some(Change::Renamed),
            EventKind::Modify(_) => Some(Change::Changed),
            EventKind::Remove(_) => Some(Change::Removed),
            _ => None,
        }
    }
}
