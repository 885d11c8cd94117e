//! What was measured, as tables for a terminal or for Markdown.

use comfy_table::presets::{ASCII_MARKDOWN, UTF8_FULL_CONDENSED};
use comfy_table::{CellAlignment, Table};

use crate::measure::{Outcome, Work};
use crate::targets::{Against, Bound, TARGETS, Target, Verdict};

/// How tables look.
#[derive(Debug, Clone, Copy)]
pub struct Style {
    /// For Markdown instead of a terminal.
    pub markdown: bool,
}

/// Prints the table of one work: medians with their range, and ratios to the reference.
pub fn print_work(work: &Work, outcomes: &[Outcome], style: Style) {
    let reference = work
        .reference
        .and_then(|name| outcomes.iter().find(|outcome| outcome.name == name)?.median(0));
    let mut header = vec!["contender".to_owned()];
    header.extend(work.columns.iter().map(|column| (*column).to_owned()));
    header.extend(work.reference.map(|name| format!("x {name}")));
    let mut table = new_table(header, style);
    for outcome in outcomes {
        table.add_row(row(work, outcome, reference));
    }
    print_titled(work.title, &table, style);
    for Outcome { row, readings, disturbed, .. } in outcomes {
        match readings {
            Err(error) => println!("`{row}` failed: {error}"),
            Ok(readings) if *disturbed > 0 => {
                let rounds = readings.len();
                println!("`{row}`: other programs disturbed {disturbed} of {rounds} rounds");
            }
            Ok(_) => {}
        }
    }
}

fn row(work: &Work, outcome: &Outcome, reference: Option<f64>) -> Vec<String> {
    let mut cells = vec![outcome.name.to_owned()];
    cells.extend((0..work.columns.len()).map(|column| cell(outcome, column)));
    if work.reference.is_some() {
        let ratio = outcome.median(0).zip(reference).map(|(own, other)| own / other);
        cells.push(ratio.map_or("-".to_owned(), number));
    }
    cells
}

fn cell(outcome: &Outcome, column: usize) -> String {
    match outcome.median(column).zip(outcome.range(column)) {
        Some((median, (least, greatest))) => {
            format!("{} ({} .. {})", number(median), number(least), number(greatest))
        }
        None => "failed".to_owned(),
    }
}

/// Prints each promised figure, what was reached, and whether that is enough.
pub fn print_targets(outcomes: &[Outcome], style: Style) {
    let header = ["row", "against", "promised", "reached", "verdict"].map(str::to_owned);
    let mut table = new_table(header.to_vec(), style);
    for target in TARGETS {
        table.add_row(target_row(target, outcomes));
    }
    print_titled("Figures to reach", &table, style);
}

fn target_row(target: &Target, outcomes: &[Outcome]) -> Vec<String> {
    let (against, unit) = match target.against {
        Against::Row(reference) => (reference, "x"),
        Against::Unit(unit) => ("-", unit),
    };
    let promised = match target.bound {
        Bound::AtLeast(least) => format!(">= {least} {unit}"),
        Bound::AtMost(most) => format!("<= {most} {unit}"),
    };
    let (reached, verdict) = match target.judge(outcomes) {
        Verdict::Reached(figure, true) => (format!("{} {unit}", number(figure)), "met"),
        Verdict::Reached(figure, false) => (format!("{} {unit}", number(figure)), "short"),
        Verdict::NotMeasured => ("-".to_owned(), "not measured"),
    };
    vec![target.row.to_owned(), against.to_owned(), promised, reached, verdict.to_owned()]
}

fn new_table(header: Vec<String>, style: Style) -> Table {
    let mut table = Table::new();
    table.load_style(if style.markdown { ASCII_MARKDOWN } else { UTF8_FULL_CONDENSED });
    table.set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

fn print_titled(title: &str, table: &Table, style: Style) {
    let mark = if style.markdown { "### " } else { "" };
    println!("\n{mark}{title}\n\n{table}\n");
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        100.0.. => format!("{value:.0}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
