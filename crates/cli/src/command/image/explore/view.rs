//! What is on the explorer's screen, and what keys do to it. Knows no terminal.

use ponton_api::explore::Exploration;

use super::tree::{Filter, Line, Mark, Tree};

/// A key as a terminal sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Key {
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    Enter,
    Escape,
    Backspace,
    Char(char),
    /// With Ctrl.
    Ctrl(char),
}

/// Which part of the screen the keys move in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pane {
    Layers,
    Files,
}

/// The state of the screen.
#[derive(Debug)]
pub(super) struct View {
    pub(super) image: Exploration,
    /// The layer whose files are shown.
    pub(super) layer: usize,
    /// The changes of all layers above the lowest are marked, not those of the one alone.
    pub(super) is_aggregated: bool,
    pub(super) pane: Pane,
    /// Permissions, owner and size are shown.
    pub(super) shows_attributes: bool,
    pub(super) filter: Filter,
    /// The filter's text is being typed.
    pub(super) is_typing: bool,
    pub(super) lines: Vec<Line>,
    /// The chosen line.
    pub(super) cursor: usize,
    tree: Tree,
}

/// Lines that a page key moves by.
const PAGE: usize = 20;

impl View {
    pub(super) fn new(image: Exploration) -> Self {
        let mut view = Self {
            image,
            layer: 0,
            is_aggregated: false,
            pane: Pane::Layers,
            shows_attributes: true,
            filter: Filter::default(),
            is_typing: false,
            lines: Vec::new(),
            cursor: 0,
            tree: Tree::default(),
        };
        view.choose(0);
        view
    }

    /// Takes a key; false if it ends the explorer.
    pub(super) fn press(&mut self, key: Key) -> bool {
        if key == Key::Ctrl('c') {
            return false;
        }
        if self.is_typing {
            self.type_filter(key);
            return true;
        }
        match key {
            Key::Char('q') => return false,
            Key::Tab => {
                self.pane = if self.pane == Pane::Layers { Pane::Files } else { Pane::Layers };
            }
            Key::Char('f' | '/') | Key::Ctrl('f') => {
                self.is_typing = true;
                self.pane = Pane::Files;
            }
            Key::Escape => self.search(String::new()),
            _ if self.pane == Pane::Layers => self.press_in_layers(key),
            _ => self.press_in_files(key),
        }
        true
    }

    fn type_filter(&mut self, key: Key) {
        let mut text = self.filter.text.clone();
        match key {
            Key::Enter | Key::Tab => self.is_typing = false,
            Key::Escape => {
                self.is_typing = false;
                text.clear();
            }
            Key::Backspace => {
                text.pop();
            }
            Key::Char(letter) => text.push(letter),
            _ => return,
        }
        self.search(text);
    }

    fn search(&mut self, text: String) {
        if self.filter.text != text {
            self.filter.text = text;
            self.refresh();
        }
    }

    fn press_in_layers(&mut self, key: Key) {
        let last = self.image.layers.len().saturating_sub(1);
        match key {
            Key::Char('a') | Key::Ctrl('a') => {
                self.is_aggregated = true;
                self.choose(self.layer);
            }
            Key::Char('l') | Key::Ctrl('l') => {
                self.is_aggregated = false;
                self.choose(self.layer);
            }
            _ => {
                let layer = moved(self.layer, last, key);
                if layer != self.layer {
                    self.choose(layer);
                }
            }
        }
    }

    fn press_in_files(&mut self, key: Key) {
        match key {
            Key::Char('a') | Key::Ctrl('a') => self.toggle(Mark::Added),
            Key::Char('r') | Key::Ctrl('r') => self.toggle(Mark::Removed),
            Key::Char('m') | Key::Ctrl('m') => self.toggle(Mark::Modified),
            Key::Char('u') | Key::Ctrl('u') => self.toggle(Mark::Unmodified),
            Key::Char('b') | Key::Ctrl('b') => self.shows_attributes = !self.shows_attributes,
            Key::Char('c') | Key::Ctrl(' ') => {
                let is_open = self.filter.collapsed.is_empty();
                self.filter.collapsed =
                    if is_open { self.tree.directories() } else { std::collections::HashSet::new() };
                self.refresh();
            }
            Key::Char(' ') | Key::Enter => self.fold(None),
            Key::Left | Key::Char('h') => self.fold(Some(true)),
            Key::Right | Key::Char('l') => self.fold(Some(false)),
            _ => self.cursor = moved(self.cursor, self.lines.len().saturating_sub(1), key),
        }
    }

    /// Folds the chosen directory (or unfolds it, or does the other).
    fn fold(&mut self, wanted: Option<bool>) {
        let Some(line) = self.lines.get(self.cursor).filter(|line| line.is_directory) else { return };
        let path = line.path.clone();
        match wanted.unwrap_or(!line.is_collapsed) {
            true => self.filter.collapsed.insert(path),
            false => self.filter.collapsed.remove(&path),
        };
        self.refresh();
    }

