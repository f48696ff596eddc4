//! One file as one text for the simple protocol, which PostgreSQL runs as one transaction, and the way back from a
//! place in that text to a line in the file.

use ntier_backing::database::{Refusal, migrations::LOCK};

use super::File;
use super::migrate::Failure;
use super::statements::{self, Statement, line_of};

/// A file made ready to run.
#[derive(Debug)]
pub struct Script<'a> {
    file: &'a File,
    pub text: String,
    /// Statements of the file in the text: where each begins there, in characters.
    pieces: Vec<(usize, Statement<'a>)>,
    /// Statements of ours before them.
    before: usize,
}

/// The code with which a file says that another node has applied it in the meantime.
pub const ALREADY: &str = "NT001";

/// Extensions that every Supabase database has and few projects use. Their dumps create them; where the server does not have
/// them the statement is left out.
const PLATFORM: &[&str] =
    &["hypopg", "index_advisor", "pg_graphql", "pg_stat_statements", "pgjwt", "pgsodium", "supabase_vault"];

/// The platform's extension that this statement creates.
pub fn platform_extension(statement: &Statement<'_>) -> Option<&'static str> {
    let words = statement.words(6);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let name = match words.as_slice() {
        ["create", "extension", "if", "not", "exists", name, ..] | ["create", "extension", name, ..] => *name,
        _ => return None,
    };
    PLATFORM.iter().copied().find(|known| *known == name)
}

impl<'a> Script<'a> {
    /// A migration: applied once, recorded as the Supabase CLI does.
    pub fn migration(file: &'a File, leave_out: &[&str]) -> Self {
        let version = literal(&file.version);
        let mut script = Self::new(file, &once("supabase_migrations.schema_migrations", "version", &version));
        let kept = script.append(leave_out);
        let list: Vec<String> = kept.iter().map(|text| literal(text)).collect();
        script.text.push_str(&format!(
            "insert into supabase_migrations.schema_migrations (version, name, statements) \
             values ({version}, {}, array[{}]::text[]);\nnotify pgrst, 'reload schema'",
            literal(&file.name),
            list.join(",")
        ));
        script
    }

    /// A seed: applied once, recorded by its path.
    pub fn seed(file: &'a File) -> Self {
        let path = literal(&file.label);
        let mut script = Self::new(file, &once("supabase_migrations.seed_files", "path", &path));
        script.append(&[]);
        script.text.push_str(&format!(
            "insert into supabase_migrations.seed_files (path, hash) \
             values ({path}, encode(sha256(convert_to({}, 'UTF8')), 'hex'))",
            literal(&file.text)
        ));
        script
    }

    /// The lock comes first: what is decided after it stays decided.
    fn new(file: &'a File, guard: &str) -> Self {
        let path = "select pg_catalog.set_config('search_path', '\"$user\", public, extensions', true)";
        Self { file, text: format!("{LOCK};\n{guard};\n{path};\n"), pieces: Vec::new(), before: 3 }
    }

    /// The file's own statements. `BEGIN` and `COMMIT` are left out, because the whole file is one transaction; whatever the file
    /// has set for its session is taken back, because the connection goes on to serve requests.
    fn append(&mut self, leave_out: &[&str]) -> Vec<&'a str> {
        let mut kept = Vec::new();
        let mut at = self.text.chars().count();
        for statement in statements::split(&self.file.text) {
            let skip = is_transaction(&statement)
                || platform_extension(&statement).is_some_and(|name| leave_out.contains(&name));
            if skip {
                continue;
            }
            self.pieces.push((at, statement));
            // On a line of its own: the statement may end in a comment.
            self.text.push_str(statement.text);
            self.text.push_str("\n;\n");
            at += statement.text.chars().count() + 3;
            kept.push(statement.text);
        }
        self.text.push_str("reset session authorization;\nreset role;\nreset all;\n");
        kept
    }

    /// Where in the file PostgreSQL stopped.
    pub fn failure(&self, refusal: &Refusal) -> Failure {
        let file = &self.file.text;
        let position = refusal.position.and_then(|position| usize::try_from(position).ok()?.checked_sub(1));
        let by_position = position.and_then(|position| {
            let (at, statement) = self.pieces.iter().rev().find(|(at, _)| *at <= position)?;
            let (inside, _) = statement.text.char_indices().nth(position - at)?;
            Some(statement.begin + inside)
        });
        let by_count = refusal.after.checked_sub(self.before).and_then(|index| self.pieces.get(index));
        let offset = by_position.or_else(|| by_count.map(|(_, statement)| statement.start));
        Failure {
            file: self.file.label.clone(),
            line: offset.map(|offset| line_of(file, offset)),
            excerpt: offset.map(|offset| line_at(file, offset)).unwrap_or_default(),
            column: by_position.map(|offset| column_of(file, offset)),
            code: refusal.code.clone(),
            message: refusal.message.clone(),
            detail: refusal.detail.clone(),
            hint: refusal.hint.clone(),
        }
    }
}

