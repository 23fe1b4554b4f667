//! How many rows each screen gives to what, and which of its rows is chosen.
//!
//! The screens draw by the same numbers, so that the app knows what is visible: only that is asked
//! for, half a page is half of what one sees, and a click finds its row.

use super::{App, Tab, View, node_rows};

/// From so many columns on there are panels side by side.
pub const COLUMNS_WIDE: u16 = 110;
/// From so many rows of content on there is room for blank ones.
pub const ROWS_ROOMY: u16 = 16;
/// Owners that the overview lists.
const OWNERS_MAX: u16 = 6;
/// Columns of one node where several stand beside one another.
pub const NODE_CELL: u16 = 26;

/// The rows of the overview.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Overview {
    /// Nodes beside one another; 1 is a table with all their numbers.
    pub across: u16,
    /// Rows of nodes, without their heading.
    pub nodes: u16,
    /// Rows of those who hold and wait, without their heading.
    pub owners: u16,
    /// Rows of a strip.
    pub strip: u16,
}

/// How the overview is divided, for so many columns and rows of content.
#[must_use]
pub fn overview(app: &App, columns: u16, height: u16) -> Overview {
    let update = app.update.as_deref();
    let nodes = update.map_or(0, |update| update.nodes.len()) as u16;
    let owners = update.map_or(0, |update| update.owners.len()) as u16;
    if columns >= COLUMNS_WIDE && height >= ROWS_ROOMY {
        let strip = (height / 8).clamp(2, 6);
        let owners = owners.clamp(1, OWNERS_MAX).min(height / 5);
        // Two blanks and two headings, the strip with its heading and its times, and the last line.
        let taken = owners + strip + 8;
        let nodes = nodes.clamp(1, height.saturating_sub(taken).max(2));
        return Overview { across: 1, nodes, owners, strip };
    }
    if height < 12 {
        return Overview { across: 1, nodes: height.saturating_sub(1), owners: 0, strip: 0 };
    }
    let across = (columns / NODE_CELL).max(1);
    let strip = 2;
    let left = height - strip - 2;
    let nodes = nodes.div_ceil(across).clamp(1, left / 3 + 1);
    let left = left.saturating_sub(nodes + 4);
    let owners = owners.clamp(1, (left / 2).max(1));
    Overview { across, nodes, owners, strip }
}

/// Rows below the list of nodes: the chosen one, its GPUs, what happened to it.
#[must_use]
pub fn node_detail(app: &App, height: u16) -> u16 {
    if height < ROWS_ROOMY {
        return 0;
    }
    let nodes = node_rows(app);
    let chosen = nodes.iter().find(|node| Some(&node.row.facts.name) == app.looked_at.as_ref());
    let gpus_and_ailments =
        chosen.map_or(0, |node| node.row.facts.gpus.len() + node.row.ailments.len()) as u16;
    (gpus_and_ailments + 7).min(height / 2)
}

/// Rows below the list of jobs: what the chosen one is, its curve and the end of its output.
#[must_use]
pub const fn job_detail(height: u16) -> u16 {
    match height {
        ..ROWS_ROOMY => 0,
        ROWS_ROOMY..28 => 4,
        28..40 => 11,
        _ => 15,
    }
}

/// Rows below the event log: the chosen line in full, and how many came when.
#[must_use]
pub const fn event_detail(height: u16) -> u16 {
    match height {
        ..ROWS_ROOMY => 0,
        ROWS_ROOMY..28 => 4,
        _ => 8,
    }
}

/// The row of content on which the list of the data's jobs begins with its heading.
#[must_use]
pub fn data_top(app: &App, height: u16) -> u16 {
    if height < 12 {
        return 4;
    }
    let nodes = app.update.iter().flat_map(|update| &update.nodes);
    let samples = nodes.filter_map(|node| node.sample.as_ref());
    let receivers = samples.filter(|sample| sample.ingest.is_some()).count() as u16;
    let roomy = u16::from(height >= ROWS_ROOMY + 2);
    roomy + 4 + receivers.clamp(1, height / 5) + 2 + 5 + roomy
}

/// The row of the screen on which an image begins.
pub const IMAGE_TOP: u16 = 3;

