//! Shows the machine: as a live table on a terminal, as one line a second anywhere else.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};

use crate::machine::Machine;
use crate::table;

/// Without a terminal there is one line in this time.
const LINE_EVERY: Duration = Duration::from_secs(1);

/// Where the machine is shown, and whether somebody has seen enough.
pub struct View {
    surface: Surface,
    /// Set by a signal.
    stop: Arc<AtomicBool>,
}

enum Surface {
    Terminal(DefaultTerminal),
    Lines { next: Instant },
}

impl View {
    /// Takes the terminal, if there is one. It is given back when the view is dropped, and before
    /// the message of a panic is printed.
    pub fn open() -> io::Result<View> {
        let stop = Arc::new(AtomicBool::new(false));
        for signal in [SIGHUP, SIGINT, SIGQUIT, SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
        }
        let is_terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
        let surface = if is_terminal {
            Surface::Terminal(ratatui::try_init().inspect_err(|_| ratatui::restore())?)
        } else {
            Surface::Lines { next: Instant::now() + LINE_EVERY }
        };
        Ok(View { surface, stop })
    }

    /// Whether a signal came, or one of the keys Ctrl-C, q and Escape.
    pub fn wants_to_end(&self) -> io::Result<bool> {
        // While the table is shown, the terminal hands Ctrl-C over as a key.
        if let Surface::Terminal(_) = self.surface {
            while event::poll(Duration::ZERO)? {
                if is_end_key(&event::read()?) {
                    return Ok(true);
                }
            }
        }
        Ok(self.stop.load(Ordering::Relaxed))
    }

    /// Shows the machine as it is now.
    pub fn show(&mut self, machine: &Machine, left: Duration) -> io::Result<()> {
        match &mut self.surface {
            Surface::Terminal(terminal) => {
                terminal.draw(|frame| table::draw(frame, machine, left))?;
            }
            Surface::Lines { next } => {
                if *next <= Instant::now() {
                    writeln!(io::stdout(), "{machine}")?;
                    *next += LINE_EVERY;
                }
            }
        }
        Ok(())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // A panic has restored it already, and has printed its message since.
        if matches!(self.surface, Surface::Terminal(_)) && !std::thread::panicking() {
            ratatui::restore();
        }
    }
}

fn is_end_key(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    match key.code {
        KeyCode::Char('c') => key.modifiers.contains(KeyModifiers::CONTROL),
        KeyCode::Char('q') | KeyCode::Esc => true,
        _ => false,
    }
}
