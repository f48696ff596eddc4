//! Rows as text in columns, as psql shows them.

/// Renders a head, a rule and the rows; `None` is NULL and stays empty. Numbers stand at the right.
pub fn render(columns: &[&str], rows: &[Vec<Option<String>>]) -> String {
    let shown: Vec<Vec<String>> =
        rows.iter().map(|row| row.iter().map(|cell| flat(cell.as_deref().unwrap_or_default())).collect()).collect();
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(at, name)| {
            let cells = shown.iter().filter_map(|row| row.get(at)).map(|cell| cell.chars().count());
            cells.chain([name.chars().count()]).max().unwrap_or_default()
        })
        .collect();
    let mut out = String::new();
    line(&mut out, &columns.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), &widths);
    out.push_str(&widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("+"));
    out.push('\n');
    for row in &shown {
        line(&mut out, row, &widths);
    }
    out
}

fn line(out: &mut String, cells: &[String], widths: &[usize]) {
    let padded = cells.iter().zip(widths).map(|(cell, &width)| {
        let space = " ".repeat(width - cell.chars().count());
        if cell.parse::<f64>().is_ok() { format!(" {space}{cell} ") } else { format!(" {cell}{space} ") }
    });
    let text = padded.collect::<Vec<_>>().join("|");
    out.push_str(text.trim_end());
    out.push('\n');
}

/// A line break, or a sequence that would command the terminal, must not leave its cell.
fn flat(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == '\n' {
                '↵'
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest() {
        let rows = vec![vec![Some("1".into()), Some("a\nb".into())], vec![Some("20".into()), None]];
        assert_eq!(render(&["id", "name"], &rows), " id | name\n----+------\n  1 | a↵b\n 20 |\n");
    }
}
