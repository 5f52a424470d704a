//! The columns of the table: as many as the screen has room for.

use ratatui::style::{Color, Style};
use ratatui::text::{Line, Span};

use crate::model::Verdict;
use crate::report::units;
use crate::top::rows::Row;
use crate::top::trend::trend;

/// What a column shows.
#[derive(Debug, Clone, Copy)]
enum Column {
    Number,
    Live,
    Blocks,
    Growth,
    Rate,
    Age,
    Trend,
}

/// Columns and their widths; the names take the rest.
pub struct Columns(&'static [(Column, usize)]);

impl Columns {
    /// Those for a screen so wide.
    pub const fn of(width: u16) -> Self {
        use Column::{Age, Blocks, Growth, Live, Number, Rate, Trend};
        Self(match width {
            100.. => &[
                (Number, 5),
                (Live, 10),
                (Blocks, 10),
                (Growth, 10),
                (Rate, 10),
                (Age, 8),
                (Trend, 16),
            ],
            60.. => &[(Number, 4), (Live, 9), (Growth, 10), (Age, 7), (Trend, 8)],
            _ => &[(Live, 9), (Growth, 10)],
        })
    }

    /// The line above the rows.
    pub fn head(&self) -> String {
        let heads = self.0.iter().map(|(column, width)| match column {
            Column::Trend => format!("{:<width$} ", column.head()),
            _ => format!("{:>width$} ", column.head()),
        });
        heads.chain(["  CALL PATH OF".to_owned()]).collect()
    }

    /// A row.
    pub fn row<'a>(&self, row: &'a Row) -> Line<'a> {
        let cells = self.0.iter();
        let cells: String = cells
            .map(|(column, width)| format!("{:>width$} ", column.cell(row, *width)))
            .collect();
        let (mark, style) = match row.verdict {
            Some(Verdict::Leak) => ("! ", Style::new().fg(Color::Yellow).bold()),
            Some(Verdict::Growing) => ("+ ", Style::new().bold()),
            _ => ("  ", Style::new()),
        };
        Line::from(vec![
            Span::raw(cells),
            Span::styled(mark, style),
            Span::styled(row.name.as_str(), style),
        ])
    }
}

impl Column {
    const fn head(self) -> &'static str {
        match self {
            Self::Number => "#",
            Self::Live => "LIVE",
            Self::Blocks => "BLOCKS",
            Self::Growth => "GROWTH/s",
            Self::Rate => "ALLOC/s",
            Self::Age => "AGE",
            Self::Trend => "TREND",
        }
    }

    fn cell(self, row: &Row, width: usize) -> String {
        let mark = if row.is_estimate { "~" } else { "" };
        match self {
            Self::Number => row.number.map_or(String::new(), |it| it.to_string()),
            Self::Live => format!("{mark}{}", units::bytes(row.live)),
            Self::Blocks => format!("{mark}{}", units::grouped(row.blocks)),
            Self::Growth => row.growth.map_or("–".to_owned(), change),
            Self::Rate => format!("{mark}{}", units::bytes_per_second(row.rate)),
            Self::Age => row.age.map_or("–".to_owned(), units::seconds),
            Self::Trend => trend(&row.points, width),
        }
    }
}

/// A change with its sign.
fn change(rate: f64) -> String {
    let sign = match rate {
        0.0 => "",
        rate if rate < 0.0 => "-",
        _ => "+",
    };
    format!("{sign}{}", units::bytes_per_second(rate.abs()))
}
