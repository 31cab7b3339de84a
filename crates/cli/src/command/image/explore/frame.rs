//! The explorer's screen as lines of text with colours.

use ponton_api::unit::human_size;

use super::tree::{Line, Mark};
use super::view::{Pane, View};

const RESET: &str = "\x1b[0m";
const BOLD: &str = "\x1b[1m";
const CHOSEN: &str = "\x1b[7m";
/// Columns of the files' pane below which it has names alone.
const LEAST_FOR_ATTRIBUTES: usize = 56;

/// Draws the whole screen: exactly `rows` lines, none wider than `columns`.
pub(super) fn frame(view: &View, rows: usize, columns: usize) -> Vec<String> {
    let body = rows.saturating_sub(1);
    let left_width = columns / 2;
    let right_width = columns.saturating_sub(left_width + 1);
    let left = left(view, body, left_width);
    let right = right(view, body, right_width);
    let mut lines: Vec<String> =
        left.iter().zip(&right).map(|(left, right)| format!("{left} {right}")).collect();
    lines.push(styled(CHOSEN, &help(view), columns));
    lines
}

fn help(view: &View) -> String {
    if view.is_typing {
        return format!(" Filter: {}█   Enter keep   Esc clear", view.filter.text);
    }
    match view.pane {
        Pane::Layers => " q Quit   Tab Files   ↑↓ Layer   a Aggregated changes   l Layer changes   / Filter",
        Pane::Files => {
            " q Quit   Tab Layers   Space Fold   c Fold all   a Added   r Removed   m Modified   u Unmodified   b Attributes   / Filter"
        }
    }
    .to_owned()
}

/// Layers, the chosen one's details, the image's.
fn left(view: &View, rows: usize, width: usize) -> Vec<String> {
    let image = &view.image;
    let mut lines = vec![title("Layers", view.pane == Pane::Layers, width)];
    lines.push(styled(BOLD, "    Size  Command", width));
    let room = (rows / 2).saturating_sub(2).max(1);
    let first = scrolled(view.layer, image.layers.len(), room);
    for (index, layer) in image.layers.iter().enumerate().skip(first).take(room) {
        let text = format!("{:>8}  {}", human_size(layer.size as i64), command(&layer.command));
        lines.push(styled(if index == view.layer { CHOSEN } else { "" }, &text, width));
    }
    lines.push(styled("", "", width));
    lines.push(title("Layer Details", false, width));
    if let Some(layer) = image.layers.get(view.layer) {
        lines.push(styled("", &format!("Digest:  {}", layer.digest), width));
        if !layer.created.is_empty() {
            lines.push(styled("", &format!("Created: {}", layer.created), width));
        }
        lines.push(styled("", "Command:", width));
        lines.extend(wrapped(&layer.command, width).take(rows / 6 + 1).map(|line| styled("", &line, width)));
    }
    lines.push(styled("", "", width));
    lines.push(title("Image Details", false, width));
    let name = image.tags.first().unwrap_or(&image.id);
    for text in [
        format!("Image name: {name}"),
        format!("Total Image size: {}", human_size(image.size as i64)),
        format!("Potential wasted space: {}", human_size(image.wasted_bytes as i64)),
        format!("Image efficiency score: {:.0} %", (image.efficiency * 100.0).floor()),
    ] {
        lines.push(styled("", &text, width));
    }
    lines.push(styled("", "", width));
    lines.push(styled(BOLD, "Count  Total Space  Path", width));
    for wasted in &image.wasted {
        let size = human_size(wasted.size as i64);
        lines.push(styled("", &format!("{:>5}  {size:>11}  /{}", wasted.count, wasted.path), width));
    }
    lines.resize(rows, styled("", "", width));
    lines
}

/// The files of the chosen layer.
fn right(view: &View, rows: usize, width: usize) -> Vec<String> {
    let name = if view.is_aggregated { "Aggregated Layer Contents" } else { "Current Layer Contents" };
    let mut lines = vec![title(name, view.pane == Pane::Files, width)];
    // Names come first where there is no room for both.
    let with_attributes = view.shows_attributes && width >= LEAST_FOR_ATTRIBUTES;
    let heading = if with_attributes { "Permission     UID:GID       Size  Filetree" } else { "Filetree" };
    lines.push(styled(BOLD, heading, width));
    let room = rows.saturating_sub(2);
    let first = scrolled(view.cursor, view.lines.len(), room);
    for (index, line) in view.lines.iter().enumerate().skip(first).take(room) {
        let is_chosen = view.pane == Pane::Files && index == view.cursor;
        let style = match (is_chosen, line.mark) {
            (true, _) => CHOSEN,
            (false, Mark::Unmodified) => "",
            (false, Mark::Added) => "\x1b[32m",
            (false, Mark::Modified) => "\x1b[33m",
            (false, Mark::Removed) => "\x1b[31m",
        };
        lines.push(styled(style, &entry(line, with_attributes), width));
    }
    lines.resize(rows, styled("", "", width));
    lines
}