    fn toggle(&mut self, mark: Mark) {
        match self.filter.hidden.iter().position(|hidden| *hidden == mark) {
            Some(at) => {
                self.filter.hidden.remove(at);
            }
            None => self.filter.hidden.push(mark),
        }
        self.refresh();
    }

    fn choose(&mut self, layer: usize) {
        self.layer = layer;
        let layers = &self.image.layers[..self.image.layers.len().min(layer + 1)];
        let compared = if self.is_aggregated { layer.min(1) } else { layer };
        self.tree = Tree::new(layers, compared);
        self.refresh();
    }

    /// Makes the lines anew; the chosen one stays chosen where it is still there.
    fn refresh(&mut self) {
        let chosen = self.lines.get(self.cursor).map(|line| line.path.clone());
        self.lines = self.tree.lines(&self.filter);
        let found = chosen.and_then(|path| self.lines.iter().position(|line| line.path == path));
        self.cursor = found.unwrap_or(self.cursor.min(self.lines.len().saturating_sub(1)));
    }
}

fn moved(at: usize, last: usize, key: Key) -> usize {
    match key {
        Key::Up | Key::Char('k') => at.saturating_sub(1),
        Key::Down | Key::Char('j') => (at + 1).min(last),
        Key::PageUp => at.saturating_sub(PAGE),
        Key::PageDown => (at + PAGE).min(last),
        Key::Home | Key::Char('g') => 0,
        Key::End | Key::Char('G') => last,
        _ => at,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use ponton_api::explore::{File, FileChange, Layer, Wasted};

    use super::*;

    /// An image of two layers.
    pub(in super::super) fn image() -> Exploration {
        let file = |path: &str, change, mode, size| File {
            path: path.to_owned(),
            change,
            mode,
            size,
            ..File::default()
        };
        let layer = |command: &str, files: Vec<File>| Layer {
            digest: format!("sha256:{}", "ab".repeat(32)),
            command: command.to_owned(),
            size: files.iter().map(|file| file.size).sum(),
            files: Some(files),
            ..Layer::default()
        };
        Exploration {
            id: format!("sha256:{}", "cd".repeat(32)),
            tags: vec!["app:1".to_owned()],
            size: 1_300,
            efficiency: 0.85,
            wasted_bytes: 500,
            user_wasted: 0.25,
            layers: vec![
                layer(
                    "ADD rootfs",
                    vec![
                        file("bin", FileChange::Added, 0o040_755, 0),
                        file("bin/sh", FileChange::Added, 0o100_755, 1_000),
                        file("etc", FileChange::Added, 0o040_755, 0),
                        file("etc/passwd", FileChange::Added, 0o100_644, 200),
                    ],
                ),
                layer(
                    "RUN \x1b[31mevil",
                    vec![
                        file("etc/passwd", FileChange::Changed, 0o100_644, 300),
                        file("bin/sh", FileChange::Removed, 0, 0),
                    ],
                ),
            ],
            wasted: vec![Wasted { path: "etc/passwd".to_owned(), count: 2, size: 500 }],
        }
    }

    fn paths(view: &View) -> Vec<&str> {
        view.lines.iter().map(|line| line.path.as_str()).collect()
    }

    #[test]
    fn keys_choose_layers_and_fold_directories() {
        let mut view = View::new(image());
        assert!(view.lines.iter().all(|line| line.mark == Mark::Added));
        assert!(view.press(Key::Down) && view.press(Key::Down));
        assert_eq!(view.layer, 1);
        assert!(view.press(Key::Tab) && view.press(Key::Char(' ')));
        assert_eq!(paths(&view), ["bin", "etc", "etc/passwd"]);
        assert!(view.lines[0].is_collapsed);
        view.press(Key::Right);
        assert_eq!(view.lines[1].mark, Mark::Removed);
        view.press(Key::Char('r'));
        view.press(Key::Char('u'));
        assert_eq!(paths(&view), ["bin", "etc", "etc/passwd"]);
        view.press(Key::End);
        assert_eq!(view.lines[view.cursor].path, "etc/passwd");
        assert!(!view.press(Key::Char('q')));
    }

    #[test]
    fn typing_filters() {
        let mut view = View::new(image());
        for key in [Key::Char('/'), Key::Char('q'), Key::Backspace, Key::Char('s'), Key::Char('h')] {
            assert!(view.press(key));
        }
        assert_eq!(paths(&view), ["bin", "bin/sh"]);
        view.press(Key::Enter);
        assert!(!view.is_typing);
        view.press(Key::Escape);
        assert_eq!(view.lines.len(), 4);
    }

    #[test]
    fn an_image_without_layers_is_shown() {
        let mut view = View::new(Exploration::default());
        for key in [Key::Down, Key::Tab, Key::Down, Key::Char(' '), Key::End, Key::Char('c'), Key::PageUp] {
            assert!(view.press(key));
        }
    }
}
