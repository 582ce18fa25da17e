//! docs/apps.md, as far as it is tried: the code blocks that belong to an app, and the table of servers.

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

/// The page's text.
pub struct Page(String);

/// A file that the page shows.
pub struct Shown {
    /// The path in its first line, which is a comment.
    pub path: PathBuf,
    pub text: String,
}

impl Page {
    /// Reads it.
    pub fn read() -> Page {
        Page(fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/apps.md")).unwrap())
    }

    /// The code blocks, each with the language that it names.
    fn blocks(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.split("\n```").skip(1).step_by(2).filter_map(|block| block.split_once('\n'))
    }

    /// The configurations' texts, in their order.
    fn configurations(&self) -> impl Iterator<Item = &str> {
        self.blocks().filter(|(language, _)| *language == "toml").map(|(_, text)| text)
    }

    /// The apps that have a configuration.
    pub fn apps(&self) -> Vec<String> {
        let tables = self.configurations().map(|text| text.parse::<Table>().unwrap());
        tables.map(|table| table["app"].as_str().unwrap().to_owned()).collect()
    }

    /// The text of an app's configuration.
    pub fn configuration(&self, app: &str) -> &str {
        let mut found = self.configurations().filter(|text| text.starts_with(&format!("app = \"{app}\"\n")));
        found.next().unwrap_or_else(|| panic!("docs/apps.md has no configuration of {app}"))
    }

    /// The other files of an app that the page shows. The first word behind the comment's sign is the path: below `~/.APP`,
    /// the home, or nginx's directory; a name alone lies in the repository. Such a block follows the app's configuration.
    pub fn files(&self, app: &str) -> Vec<Shown> {
        let is_configuration =
            |(language, text): &(&str, &str)| *language == "toml" && text.starts_with(&format!("app = \"{app}\"\n"));
        let following = self.blocks().skip_while(|block| !is_configuration(block)).skip(1);
        let own = following.take_while(|(language, _)| *language != "toml");
        own.map(|(_, text)| Shown { path: text.split_whitespace().nth(1).unwrap().into(), text: format!("{text}\n") })
            .collect()
    }

    /// What the table of servers says of the one that an app runs on: after what time it closes an idle connection, and
    /// whether kept-alive ones make others wait. None: the table does not have it.
    pub fn server(&self, app: &str) -> Option<(String, String)> {
        let rows = self.0.lines().filter_map(|line| line.strip_prefix("| "));
        let mut rows = rows.map(|row| row.split(" | ").map(str::trim).collect::<Vec<_>>());
        let row = rows.find(|row| row.get(1) == Some(&format!("`{app}`").as_str()))?;
        Some((row[2].to_owned(), row[3].to_owned()))
    }
}