fn once(table: &str, column: &str, value: &str) -> String {
    format!(
        "do $once$ begin if exists (select from {table} where {column} = {value}) then \
         raise exception 'applied already' using errcode = '{ALREADY}'; end if; end $once$"
    )
}

fn is_transaction(statement: &Statement<'_>) -> bool {
    let words = statement.words(3);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    matches!(
        words.as_slice(),
        ["begin" | "commit" | "end"]
            | ["begin" | "commit" | "end", "transaction" | "work", ..]
            | ["start", "transaction", ..]
    )
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn line_at(text: &str, offset: usize) -> String {
    let begin = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    text[begin..].lines().next().unwrap_or_default().to_owned()
}

/// In characters, from 1.
fn column_of(text: &str, offset: usize) -> usize {
    let begin = text[..offset].rfind('\n').map_or(0, |end| end + 1);
    text[begin..offset].chars().count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> File {
        File { label: "supabase/migrations/1_x.sql".into(), version: "1".into(), name: "x'y".into(), text: text.into() }
    }

    #[test]
    fn transaction_words_and_missing_extensions_are_left_out() {
        let file = file(
            "BEGIN;\ncreate table a ();\ncreate extension if not exists \"pg_graphql\" with schema graphql;\n\
             start transaction isolation level serializable; -- x\ncommit; select 'it''s'",
        );
        let script = Script::migration(&file, &["pg_graphql"]);
        assert_eq!(script.pieces.len(), 2);
        assert!(script.text.contains("values ('1', 'x''y', array['create table a ()','select ''it''''s''']::text[])"));
        assert_eq!(Script::migration(&file, &[]).pieces.len(), 3);
    }

    #[test]
    fn a_position_leads_back_to_the_line() {
        let file = file("-- größe\ncreate table a ();\n\n-- über\nselect 1,\n  nothing;\nselect 2");
        let script = Script::migration(&file, &[]);
        let byte = script.text.find("nothing").unwrap();
        let position = u32::try_from(script.text[..byte].chars().count() + 1).unwrap();
        let failure = script.failure(&Refusal { position: Some(position), ..Refusal::default() });
        assert_eq!((failure.line, failure.column, failure.excerpt.as_str()), (Some(6), Some(3), "  nothing;"));
    }

    #[test]
    fn without_a_position_the_statement_has_a_line() {
        let file = file("-- one\ncreate table a ();\n\n-- über\nselect 1/0;\nselect 2");
        let failure = Script::migration(&file, &[]).failure(&Refusal { after: 4, ..Refusal::default() });
        assert_eq!((failure.line, failure.column, failure.excerpt.as_str()), (Some(5), None, "select 1/0;"));
        let ours = Script::migration(&file, &[]).failure(&Refusal { after: 1, ..Refusal::default() });
        assert_eq!(ours.line, None);
    }
}