/// Columns and rows of cells that an image has: two lines below it say where one is.
#[must_use]
pub fn image_cells(size: (u16, u16)) -> (u16, u16) {
    let rows = size.1.saturating_sub(IMAGE_TOP + 4);
    // A square slice fills twice as many columns as rows; the rest is for the other planes.
    let columns =
        if size.0 >= COLUMNS_WIDE { (2 * rows + 8).clamp(size.0 / 2, size.0) } else { size.0 };
    (columns, rows)
}

/// Rows above and below the list of a part of the data, for so many rows of content: the tabs and
/// what the whole comes to, and what is known of the chosen row.
#[must_use]
pub fn shelf_parts(app: &App, height: u16) -> (u16, u16) {
    let listing = app.shelf.listing.as_deref();
    let sums = match app.shelf.tab {
        Tab::Samples => listing.map_or(0, |listing| listing.labels.len()),
        Tab::Rejects => listing.map_or(0, |listing| listing.reasons.len()),
        _ => 0,
    } as u16;
    let roomy = u16::from(height >= ROWS_ROOMY);
    let head = match sums {
        0 => 1 + roomy,
        // A heading, so many rows, and a blank one.
        _ if height >= 12 => 1 + roomy + 2 + sums.min(height / 4),
        _ => 1,
    };
    let below = match app.shelf.tab {
        Tab::Models | Tab::Predictions if height >= ROWS_ROOMY => height / 2,
        _ => 0,
    };
    (head, below)
}

impl App {
    /// Rows of content: without the two lines on top and the two below.
    const fn height(&self) -> u16 {
        self.size.1.saturating_sub(4)
    }

    /// The row of the screen on which the list's first row stands.
    fn list_y(&self) -> u16 {
        let roomy = u16::from(self.height() >= ROWS_ROOMY);
        match self.view {
            View::Overview | View::Nodes | View::Jobs => 3 + roomy,
            View::Gpus | View::Events => 3,
            View::Data if self.on_shelf() => 3 + shelf_parts(self, self.height()).0,
            View::Data => 3 + data_top(self, self.height()),
            View::Job(_) | View::Image => 2,
        }
    }

    /// Rows of the list on this screen.
    #[must_use]
    pub fn list_rows(&self) -> usize {
        let height = self.height();
        let roomy = u16::from(height >= ROWS_ROOMY);
        usize::from(match self.view {
            View::Overview => {
                let parts = overview(self, self.size.0, height);
                parts.nodes * parts.across
            }
            View::Nodes => height.saturating_sub(1 + 2 * roomy + node_detail(self, height)),
            View::Gpus => height.saturating_sub(1),
            View::Jobs => height.saturating_sub(1 + 2 * roomy + job_detail(height)),
            View::Data if self.on_shelf() => {
                let (head, below) = shelf_parts(self, height);
                height.saturating_sub(1 + head + below)
            }
            View::Data => height.saturating_sub(1 + data_top(self, height)),
            View::Events => height.saturating_sub(1 + roomy + event_detail(height)),
            View::Job(_) | View::Image => height / 2,
        })
        .max(1)
    }

    /// How many rows there are to choose among.
    #[must_use]
    pub fn list_len(&self) -> usize {
        match self.view {
            View::Overview | View::Nodes => node_rows(self).len(),
            View::Gpus => self.gpus.rows().len(),
            View::Data if self.on_shelf() => self.shelf.shown().len(),
            View::Jobs | View::Data => self.jobs().len(),
            View::Events => self.events.shown(self.filter()).len(),
            View::Job(_) => self.log.len(),
            View::Image => 0,
        }
    }

    /// The number of the chosen row.
    #[must_use]
    pub fn list_at(&self) -> Option<usize> {
        match self.view {
            View::Overview | View::Nodes => {
                let nodes = node_rows(self);
                nodes.iter().position(|node| Some(&node.row.facts.name) == self.node.as_ref())
            }
            View::Gpus => {
                let (node, index) = self.gpu.as_ref()?;
                (0..self.gpus.rows().len()).find(|row| {
                    let line = self.gpus.gpu(*row);
                    line.is_some_and(|line| line.row.index == *index && line.node == *node)
                })
            }
            View::Data if self.on_shelf() => self.shelf.at(),
            View::Jobs | View::Data => self.jobs().iter().position(|row| Some(row.job) == self.job),
            View::Events => {
                let rows = self.events.shown(self.filter());
                rows.iter().position(|row| Some(row.number) == self.event)
            }
            View::Job(_) | View::Image => None,
        }
    }

