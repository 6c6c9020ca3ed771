//! Medians, and tables in Markdown.

/// The median; of an even number the mean of the two in the middle.
pub fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    match (values.len() / 2, values.len() % 2) {
        (0, 0) => f64::NAN,
        (half, 0) => f64::midpoint(values[half - 1], values[half]),
        (half, _) => values[half],
    }
}

/// The median of what `above` is above `below`, round by round.
pub fn median_difference(above: &[f64], below: &[f64]) -> f64 {
    median(above.iter().zip(below).map(|(above, below)| above - below))
}

/// The median of `above` divided by `below`, round by round.
pub fn median_ratio(above: &[f64], below: &[f64]) -> f64 {
    median(above.iter().zip(below).map(|(above, below)| above / below))
}

/// A number with as many digits as it is worth: three, and at most one decimal.
pub fn number(value: f64) -> String {
    // Not "-0.0".
    let rounded = (value * 10.0).round() / 10.0 + 0.0;
    if rounded.abs() < 10.0 {
        format!("{rounded:.1}")
    } else if rounded.abs() < 1000.0 {
        format!("{value:.0}")
    } else {
        // 12345 as 12,345.
        let digits = format!("{:.0}", value.abs());
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index) % 3 == 0 {
                text.push(',');
            }
            text.push(digit);
        }
        if value < 0.0 {
            format!("-{text}")
        } else {
            text
        }
    }
}

/// A count, likewise.
pub fn count(value: usize) -> String {
    #[allow(clippy::cast_precision_loss)]
    let value = value as f64;
    if value < 10.0 {
        format!("{value}")
    } else {
        number(value)
    }
}

/// A table in Markdown; all columns but the first are numbers.
pub struct Table {
    text: String,
}

impl Table {
    /// A table with these columns.
    pub fn new(columns: &[String]) -> Self {
        let mut table = Self {
            text: String::new(),
        };
        table.row(columns);
        table.text += "| --- |";
        table.text += &" ---: |".repeat(columns.len().saturating_sub(1));
        table.text.push('\n');
        table
    }

    /// One more row.
    pub fn row(&mut self, cells: &[String]) {
        for cell in cells {
            self.text += &format!("| {} ", cell.replace('|', "\\|"));
        }
        self.text += "|\n";
    }

    /// The Markdown.
    pub fn finish(self) -> String {
        self.text
    }
}

/// [`number`], with two decimals where it is small.
pub fn precise(value: f64) -> String {
    if value.abs() < 10.0 {
        format!("{:.2}", (value * 100.0).round() / 100.0 + 0.0)
    } else {
        number(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_one() {
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median_difference(&[5.0, 9.0, 7.0], &[1.0, 1.0, 1.0]), 6.0);
        assert!(median([]).is_nan());
    }

    #[test]
    fn numbers_as_people_write_them() {
        for (value, text) in [
            (-0.01, "0.0"),
            (1.26, "1.3"),
            (-2.0, "-2.0"),
            (9.97, "10"),
            (123.4, "123"),
            (2200.0, "2,200"),
            (1_234_567.0, "1,234,567"),
        ] {
            assert_eq!(number(value), text, "{value}");
        }
    }

    #[test]
    fn a_table_in_markdown() {
        let mut table = Table::new(&["a".into(), "b".into()]);
        table.row(&["x || y".into(), "1".into()]);
        assert_eq!(
            table.finish(),
            "| a | b |\n| --- | ---: |\n| x \\|\\| y | 1 |\n"
        );
    }
}
