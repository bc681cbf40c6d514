//! What in a database's schema makes no events.
//!
//! Receives the schema as SQL text (`CREATE TABLE` statements, as `mysqldump --no-data` writes them). Promises a warning
//! for every foreign key that changes rows by itself and for every table without a primary key. Never runs SQL, and reads
//! past what it does not know.

use super::Warning;

/// What the schema `sql` has that the binary log does not tell.
pub fn advise_schema(sql: &str) -> Vec<Warning> {
    let mut found = Vec::new();
    for statement in words(sql).split(|word| word == ";") {
        match statement {
            [create, rest @ ..] if is(create, "create") => {
                let Some(at) = rest.iter().take(4).position(|w| is(w, "table")) else { continue };
                let mut rest = rest.get(at + 1..).unwrap_or_default();
                if let [a, b, c, after @ ..] = rest
                    && is(a, "if")
                    && is(b, "not")
                    && is(c, "exists")
                {
                    rest = after;
                }
                let (name, body) = table_name(rest);
                cascades(&name, body, &mut found);
                if !has(body, &["primary", "key"]) && !body.is_empty() && !body.iter().any(|w| is(w, "like")) {
                    found.push(Warning::new(
                        format!("table `{name}`"),
                        "it has no primary key: equal rows cannot be told apart, changes are matched by the whole row, and a feed of changes cannot be had",
                        "give it a primary key",
                    ));
                }
            }
            [alter, table, rest @ ..] if is(alter, "alter") && is(table, "table") => {
                let (name, body) = table_name(rest);
                if has(body, &["primary", "key"]) {
                    let keyless = format!("table `{name}`");
                    found.retain(|warning| warning.what != keyless);
                }
                cascades(&name, body, &mut found);
            }
            _ => {}
        }
    }
    found
}

fn cascades(table: &str, body: &[String], found: &mut Vec<Warning>) {
    for (at, word) in body.iter().enumerate() {
        let after = body.get(at + 1..).unwrap_or_default();
        let [event, action @ ..] = after else { continue };
        if !is(word, "on") || !(is(event, "delete") || is(event, "update")) {
            continue;
        }
        // `ON UPDATE CURRENT_TIMESTAMP` is a column's default, not a key's action.
        let done = match action {
            [cascade, ..] if is(cascade, "cascade") => "CASCADE",
            [set, null, ..] if is(set, "set") && is(null, "null") => "SET NULL",
            [set, default, ..] if is(set, "set") && is(default, "default") => "SET DEFAULT",
            _ => continue,
        };
        found.push(Warning::new(
            format!("table `{table}`, ON {} {done}", event.to_uppercase()),
            "MySQL's storage engine does it below the binary log: no event tells of these rows, and the lake keeps them as they were",
            "let the application, or a trigger, change the rows before the one they refer to, and use RESTRICT",
        ));
    }
}

/// The table's name without its database, and the words after it.
fn table_name(words: &[String]) -> (String, &[String]) {
    match words {
        [_, dot, name, rest @ ..] if dot == "." => (name.clone(), rest),
        [name, rest @ ..] => (name.clone(), rest),
        [] => (String::new(), words),
    }
}

fn has(words: &[String], wanted: &[&str]) -> bool {
    words.windows(wanted.len()).any(|part| part.iter().zip(wanted).all(|(word, wanted)| is(word, wanted)))
}

fn is(word: &str, wanted: &str) -> bool {
    word.eq_ignore_ascii_case(wanted)
}

/// The words of the SQL, without comments and texts; quoted names without their quotes; what is no word, one by one.
fn words(sql: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut rest = sql;
    while let Some(first) = rest.chars().next() {
        let skip_to = |end: &str| rest.find(end).map_or("", |at| rest.get(at + end.len()..).unwrap_or_default());
        if first == '#' || rest.starts_with("-- ") || rest.starts_with("--\n") {
            rest = skip_to("\n");
        } else if rest.starts_with("/*!") {
            // MySQL runs what stands in it.
            rest = rest.trim_start_matches("/*!").trim_start_matches(|c: char| c.is_ascii_digit());
        } else if rest.starts_with("*/") {
            rest = rest.get(2..).unwrap_or_default();
        } else if rest.starts_with("/*") {
            rest = skip_to("*/");
        } else if matches!(first, '\'' | '"' | '`') {
            let (text, after) = quoted(rest, first);
            if first != '\'' {
                found.push(text);
            }
            rest = after;
        } else if first.is_alphanumeric() || first == '_' || first == '$' {
            let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            let (word, after) = rest.split_at(end);
            found.push(word.to_owned());
            rest = after;
        } else {
            if !first.is_whitespace() {
                found.push(first.to_string());
            }
            rest = rest.get(first.len_utf8()..).unwrap_or_default();
        }
    }
    found
}

/// The text in `quote`s that `rest` begins with, and what comes after it. A doubled quote stands for itself.
fn quoted(rest: &str, quote: char) -> (String, &str) {
    let mut text = String::new();
    let mut letters = rest.char_indices().skip(1).peekable();
    while let Some((at, c)) = letters.next() {
        match c {
            '\\' if quote != '`' => text.extend(letters.next().map(|(_, c)| c)),
            c if c == quote => match letters.peek() {
                Some((_, next)) if *next == quote => {
                    letters.next();
                    text.push(quote);
                }
                _ => return (text, rest.get(at + quote.len_utf8()..).unwrap_or_default()),
            },
            c => text.push(c),
        }
    }
    (text, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warned(sql: &str) -> Vec<String> {
        advise_schema(sql).into_iter().map(|w| w.what).collect()
    }

    #[test]
    fn the_online_store_has_nothing_that_makes_no_events() {
        assert_eq!(warned(include_str!("../../../pipelines/online_store/oltp.sql")), Vec::<String>::new());
    }

    #[test]
    fn cascades_and_tables_without_a_key_are_found() {
        let sql = "
            -- CREATE TABLE commented (a INT);
            CREATE TABLE IF NOT EXISTS `shop`.`click``log` (a INT COMMENT 'PRIMARY KEY; not', t TIMESTAMP ON UPDATE CURRENT_TIMESTAMP);
            create temporary table items (id int primary key, o int,
                foreign key (o) references orders (id) on delete cascade on update set null);
            CREATE TABLE late (id INT); ALTER TABLE late ADD PRIMARY KEY (id);
            ALTER TABLE shop.late ADD CONSTRAINT x FOREIGN KEY (id) REFERENCES items (id) ON DELETE SET NULL;";
        assert_eq!(
            warned(sql),
            [
                "table `click`log`",
                "table `items`, ON DELETE CASCADE",
                "table `items`, ON UPDATE SET NULL",
                "table `late`, ON DELETE SET NULL",
            ]
        );
    }

    #[test]
    fn text_that_ends_in_the_middle_is_read_to_its_end() {
        for sql in [
            "CREATE TABLE",
            "CREATE TABLE `x",
            "CREATE TABLE x (a TEXT DEFAULT 'é",
            "/* open",
            "/*!",
            "ALTER TABLE",
            "\\'\\",
        ] {
            advise_schema(sql);
        }
    }
}