fn entry(line: &Line, with_attributes: bool) -> String {
    let attributes = &line.attributes;
    let mut text = String::new();
    if with_attributes {
        let owner = format!("{}:{}", attributes.uid, attributes.gid);
        let size = human_size(attributes.size as i64);
        text = format!("{}  {owner:>10}  {size:>9}  ", permissions(attributes.mode));
    }
    text.push_str(&line.branch);
    text.push_str(&line.name);
    if !attributes.link.is_empty() {
        text.push_str(" → ");
        text.push_str(&attributes.link);
    }
    if line.is_collapsed {
        text.push_str(" ⊕");
    }
    text
}

/// `drwxr-xr-x`.
fn permissions(mode: u32) -> String {
    let kind = match mode & 0o170_000 {
        0o040_000 => 'd',
        0o120_000 => 'l',
        0o020_000 => 'c',
        0o060_000 => 'b',
        0o010_000 => 'p',
        0o140_000 => 's',
        _ => '-',
    };
    let bit = |shift: u32, letter: char| if mode >> shift & 1 == 1 { letter } else { '-' };
    let execute = |shift: u32, special: u32, set: char, alone: char| match (
        mode >> shift & 1 == 1,
        mode & special != 0,
    ) {
        (true, true) => set,
        (false, true) => alone,
        (true, false) => 'x',
        (false, false) => '-',
    };
    [
        kind,
        bit(8, 'r'),
        bit(7, 'w'),
        execute(6, 0o4000, 's', 'S'),
        bit(5, 'r'),
        bit(4, 'w'),
        execute(3, 0o2000, 's', 'S'),
        bit(2, 'r'),
        bit(1, 'w'),
        execute(0, 0o1000, 't', 'T'),
    ]
    .iter()
    .collect()
}

/// The first of `count` lines that is shown when `room` of them fit and `chosen` must be among them.
fn scrolled(chosen: usize, count: usize, room: usize) -> usize {
    chosen.saturating_sub(room / 2).min(count.saturating_sub(room))
}

fn title(text: &str, is_chosen: bool, width: usize) -> String {
    let (bar, dash) = if is_chosen { ("┃ ● ", "━") } else { ("│ ", "─") };
    let text = format!("{bar}{text} {}", dash.repeat(width));
    styled(if is_chosen { BOLD } else { "" }, &text, width)
}

/// An instruction on one line.
fn command(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn wrapped(text: &str, width: usize) -> impl Iterator<Item = String> {
    let letters: Vec<char> = command(text).chars().collect();
    let lines: Vec<String> =
        letters.chunks(width.max(1)).map(|line| line.iter().collect::<String>()).collect();
    lines.into_iter()
}

/// `text` in exactly `width` columns. What an image says never reaches the terminal as a command to it.
fn styled(style: &str, text: &str, width: usize) -> String {
    let mut line = style.to_owned();
    let mut used = 0;
    for letter in text.chars() {
        let letter = if is_command(letter) { '\u{fffd}' } else { letter };
        let columns = columns(letter);
        if used + columns > width {
            break;
        }
        used += columns;
        line.push(letter);
    }
    line.extend(std::iter::repeat_n(' ', width - used));
    if !style.is_empty() {
        line.push_str(RESET);
    }
    line
}

/// Controls, and what turns the direction of text.
fn is_command(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many columns a letter takes on a terminal.
fn columns(letter: char) -> usize {
    match u32::from(letter) {
        0x300..=0x36f | 0xfe00..=0xfe0f => 0,
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f => 2,
        0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1faff | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::image;
    use super::super::view::{Key, View};
    use super::*;

    fn plain(line: &str) -> String {
        [RESET, BOLD, CHOSEN, "\x1b[31m", "\x1b[32m", "\x1b[33m"]
            .iter()
            .fold(line.to_owned(), |line, style| line.replace(style, ""))
    }

    #[test]
    fn every_line_fills_the_screen() {
        let mut view = View::new(image());
        view.press(Key::Down);
        for (rows, width) in [(24, 80), (10, 40), (1, 1), (0, 0), (50, 200)] {
            let lines = frame(&view, rows, width);
            assert_eq!(lines.len(), rows.max(1));
            for line in &lines {
                assert!(plain(line).chars().map(columns).sum::<usize>() <= width.max(1), "{line:?}");
            }
        }
    }

    #[test]
    fn an_image_cannot_speak_to_the_terminal() {
        let view = View::new(image());
        let text = plain(&frame(&view, 24, 120).join("\n"));
        assert!(!text.contains('\x1b'));
        assert!(text.contains("RUN \u{fffd}[31mevil"));
    }

    #[test]
    fn the_screen_tells_of_layers_files_and_waste() {
        let mut view = View::new(image());
        view.press(Key::Down);
        let text = plain(&frame(&view, 40, 160).join("\n"));
        for part in [
            "│   └── sh",
            "-rw-r--r--         0:0       300B      └── passwd",
            "    300B  RUN",
            "Image efficiency score: 85 %",
            "Potential wasted space: 500B",
            "    2         500B  /etc/passwd",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
        let narrow = plain(&frame(&view, 24, 80).join("\n"));
        assert!(narrow.contains("└── passwd") && !narrow.contains("Permission"), "{narrow}");
    }

    #[test]
    fn modes_are_written_as_by_ls() {
        for (mode, text) in [
            (0o104_755, "-rwsr-xr-x"),
            (0o041_777, "drwxrwxrwt"),
            (0o120_777, "lrwxrwxrwx"),
            (0, "----------"),
        ] {
            assert_eq!(permissions(mode), text);
        }
    }
}