    /// Chooses a row by its number.
    fn choose_row(&mut self, at: usize) {
        match self.view {
            View::Overview | View::Nodes => {
                self.node = node_rows(self).get(at).map(|node| node.row.facts.name.clone());
            }
            View::Gpus => self.gpu = self.gpus.gpu(at).map(super::GpuLine::id).or(self.gpu.take()),
            View::Data if self.on_shelf() => self.shelf.choose(at),
            View::Jobs | View::Data => {
                let jobs = self.jobs();
                let last = at + 1 >= jobs.len();
                self.job = jobs.get(at).map(|row| row.job);
                if last {
                    self.want_older_jobs();
                }
            }
            View::Events => {
                let rows = self.events.shown(self.filter());
                self.event = rows.get(at).map(|row| row.number);
                if at + 1 >= rows.len() {
                    self.events.want_older();
                }
            }
            View::Job(_) | View::Image => {}
        }
    }

    /// Moves the choice among the rows, or the log: `to` makes the new number of the old one and of
    /// half a page.
    pub(super) fn choose(&mut self, to: impl Fn(usize, usize) -> usize) {
        let half = (self.list_rows() / 2).max(1);
        if matches!(self.view, View::Job(_)) {
            // Up is back in time.
            let lines = self.log.len();
            let at = lines - self.log.back.min(lines);
            self.log.back = (lines - to(at, half).min(lines)).min(lines.saturating_sub(1));
            return;
        }
        let last = self.list_len().saturating_sub(1);
        let old = self.list_at().unwrap_or(0);
        let new = to(old, half).min(last);
        if self.view == View::Gpus {
            // The head of a group is no GPU: the next row in the direction is, or the one before.
            let gpu = |row: &usize| self.gpus.gpu(*row).is_some();
            let found = if new >= old {
                (new..=last).find(gpu).or_else(|| (0..new).rev().find(gpu))
            } else {
                (0..=new).rev().find(gpu).or_else(|| (new..=last).find(gpu))
            };
            if let Some(row) = found {
                self.choose_row(row);
            }
        } else {
            self.choose_row(new);
        }
    }

    /// A choice that is gone becomes the first row; a mark on what has ended is none.
    pub(super) fn keep_choice(&mut self) {
        let update = self.update.as_deref();
        for row in update.into_iter().flat_map(|update| &update.jobs) {
            if row.state.is_ended() {
                self.marked.remove(&row.job);
            }
        }
        // A picture of another screen says nothing of the choice on this one.
        let pictured = self.pictured == Some(self.view.scope());
        let no_list = matches!(self.view, View::Job(_) | View::Image);
        if no_list || !pictured && !self.on_shelf() || self.list_at().is_some() {
            return;
        }
        match self.view {
            // What is not known yet says nothing of the choice.
            View::Gpus if !self.gpus.known => {}
            View::Gpus => {
                self.gpu = None;
                self.choose(|_, _| 0);
            }
            View::Events if !self.events.known() => {}
            _ => self.choose_row(0),
        }
    }

    /// Lets the chosen row be among those that are shown, moving the list as little as possible.
    pub(super) fn settle(&mut self) {
        if matches!(self.view, View::Job(_) | View::Image) {
            return;
        }
        let (len, page) = (self.list_len(), self.list_rows());
        let at = self.list_at().unwrap_or(0);
        if at < self.top {
            self.top = at;
        } else if at >= self.top + page {
            self.top = at + 1 - page;
        }
        self.top = self.top.min(len.saturating_sub(page));
        // The head of a group that begins the screen belongs to its first row.
        if self.view == View::Gpus && self.top == 1 && at == 1 {
            self.top = 0;
        }
    }

    /// Chooses the row at a place of the screen; says whether there is one.
    pub(super) fn choose_at(&mut self, x: u16, y: u16) -> bool {
        let Some(row) = y.checked_sub(self.list_y()) else { return false };
        let mut row = usize::from(row);
        if self.view == View::Overview {
            let parts = overview(self, self.size.0, self.height());
            if row >= usize::from(parts.nodes) {
                return false;
            }
            if parts.across > 1 {
                row += usize::from(parts.nodes * (x / NODE_CELL).min(parts.across - 1));
            }
        }
        let at = self.top + row;
        if row >= self.list_rows() || at >= self.list_len() {
            return false;
        }
        self.choose_row(at);
        true
    }
}
