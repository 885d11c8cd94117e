//! The live table: one block each for the cores, the memory, and the files.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph};

use crate::machine::Machine;

const BAR: usize = 12;
/// `cpu 12 ############ 100 %` and the gap to the next one.
const CORE_WIDTH: u16 = 7 + BAR as u16 + 1 + 5 + 3;

/// Draws the machine, and how long it will still be watched.
pub fn draw(frame: &mut Frame, machine: &Machine, left: Duration) {
    let per_row = usize::from((frame.area().width.saturating_sub(4) / CORE_WIDTH).max(1));
    let core_rows = machine.cores.len().div_ceil(per_row).max(1) as u16;
    let [title, failures, cores, memory, files] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(machine.failures.len() as u16),
        Constraint::Length((core_rows + 2).min(frame.area().height / 2)),
        Constraint::Length(4),
        Constraint::Fill(1),
    ])
    .areas(frame.area());

    let seconds = left.as_secs_f32().ceil();
    frame.render_widget(format!(" machine watch: {seconds} s left, Ctrl-C ends it").bold(), title);
    frame.render_widget(Paragraph::new(failure_lines(machine)), failures);
    block(frame, cores, "cores".to_owned(), core_lines(machine, per_row));
    block(frame, memory, "memory and pressure".to_owned(), memory_lines(machine));
    let changes = format!("files, {} changes", machine.change_count);
    block(frame, files, changes, file_lines(machine));
}

fn block(frame: &mut Frame, area: Rect, title: String, lines: Vec<Line>) {
    let block = Block::bordered().title(format!(" {title} ")).border_style(Color::DarkGray);
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn failure_lines(machine: &Machine) -> Vec<Line<'static>> {
    machine.failures.iter().map(|failure| format!(" {failure}").red().into()).collect()
}

fn core_lines(machine: &Machine, per_row: usize) -> Vec<Line<'static>> {
    let cells: Vec<_> = machine.cores.iter().map(|(&core, &busy)| core_cell(core, busy)).collect();
    cells.chunks(per_row).map(|row| row.iter().flatten().cloned().collect()).collect()
}

fn core_cell(core: u32, busy: f32) -> [Span<'static>; 3] {
    let percent = busy * 100.0;
    [format!(" cpu{core:>3} ").into(), bar(busy), format!(" {percent:>3.0} %  ").into()]
}

fn memory_lines(machine: &Machine) -> Vec<Line<'static>> {
    let memory = machine.memory.map(|memory| {
        Line::from_iter([" used   ".into(), bar(memory.used()), format!(" {memory}").into()])
    });
    let waiting = machine.pressure.iter().map(|(resource, stalled)| {
        let percent = stalled * 100.0;
        Span::styled(format!(" {resource} {percent:.1} % "), color_of(*stalled))
    });
    let pressure = match machine.pressure.is_empty() {
        true => Line::from(" this kernel does not tell how long programs wait"),
        false => Line::from_iter(std::iter::once(Span::from(" waiting for")).chain(waiting)),
    };
    memory.into_iter().chain([pressure]).collect()
}

fn file_lines(machine: &Machine) -> Vec<Line<'static>> {
    machine.changes.iter().map(|change| Line::from(format!(" {change}"))).collect()
}

/// A bar of `BAR` characters, filled up to `share`.
fn bar(share: impl Into<f64>) -> Span<'static> {
    let share = share.into().clamp(0.0, 1.0);
    let filled = (share * BAR as f64).round() as usize;
    Span::styled("█".repeat(filled) + &"░".repeat(BAR - filled), color_of(share as f32))
}

fn color_of(share: f32) -> Color {
    match share {
        ..0.5 => Color::Green,
        ..0.8 => Color::Yellow,
        _ => Color::Red,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::draw;
    use crate::machine::Machine;
    use crate::memory::Memory;

    fn drawn(machine: &Machine, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, machine, Duration::from_millis(6500))).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn what_is_known_is_shown() {
        let mut machine = Machine::default();
        machine.cores.extend([(0, 0.5), (7, 1.0)]);
        machine.memory = Some(Memory { total_bytes: 4 << 30, available_bytes: 1 << 30 });
        machine.pressure.insert("io".to_owned(), 0.25);
        machine.failures.push("dispatcher `FolderWatch` failed".to_owned());
        let screen = drawn(&machine, 80, 24);
        assert!(screen.contains("7 s left"), "{screen}");
        assert!(screen.contains("cpu  0 ██████░░░░░░  50 %"), "{screen}");
        assert!(screen.contains("cpu  7 ████████████ 100 %"), "{screen}");
        assert!(screen.contains("█████████░░░ 3.0 of 4.0 GiB"), "{screen}");
        assert!(screen.contains("waiting for io 25.0 %"), "{screen}");
        assert!(screen.contains("dispatcher `FolderWatch` failed"), "{screen}");
    }

    #[test]
    fn no_terminal_is_too_small_and_no_machine_too_large() {
        let mut machine = Machine::default();
        machine.cores.extend((0..512).map(|core| (core, 0.3)));
        for (width, height) in [(1, 1), (20, 3), (80, 24), (400, 100)] {
            drawn(&machine, width, height);
        }
    }
}
