//! The kinds of requests, and what a right answer to each is: a fast wrong answer is not a measurement.

use serde_json::Value;

/// One kind of request.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub method: &'static str,
    /// `{id}` stands for a number from 1 to 10,000 that differs each time.
    pub path: &'static str,
    pub body: &'static str,
    status: u16,
    /// How many rows the answer has; none is an empty body.
    rows: usize,
    /// What the first row has, as a JSON pointer.
    has: &'static str,
}

pub const BY_KEY: Case = Case {
    name: "GET by key",
    method: "GET",
    path: "/items?id=eq.{id}",
    body: "",
    status: 200,
    rows: 1,
    has: "/details/colour",
};

pub const ONE_ROW: Case = one_row("POST one row", "/events");

/// One row into a table that has a body.
pub const fn one_row(name: &'static str, path: &'static str) -> Case {
    Case { name, method: "POST", path, body: r#"{"body":"hello"}"#, status: 201, rows: 0, has: "" }
}

const CASES: &[Case] = &[
    BY_KEY,
    Case {
        name: "GET list of 20",
        method: "GET",
        path: "/items?select=id,name,price&order=id&limit=20",
        body: "",
        status: 200,
        rows: 20,
        has: "/price",
    },
    Case {
        name: "GET embedding",
        method: "GET",
        path: "/items?select=id,name,parts(id,name)&id=eq.{id}",
        body: "",
        status: 200,
        rows: 1,
        has: "/parts/1/name",
    },
    ONE_ROW,
];

/// The cases whose name contains this, in any case of letters.
pub fn chosen(name: &str) -> Result<Vec<&'static Case>, String> {
    let wanted = name.to_lowercase();
    let found: Vec<_> = CASES.iter().filter(|case| case.name.to_lowercase().contains(&wanted)).collect();
    if found.is_empty() {
        let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
        return Err(format!("no case is called {name:?}; there are: {}", names.join(", ")));
    }
    Ok(found)
}

impl Case {
    /// Whether this is the answer: row level security that hides all rows would be fast too.
    pub fn check(&self, status: u16, body: &str) -> Result<(), String> {
        let wrong = || format!("{}: not the right answer: {status} {body}", self.name);
        if status != self.status {
            return Err(wrong());
        }
        if self.rows == 0 {
            return if body.is_empty() { Ok(()) } else { Err(wrong()) };
        }
        let rows: Vec<Value> = serde_json::from_str(body).map_err(|_| wrong())?;
        let is_right = rows.len() == self.rows && rows.iter().all(|row| row.pointer(self.has).is_some());
        if is_right { Ok(()) } else { Err(wrong()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_rows_are_no_answer() {
        let by_key = chosen("by KEY").unwrap()[0];
        assert!(by_key.check(200, r#"[{"id":1,"details":{"colour":"red"}}]"#).is_ok());
        assert!(by_key.check(200, "[]").is_err());
        assert!(by_key.check(200, r#"[{"id":1}]"#).is_err());
        assert!(by_key.check(503, "{}").is_err());
    }

    #[test]
    fn an_unknown_case_is_told_which_there_are() {
        assert!(chosen("delete").unwrap_err().contains("GET by key"));
        assert_eq!(chosen("").unwrap().len(), CASES.len());
    }
}
